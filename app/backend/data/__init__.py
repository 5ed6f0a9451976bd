"""The data of the demo backend: rows, operation log, write checkpoints and users, in SQLite or PostgreSQL.

Must not know HTTP.
"""
