"""Tests of `sync.client`: the two loops and what they need."""
