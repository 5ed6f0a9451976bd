"""The database file, in the layout of PowerSync's own clients at schema version 14.

Owns every name that begins with `ps_`. Its functions take a `SqlConnection` and run on a connection's thread, inside
the caller's transaction. Must not do HTTP.
"""
