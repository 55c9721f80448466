"""JSON bodies: bounded in depth, and a wrong type is named with its place."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amba_router.api.decoding import decode_json
from amba_router.api.faults import Refused
from amba_router.control.function_models import Metadata
from amba_router.control.models import CreateProject
from amba_runtime import limits

DEEP = limits.CONTROL_JSON_DEPTH.value


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"name": 1}', "$.name"),
        (b"{}", "$"),
        (b'{"name": "a", "platform": "x"}', "$.platform"),
        (b"[]", "$"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(raw: bytes, field: str) -> None:
    """`details.field` says where, the message says what."""
    with pytest.raises(Refused) as caught:
        decode_json(raw, CreateProject)
    assert caught.value.problem.details == {"field": field}
    assert caught.value.fault.code == "INVALID_INPUT"


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_the_depth(extra: int) -> None:
    """At the limit it is read, one level deeper is not; brackets in strings are none."""
    depth = DEEP - 1 + extra  # the object itself is one level
    raw = b'{"name": "a", "x": ' + b"[" * depth + b"]" * depth + b"}"
    if extra <= 0:
        assert decode_json(raw, Metadata).name == "a"
    else:
        with pytest.raises(Refused, match="nested deeper"):
            decode_json(raw, Metadata)


@pytest.mark.parametrize("text", ["[" * 500, '"[' * 100, "\\" * 99 + '"[[', "{" * 70 + "\\"])
def test_brackets_in_strings_are_none(text: str) -> None:
    """However they are quoted."""
    raw = json.dumps({"name": "a", "x": text}).encode()
    assert decode_json(raw, Metadata).name == "a"


@pytest.mark.parametrize(
    "raw",
    [
        b'"' + b'\\"' * 500_000 + b"[" * 100,
        b'{"a":"' * 150_000,
        b"[" * 1_000_000,
        b'"' * 1_000_000 + b"[" * 100,
        b'"\\' * 500_000,
    ],
)
def test_no_text_makes_it_slow(raw: bytes) -> None:
    """A megabyte of quotes is refused as fast as anything: the search never starts over."""
    with pytest.raises(Refused) as caught:
        decode_json(raw, Metadata)
    assert caught.value.fault.code == "INVALID_JSON"


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_decoded_or_refused(raw: bytes) -> None:
    """No bytes fail in another way."""
    with contextlib.suppress(Refused):
        assert decode_json(raw, CreateProject).name
