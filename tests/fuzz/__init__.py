"""Inputs that are not what they should be, by the hundred thousand."""
