"""The owner of the file: the user whose writes are in the upload queue and the rejected writes.

Owns the user id in `ps_kv`, and the rule that writes of one user are never uploaded as another. `clearing` deletes the
id along with the writes. Must not know where a user's id comes from.
"""

from __future__ import annotations

from sync.errors import AccountMismatchError
from sync.sqlite.sql_connection import SqlConnection
from sync.storage import conflicts
from sync.storage.names import USER_ID


def owner(connection: SqlConnection) -> str | None:
    """The user that owns the file, or None if nobody has connected with a known user id yet."""
    value = connection.value("SELECT value FROM ps_kv WHERE key = ?", (USER_ID,))
    return None if value is None else str(value)


def claim(connection: SqlConnection, user_id: str) -> None:
    """Assign the file to a user. Writes from before the first claim are theirs.

    Rejected writes count as waiting writes: a retry would upload them. If there are none, the file changes its owner,
    and the records kept for detecting conflicts are deleted: the new user must not see the other one's values.

    Raises:
        AccountMismatchError: the file belongs to another user and has writes of theirs. Nothing was changed.
    """
    known = owner(connection)
    if known == user_id:
        return
    if known is not None:
        waiting = connection.value(
            "SELECT (SELECT count(*) FROM ps_crud) + (SELECT count(*) FROM ps_rejected_crud) AS waiting"
        )
        if waiting:
            raise AccountMismatchError(known, user_id, waiting)
        conflicts.clear(connection)
    connection.execute("INSERT OR REPLACE INTO ps_kv(key, value) VALUES (?, ?)", (USER_ID, user_id))
