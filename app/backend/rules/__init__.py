"""Who gets which rows: the sync config, and the tables that clients may write. Pure values; no I/O but reading the
config.
"""
