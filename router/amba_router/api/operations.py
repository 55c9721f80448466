"""What an operation is: one row of the table that drives routing, auth, bodies and documentation.

Source: contract D, E (paths); RFC 9110 section 15.5.6 (405 and `Allow`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from amba_router.api.faults import Fault
from amba_runtime import limits

if TYPE_CHECKING:
    import msgspec

    from amba_router.api.callers import Caller
    from amba_router.api.intake import Body
    from amba_router.store.control_records import ProjectRecord


class Auth(Enum):
    """Who may call an operation. Source: contract C.1, E.0."""

    NOBODY = "nobody"  # needs no credential
    DEVELOPER = "developer"  # a PAT alone: what concerns more than one project
    PROJECT = "project"  # a PAT of its owner, or its own internal token or server key
    CLIENT = "client"  # an API key; a session beside it is read
    SESSION = "session"  # an API key, and a user's session; or a server key for one of its users
    TELLING = "telling"  # as SESSION, or a function with its internal token alone (contract E.6)
    FUNCTION = "function"  # as PROJECT, where the path names no project: the token or a header does


class Reads(Enum):
    """What an operation makes of its request's body."""

    NOTHING = "nothing"
    JSON = "json"
    MAYBE_JSON = "maybe json"  # an empty body is an empty object
    UPLOAD = "upload"


@dataclass(frozen=True, slots=True)
class Query:
    """A query parameter: its JSON schema, and what it means."""

    name: str
    schema: Mapping[str, Any]
    means: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Plain:
    """A body that is no JSON of ours: bytes, or pieces that are sent as they come."""

    content_type: bytes
    content: bytes | AsyncIterator[bytes]


Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields, names in lower case."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler gives back; the app checks it against the operation's `answers`.

    Attributes:
        headers: besides content type and length; a `cache-control` replaces `no-store`.
    """

    status: int
    body: msgspec.Struct | Plain | None
    headers: Fields = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, authenticated and decoded, as a handler gets it.

    Attributes:
        path: the values of the pattern's names.
        query: first values by name, only declared ones.
        body: an instance of the operation's `request`, or None.
        upload: for `Reads.UPLOAD`: the body itself, unread.
        still: raises `Refused` when the credential has been revoked meanwhile.
        fields: the request's headers.
        request_id: names it in logs and errors.
        user_id: whose session it is, or for whom a server key asks; "" is nobody.
        as_user: a server key asks for `user_id` (contract H-9, H-15).
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    caller: Caller | None
    project: ProjectRecord | None
    body: Any
    upload: Body | None
    still: Callable[[], None]
    fields: Fields = ()
    request_id: str | None = None
    user_id: str = ""
    as_user: bool = False

    def header(self, name: bytes) -> str:
        """The first value of a lower-case name, "" where there is none."""
        return next((v.decode("latin-1").strip() for n, v in self.fields if n == name), "")


Handler = Callable[[Asked], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path.

    Attributes:
        id: unique; what generated clients call it.
        path: without `/v1`, such as `/admin/projects/{project_id}/functions/{name}`.
        answers: status -> type of the body; None is none, or one that is no JSON of ours.
        faults: besides those that follow from `auth`, `reads` and `writes`.
        request: what a JSON body is decoded into: a Struct, or a type of plain values.
        bytes_max: of a JSON body; 0 is the usual number.
        content: of the request's body in OpenAPI, where it is no plain `request`.
        also: further models that `content` names.
        ours: not in the platform's documentation.
    """

    id: str
    method: str
    path: str
    auth: Auth
    means: str
    handler: Handler = field(repr=False)
    answers: Mapping[int, type[msgspec.Struct] | None]
    faults: tuple[Fault, ...] = ()
    reads: Reads = Reads.NOTHING
    request: Any = None
    query: tuple[Query, ...] = ()
    ours: bool = False
    bytes_max: int = 0
    content: Mapping[str, Any] | None = None
    also: tuple[type[msgspec.Struct], ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A path that is known: the operation when the method is, too, and the methods there are."""

    operation: Operation | None
    values: Mapping[str, str]
    methods: tuple[str, ...]


Part = Callable[[], Iterable[Operation]]
"""Some of the operations of an API: made at the first request, models and all."""


class Table:
    """All operations, found by method and path. Immutable once made."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.operations = tuple(operations)
        self._by_length: dict[int, list[tuple[tuple[str, ...], Operation]]] = {}
        for operation in self.operations:
            pattern = tuple(operation.path[1:].split("/"))
            self._by_length.setdefault(len(pattern), []).append((pattern, operation))
        for rows in self._by_length.values():
            # a literal segment wins over a name, from the left
            rows.sort(key=lambda row: [segment.startswith("{") for segment in row[0]])

    def find(self, method: str, segments: tuple[str, ...]) -> Found | None:
        """None for a path that nothing answers at, whatever the method.

        A function may be called `deployments`: a literal path without the method gives way.
        HEAD finds what GET does.
        """
        wanted = "GET" if method == "HEAD" else method
        methods: list[str] = []
        for pattern, operation in self._by_length.get(len(segments), ()):
            values = _match(pattern, segments)
            if values is None:
                continue
            if operation.method == wanted:
                return Found(operation, values, ())
            if operation.method not in methods:
                methods.append(operation.method)
        if not methods:
            return None
        if "GET" in methods:
            methods.append("HEAD")
        return Found(None, {}, tuple(sorted({*methods, "OPTIONS"})))


def _match(pattern: tuple[str, ...], segments: tuple[str, ...]) -> dict[str, str] | None:
    values: dict[str, str] = {}
    for part, segment in zip(pattern, segments, strict=True):
        if part.startswith("{"):
            if not segment:
                return None
            values[part[1:-1]] = segment
        elif part != segment:
            return None
    return values


def split_path(raw: bytes) -> tuple[str, ...] | None:
    """The segments of a raw path, decoded once each; None for what no path of ours can be.

    Leading slashes count as one (contract G.1), a leading `v1` as nothing (H-6).
    """
    pieces = raw.lstrip(b"/").split(b"/", limits.CONTROL_SEGMENTS.value)
    if pieces[0] == b"v1":
        pieces = pieces[1:]
    if not pieces or len(pieces) > limits.CONTROL_SEGMENTS.value:
        return None
    try:
        return tuple(unquote_to_bytes(piece).decode() for piece in pieces)
    except UnicodeDecodeError:
        return None
