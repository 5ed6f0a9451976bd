"""Checksum arithmetic: sums of 32-bit numbers modulo 2³², in their unsigned and signed forms."""

from __future__ import annotations

_MODULUS = 1 << 32


def unsigned32(value: int) -> int:
    """The sum modulo 2³², as the database file stores a bucket's checksums."""
    return value % _MODULUS


def signed32(value: int) -> int:
    """The same number in signed form, as the database file stores an operation's checksum."""
    value %= _MODULUS
    return value - _MODULUS if value >= _MODULUS // 2 else value
