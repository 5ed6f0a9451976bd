"""Tests of `sync.storage`: the PowerSync file."""
