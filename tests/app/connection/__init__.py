"""Tests of `app.connection`."""
