"""Tests of `sync.status`."""
