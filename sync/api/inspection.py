"""Looking at a database file from outside: `inspect`. Changes nothing, and needs no schema.

Owns what is reported about a file. Its content is read by `sync.storage.inspection`, who has it open by
`sync.sqlite.openers`.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sync.client.sync_lock import holder
from sync.sqlite.damaged_file import connect_read_only, integrity_problems, is_damage
from sync.sqlite.openers import OpenProcess, open_processes
from sync.sqlite.sql_connection import SqlConnection
from sync.storage.checkpoint_requests import SyncGate
from sync.storage.inspection import StoredFacts, stored_facts


@dataclass(frozen=True, slots=True)
class FileInspection:
    """What `inspect` found. Where a value may be None, that means that it is not in the file, or cannot be read.

    Attributes:
        path: the real path of the file.
        exists: whether there is one; if not, nothing else is known.
        size: in bytes.
        log_size: of the write-ahead log beside it, in bytes.
        unreadable: why the file cannot be read now though nothing shows that it is damaged: another program has it
            locked, say, or its permissions forbid it. None if it can be read.
        damage: what SQLite found damaged, a sentence each, at most 20; empty if nothing.
        schema_version: of PowerSync's internal tables.
        queue_length: local changes that wait for upload.
        queue_oldest_at: when (UTC) the first of them was made, to within a second.
        rejected_writes: transactions that the backend refused, and that were neither retried nor discarded.
        conflicts: that were not dismissed.
        gate: why downloaded data may, or may not, become visible.
        bucket_count: buckets that were downloaded.
        last_synced_at: when (UTC) the last complete checkpoint was published.
        client_id: by which the service tells this file from others of the same user.
        user_id: the user whose file it is.
        open_in: the processes that have it open by this engine, the present one included.
        syncing_process: the number of the one that syncs it, or None.
    """

    path: Path
    exists: bool
    size: int = 0
    log_size: int = 0
    unreadable: str | None = None
    damage: tuple[str, ...] = ()
    schema_version: int | None = None
    queue_length: int | None = None
    queue_oldest_at: datetime | None = None
    rejected_writes: int | None = None
    conflicts: int | None = None
    gate: SyncGate | None = None
    bucket_count: int | None = None
    last_synced_at: datetime | None = None
    client_id: str | None = None
    user_id: str | None = None
    open_in: tuple[OpenProcess, ...] = ()
    syncing_process: int | None = None

    @property
    def is_damaged(self) -> bool:
        """Whether SQLite found damage, or no database at all in the file."""
        return bool(self.damage)


def inspect(path: str | Path, *, full: bool = False) -> FileInspection:
    """Look at a database file and change nothing, whether it is in use, damaged, or of any schema version.

    Reads the whole file to check it, so it takes as long as that takes: call it in a thread. Beside a file that nobody
    has open, SQLite may leave an empty `-wal` and a `-shm`, which the next opener uses. Raises nothing that is about
    the file: it says what it found.

    Args:
        path: of the database file; links are followed.
        full: also compare the indexes with their tables, which takes several times as long.
    """
    real = os.path.realpath(path)
    try:
        size = Path(real).stat().st_size
    except FileNotFoundError:
        return FileInspection(Path(real), exists=False)
    except OSError as error:
        return FileInspection(Path(real), exists=True, unreadable=error.strerror or str(error))
    facts = StoredFacts()
    damage: tuple[str, ...] = ()
    unreadable: str | None = None
    try:
        with closing(connect_read_only(real)) as connection:
            facts = stored_facts(SqlConnection(connection))
            damage = integrity_problems(connection, full=full)
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            damage = (str(error),)
        else:
            unreadable = str(error)
    return FileInspection(
        path=Path(real),
        exists=True,
        size=size,
        log_size=_size(f"{real}-wal"),
        unreadable=unreadable,
        damage=damage,
        schema_version=facts.schema_version,
        queue_length=facts.queue_length,
        queue_oldest_at=facts.queue_oldest_at,
        rejected_writes=facts.rejected_writes,
        conflicts=facts.conflicts,
        gate=facts.gate,
        bucket_count=facts.bucket_count,
        last_synced_at=facts.last_synced_at,
        client_id=facts.client_id,
        user_id=facts.user_id,
        open_in=open_processes(real),
        syncing_process=holder(real),
    )


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
