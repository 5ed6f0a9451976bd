"""Tests of the demo backend."""
