"""The two loops that keep file and service in step.

Owns when to connect, download, upload and try again. Speaks to the file only through `sync.storage`, to the service
only through `sync.client.service`; contains no SQL.
"""
