"""The demo backend's data: rows, operation log, write checkpoints and users, in SQLite or PostgreSQL.

Must not know HTTP.
"""
