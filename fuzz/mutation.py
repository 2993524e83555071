"""Bytes made from other bytes, by a seeded generator alone."""

from __future__ import annotations

import random

#: What counters and lengths are set to.
_ODD = (0, 1, 2, 7, 8, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 60_000)
_TOKENS = (
    b"\0", b"\xff", b"NaN", b"nan", b"1e999", b"-1", b"Infinity", b"null", b"true", b'""', b"[[[[", b"{{{{", b"\n",
    b"\r", b",",
    b'"', b"'", b"%s%n", b"../../../etc/passwd", b"/dev/zero", b"\xef\xbb\xbf", b"\xed\xb2\x80", b"9" * 400,
)  # fmt: skip


def mutated(rng: random.Random, content: bytes, *others: bytes) -> bytes:
    """`content` after one to eight changes; some take pieces of `others`."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4, 8))):
        rng.choice(_CHANGES)(rng, changed, others)
    return bytes(changed)


def _flip(rng: random.Random, content: bytearray, _: tuple[bytes, ...]) -> None:
    if content:
        content[_place(rng, content)] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, content: bytearray, _: tuple[bytes, ...]) -> None:
    if content:
        content[_place(rng, content)] = rng.randrange(256)


def _number(rng: random.Random, content: bytearray, _: tuple[bytes, ...]) -> None:
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(_ODD) % (1 << 8 * size)
    place = _place(rng, content)
    content[place : place + size] = value.to_bytes(size, rng.choice(("big", "little")))


def _cut(rng: random.Random, content: bytearray, _: tuple[bytes, ...]) -> None:
    del content[_place(rng, content) :]


def _remove(rng: random.Random, content: bytearray, _: tuple[bytes, ...]) -> None:
    place = _place(rng, content)
    del content[place : place + rng.choice((1, 2, 4, 16, 256))]


def _repeat(rng: random.Random, content: bytearray, _: tuple[bytes, ...]) -> None:
    place, size = _place(rng, content), rng.choice((1, 4, 16, 64, 256))
    piece = content[place : place + size]
    content[place:place] = piece * rng.choice((1, 2, 10, 1000))


def _token(rng: random.Random, content: bytearray, _: tuple[bytes, ...]) -> None:
    place, token = _place(rng, content), rng.choice(_TOKENS)
    content[place : place + rng.choice((0, 0, len(token)))] = token * rng.choice((1, 1, 1, 5000))


def _splice(rng: random.Random, content: bytearray, others: tuple[bytes, ...]) -> None:
    other = rng.choice(others) if others else bytes(content)
    start, place = rng.randrange(len(other) + 1), _place(rng, content)
    size = rng.choice((4, 64, 1024, len(other)))
    content[place : place + rng.choice((0, size))] = other[start : start + size]


def _place(rng: random.Random, content: bytearray) -> int:
    """Often near the start, where headers are."""
    most = len(content)
    return rng.randrange(min(most, 512)) if most and rng.random() < 0.6 else rng.randrange(most) if most else 0


_CHANGES = (_flip, _set, _number, _number, _cut, _remove, _repeat, _token, _splice)
