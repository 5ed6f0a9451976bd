"""Declarations of the app's tables, validated when they are created.

Values only: `sync.storage` turns them into tables, views and triggers.
"""
