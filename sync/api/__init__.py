"""The engine's public API: what an application uses.

Owns the database, its connector, the upload queue and the streams as an app sees them. Delegates to the packages below;
contains no SQL.
"""
