"""The widgets, each in its module."""
