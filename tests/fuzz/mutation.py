"""The good inputs, and how one is spoiled."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Final

_TRANSCRIPTS: Final = Path(__file__).parents[1] / "fixtures" / "transcripts"


@cache
def transcripts() -> tuple[tuple[bytes, ...], ...]:
    """Real traffic: the lines of each stream."""
    return tuple(
        tuple(line for line in path.read_bytes().splitlines() if line) for path in sorted(_TRANSCRIPTS.glob("*.ndjson"))
    )


def mutated(chance: random.Random, text: bytes) -> bytes:
    """Some bytes replaced, taken out, doubled, or cut off."""
    made = bytearray(text)
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(made) + 1)
        match chance.randrange(5):
            case 0:
                made[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del made[place : place + chance.randrange(20)]
            case 2:
                made[place:place] = made[place : place + chance.randrange(20)]
            case 3:
                made[place:place] = chance.choice([b"null", b"-1", b"1e999", b'""', b"[]", b"{}", b"\xff", b"9" * 40])
            case _:
                del made[place:]
    return bytes(made)
