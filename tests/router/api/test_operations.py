"""Paths and methods: what finds which operation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amba_router.api.operations import Asked, Auth, Operation, Table, split_path
from amba_router.control.models import DeveloperAnswer


def operation(method: str, path: str) -> Operation:
    async def never(_: Asked) -> Any:
        raise AssertionError

    return Operation(
        f"{method} {path}", method, path, Auth.NOBODY, "", never, {200: DeveloperAnswer}
    )


TABLE = Table(
    [
        operation("DELETE", "/f/{name}"),
        operation("GET", "/f/deployments"),
        operation("POST", "/f/{name}/rollback"),
        operation("GET", "/{any}/x"),
    ]
)


@pytest.mark.parametrize(
    ("method", "segments", "expected"),
    [
        ("GET", ("f", "deployments"), "GET /f/deployments"),
        ("HEAD", ("f", "deployments"), "GET /f/deployments"),
        ("DELETE", ("f", "deployments"), "DELETE /f/{name}"),
        ("DELETE", ("f", "x"), "DELETE /f/{name}"),
        ("GET", ("f", "x"), "GET /{any}/x"),
        ("POST", ("f", "a", "rollback"), "POST /f/{name}/rollback"),
    ],
)
def test_a_literal_wins_unless_it_lacks_the_method(
    method: str, segments: tuple[str, ...], expected: str
) -> None:
    """A function may be called `deployments` (A.2)."""
    found = TABLE.find(method, segments)
    assert found is not None
    assert found.operation is not None
    assert found.operation.id == expected


@pytest.mark.parametrize("segments", [("f",), ("f", ""), ("g", "y"), ("f", "a", "b"), ()])
def test_no_path(segments: tuple[str, ...]) -> None:
    """An empty segment is no name."""
    assert TABLE.find("GET", segments) is None


def test_no_method() -> None:
    """The methods of every pattern that the path fits."""
    found = TABLE.find("PUT", ("f", "deployments"))
    assert found is not None
    assert found.operation is None
    assert found.methods == ("DELETE", "GET", "HEAD", "OPTIONS")


@pytest.mark.parametrize(
    ("raw", "segments"),
    [
        (b"/a/b", ("a", "b")),
        (b"//v1/a", ("a",)),
        (b"/v1/v1/a", ("v1", "a")),
        (b"/a//b", ("a", "", "b")),
        (b"/a/", ("a", "")),
        (b"/a%2Fb/%C3%A9", ("a/b", "é")),
        (b"/a/%2e%2e/b", ("a", "..", "b")),
        (b"/%ff", None),
        (b"/v1", None),
        (b"/a" * 17, None),
    ],
)
def test_paths_are_cut_before_they_are_decoded(
    raw: bytes, segments: tuple[str, ...] | None
) -> None:
    """An encoded slash stays inside its segment, each is decoded once."""
    assert split_path(raw) == segments


@given(st.binary(max_size=200))
def test_any_path(raw: bytes) -> None:
    """No bytes fail."""
    segments = split_path(b"/" + raw)
    if segments is not None:
        TABLE.find("GET", segments)
