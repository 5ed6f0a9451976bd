"""Tests of `sync.api`: what an application touches."""
