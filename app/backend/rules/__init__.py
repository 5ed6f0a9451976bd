"""Which rows each client syncs (the sync config) and which tables clients may write.

Pure values; the only I/O is reading the sync config.
"""
