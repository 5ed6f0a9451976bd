"""The sync status as immutable values, and the board that publishes them.

Does no I/O.
"""
