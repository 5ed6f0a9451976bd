"""Tests of what is typed and stored for a to-do."""
