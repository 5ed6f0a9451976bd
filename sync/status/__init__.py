"""The state of synchronization as immutable values, and the board that publishes them.

Does no I/O.
"""
