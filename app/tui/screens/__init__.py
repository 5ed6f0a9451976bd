"""The screens. All but the main one load on first use."""
