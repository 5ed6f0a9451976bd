"""Tests of `sync.schema`: declarations."""
