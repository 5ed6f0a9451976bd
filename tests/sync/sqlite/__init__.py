"""Tests of `sync.sqlite`: connections, transactions and rows."""
