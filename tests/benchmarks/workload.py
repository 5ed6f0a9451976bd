"""What a first sync downloads: the lines of a stream, made up from a seed.

Owns the shape of the data: how many rows, buckets and tables, how large, in which order of ids. Knows neither the
engine nor the references.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

OPERATIONS_PER_LINE = 1000
"""The service sends at most so many in one line."""


@dataclass(frozen=True)
class Workload:
    """A first sync.

    Attributes:
        row_bytes: about the length of a row's JSON.
        ids: "random" (uuid) or "ascending".
    """

    rows: int
    buckets: int = 10
    tables: int = 1
    row_bytes: int = 340
    ids: str = "random"

    @property
    def table_names(self) -> list[str]:
        return [f"table_{number}" for number in range(self.tables)]

    def operations(self, bucket: int) -> Iterator[dict[str, object]]:
        chance = random.Random(bucket)
        first = self.rows * bucket // self.buckets
        filling = "x" * max(0, self.row_bytes - 165)
        for number in range(first, self.rows * (bucket + 1) // self.buckets):
            row_id = str(uuid.UUID(int=chance.getrandbits(128) if self.ids == "random" else number))
            data = (
                f'{{"id":"{row_id}","list_id":"{row_id[::-1]}","created_at":"2026-01-01T00:00:00Z",'
                f'"description":"{filling}","position":{number},"completed":{number % 2}}}'
            )
            yield {
                "op_id": str(number + 1),
                "op": "PUT",
                "object_type": f"table_{number % self.tables}",
                "object_id": row_id,
                "checksum": number * 2654435761 % 2**32,
                "subkey": row_id,
                "data": data,
            }

    def later_lines(self, first: int, count: int) -> Iterator[bytes]:
        """After the first sync: checkpoints that bring one new row of the list `live` each, in the first bucket.

        Args:
            first: how many were sent before.
            count: how many to make.
        """
        in_bucket = self.rows // self.buckets
        checksum = sum(number * 2654435761 for number in range(in_bucket)) + first
        for number in range(first, first + count):
            last_op_id = str(self.rows + 1 + number)
            checksum += 1
            bucket = {
                "bucket": "bucket[0]",
                "checksum": checksum % 2**32,
                "count": in_bucket + number + 1,
                "priority": 3,
            }
            yield _line(
                {"checkpoint_diff": {"last_op_id": last_op_id, "updated_buckets": [bucket], "removed_buckets": []}}
            )
            row_id = f"live-{number}"
            data = f'{{"id":"{row_id}","list_id":"live","description":"buy milk","position":{number},"completed":0}}'
            operation = {"op_id": last_op_id, "op": "PUT", "object_type": "table_0", "object_id": row_id}
            yield _data_line(0, [operation | {"checksum": 1, "subkey": row_id, "data": data}])
            yield _line({"checkpoint_complete": {"last_op_id": last_op_id}})

    def lines(self) -> Iterator[bytes]:
        """The stream, up to its first complete checkpoint."""
        last_op_id = str(self.rows)
        sums: list[dict[str, object]] = []
        for bucket in range(self.buckets):
            first, end = (self.rows * (bucket + more) // self.buckets for more in (0, 1))
            checksum = sum(number * 2654435761 % 2**32 for number in range(first, end)) % 2**32
            sums.append({"bucket": f"bucket[{bucket}]", "checksum": checksum, "count": end - first, "priority": 3})
        yield _line(
            {"checkpoint": {"last_op_id": last_op_id, "write_checkpoint": None, "buckets": sums, "streams": []}}
        )
        for bucket in range(self.buckets):
            gathered: list[dict[str, object]] = []
            for operation in self.operations(bucket):
                gathered.append(operation)
                if len(gathered) == OPERATIONS_PER_LINE:
                    yield _data_line(bucket, gathered)
                    gathered = []
            if gathered:
                yield _data_line(bucket, gathered)
        yield _line({"checkpoint_complete": {"last_op_id": last_op_id}})


def _data_line(bucket: int, operations: list[dict[str, object]]) -> bytes:
    return _line({"data": {"bucket": f"bucket[{bucket}]", "after": "0", "has_more": False, "data": operations}})


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
