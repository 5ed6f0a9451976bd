"""Queries that run again when what they read has changed.

Owns when a query runs again and what its reader gets. Must not know PowerSync: here, tables are plain SQLite tables.
"""
