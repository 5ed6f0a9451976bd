"""Whose file it is: the user whose writes the upload queue and the rejected writes hold.

Owns the stamp in `ps_kv`, and the rule that writes of one user are never uploaded as another. `clearing` forgets the
stamp along with the writes. Must not know where a user's id comes from.
"""

from __future__ import annotations

from sync.errors import AccountMismatchError
from sync.sqlite.sql_connection import SqlConnection
from sync.storage import conflicts
from sync.storage.names import USER_ID


def owner(connection: SqlConnection) -> str | None:
    """The user of the file, or None if nobody has ever connected as a user who is known."""
    value = connection.value("SELECT value FROM ps_kv WHERE key = ?", (USER_ID,))
    return None if value is None else str(value)


def claim(connection: SqlConnection, user_id: str) -> None:
    """Make the file that of a user. Writes from before the first claim are theirs.

    Rejected writes count as writes that wait: a retry would upload them. Without any, the file changes hands, and
    what was remembered for the sake of conflicts goes: the new user is not to see the other one's values.

    Raises:
        AccountMismatchError: the file is another user's, and has writes of theirs. Nothing was changed.
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
