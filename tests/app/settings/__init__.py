"""Tests of `app.settings`."""
