"""Plain SQLite for asyncio: connections on threads, leases, transactions, rows.

Must not know that anything is synced, nor any name that begins with `ps_`.
"""
