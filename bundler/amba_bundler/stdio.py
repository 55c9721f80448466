"""The only place that knows the bytes esbuild speaks with `--service`: packets and values.

A packet is a length (u32, little endian), an id (u32: sequence number shifted left by one, the low
bit set in answers) and one value.
A value is a tag byte and its bytes: null, bool, u32, string, bytes, array or object.
The first thing esbuild says is not a packet of this kind: its version, with a length before it.

Source: esbuild 0.28.2, lib/shared/stdio_protocol.ts as published in its npm package, 2026-11-22.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = "bool | int | str | bytes | list[Value] | dict[str, Value] | None"

_U32 = struct.Struct("<I")
_DEPTH_MAX = 32
"""Far deeper than anything esbuild says (a metafile travels as bytes)."""


class PacketError(ValueError):
    """Bytes that are no packet of this protocol."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One request or answer: answers repeat the id of their request."""

    id: int
    is_request: bool
    value: Value


def encode(packet: Packet) -> bytes:
    """The packet with its length before it."""
    out = [_U32.pack((packet.id << 1) | (not packet.is_request))]
    _encode_value(packet.value, out)
    body = b"".join(out)
    return _U32.pack(len(body)) + body


def decode(body: bytes) -> Packet:
    """The packet in `body`, its length already removed.

    Raises:
        PacketError: truncated, a tag that is not known, not UTF-8, or bytes left over.
    """
    try:
        (head,) = _U32.unpack_from(body)
        value, end = _decode_value(body, 4, 0)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise PacketError(str(error)) from error
    if end != len(body):
        raise PacketError(f"{len(body) - end} bytes after the value")
    return Packet(head >> 1, not head & 1, value)


def _encode_value(value: Value, out: list[bytes]) -> None:
    if value is None:
        out.append(b"\0")
    elif isinstance(value, bool):
        out.append(b"\1\1" if value else b"\1\0")
    elif isinstance(value, int):
        out.append(b"\2" + _U32.pack(value))
    elif isinstance(value, str):
        out.append(b"\3" + _counted(value.encode()))
    elif isinstance(value, bytes):
        out.append(b"\4" + _counted(value))
    elif isinstance(value, list):
        out.append(b"\5" + _U32.pack(len(value)))
        for item in value:
            _encode_value(item, out)
    else:
        out.append(b"\6" + _U32.pack(len(value)))
        for key, item in value.items():
            out.append(_counted(key.encode()))
            _encode_value(item, out)


def _counted(data: bytes) -> bytes:
    return _U32.pack(len(data)) + data


def _decode_value(body: bytes, at: int, depth: int) -> tuple[Value, int]:
    if depth > _DEPTH_MAX:
        raise PacketError(f"nested deeper than {_DEPTH_MAX}")
    tag = body[at]
    at += 1
    if tag == 0:
        return None, at
    if tag == 1:
        return body[at] != 0, at + 1
    (number,) = _U32.unpack_from(body, at)
    at += 4
    if tag == 2:
        return number, at
    if tag in (3, 4):
        data, at = _take(body, at, number)
        return (_text(data) if tag == 3 else data), at
    if tag == 5:
        items: list[Value] = []
        for _ in range(number):
            item, at = _decode_value(body, at, depth + 1)
            items.append(item)
        return items, at
    if tag == 6:
        members: dict[str, Value] = {}
        for _ in range(number):
            (size,) = _U32.unpack_from(body, at)
            key, at = _take(body, at + 4, size)
            members[_text(key)], at = _decode_value(body, at, depth + 1)
        return members, at
    raise PacketError(f"unknown tag {tag}")


def _text(data: bytes) -> str:
    """Text of esbuild's: a guest's half surrogate pairs and odd file names come as they are."""
    return data.decode(errors="replace")


def _take(body: bytes, at: int, size: int) -> tuple[bytes, int]:
    end = at + size
    if end > len(body):
        raise PacketError(f"{end - len(body)} bytes missing")
    return body[at:end], end
