"""Tests of `sync.watch`: queries that run again."""
