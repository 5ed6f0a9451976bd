"""The two loops that keep the file in sync with the service.

Owns when to connect, download, upload and retry. Accesses the file only through `sync.storage`, and the service
only through `sync.client.service`; contains no SQL.
"""
