"""The database file, laid out as PowerSync's own clients lay it out at schema version 14.

Owns every name that begins with `ps_`. Its functions take `SqlConnection` and run on a connection's thread, inside the
caller's transaction. Must not do HTTP.
"""
