"""The tests; each folder mirrors the package of the same name."""
