"""The engine's face: what an application touches.

Owns the database, its connector, the upload queue and the streams as an app sees them. Delegates to the rooms below;
contains no SQL.
"""
