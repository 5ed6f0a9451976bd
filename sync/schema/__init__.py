"""Declarations of the app's tables, checked when they are made.

Values only: how they become tables, views and triggers is `sync.storage`'s.
"""
