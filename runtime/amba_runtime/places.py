"""Where a place in a bundle comes from: the user's file, and the chain of imports that led there.

The map and the metafile may be a stranger's: nothing here raises, and the words that come out are
bounded and free of control characters; they remain untrusted text.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from itertools import islice
from typing import Any
from urllib.parse import unquote_to_bytes

from amba_runtime import limits
from amba_runtime.engine.base import GUEST_MODULE, HOST_MODULES
from amba_runtime.manifest import Bundle
from amba_runtime.sourcemap import SourceMap

_INLINE = re.compile(
    rb"//[#@] sourceMappingURL=data:application/json([^,\s]{0,100}),([^\s'\"]*)\s*\Z"
)
_COMMENT = b"sourceMappingURL="
_FRAME = re.compile(
    rf"(?:\A|[ (/]){re.escape(GUEST_MODULE)}:(\d{{1,9}}):(\d{{1,9}})\)?$", re.MULTILINE
)
_DEFAULT = re.compile(
    r"^[ \t]{0,80}(export[ \t]{1,80}default\b"
    r"|export[ \t]{0,80}\{[^}]{0,300}\bas[ \t]{1,80}default\b)",
    re.MULTILINE,
)
_SOUGHT_CHARS = 1 << 20
"""Of all sources together: the texts are a stranger's, and the search is not free."""

_CONTROL = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What steers a terminal; and lone surrogates, which no file, pipe or database takes."""


class Places:
    """Leads places of one bundle back. The map is read at the first question.

    Args:
        name: what the bundle is called where no map leads further.
    """

    def __init__(self, bundle: Bundle, name: str) -> None:
        self._bundle = bundle
        self._name = name
        self._map: SourceMap | None = None
        self._chains: dict[str, tuple[str, ...]] | None = None

    def of(self, line: int, column: int) -> tuple[str, int, int]:
        """File, line and column of a place in the bundle, all from 1, columns in UTF-16 units."""
        found = self._source_map().lookup(line, column)
        if found is None or not found.source:
            return self._name, line, column
        return words(found.source), found.line, found.column

    def in_stack(self, stack: str) -> tuple[str, int, int]:
        """The place of a stack's first frame in the bundle; ("", 0, 0) where there is none."""
        frame = _FRAME.search(stack)
        return self.of(int(frame[1]), int(frame[2])) if frame else ("", 0, 0)

    def stack(self, stack: str) -> str:
        """The stack in terms of the user's files, our own frames left out."""
        if not stack:
            return ""
        mapped = self._source_map().map_stack(stack, GUEST_MODULE, hidden=HOST_MODULES)
        return mapped.replace(f"{GUEST_MODULE}:", f"{self._name}:")

    def chain(self, file: str) -> tuple[str, ...]:
        """From the entrypoint to `file`, by the shortest way; only the file where unknown."""
        if not file:
            return ()
        if self._chains is None:
            self._chains = chains_of(self._bundle.metafile)
        return self._chains.get(file, (file,))[-limits.VIOLATION_CHAIN.value :]

    def default_export(self) -> tuple[str, int, int]:
        """Where the default export is written; ("", 0, 0) where that cannot be told.

        The engine does not say. Looked for in the user's own sources as the map holds them, or in
        the bundle where there is no map.
        """
        entry = entry_of(self._bundle.metafile)
        texts = _own_sources(self._document())
        if not texts:
            texts = {self._name: self._bundle.code.decode(errors="replace")}
        places: list[tuple[str, re.Match[str]]] = []
        left = _SOUGHT_CHARS
        for file in sorted(texts, key=lambda file: file != entry):
            # two are enough to be in doubt: one may stand in a comment or a template
            found = islice(_DEFAULT.finditer(texts[file], 0, left), 2)
            left -= min(left, len(texts[file]))
            places += [(file, match) for match in found]
        named = [place for place in places if place[0] == entry] or places
        if len(named) != 1:
            return "", 0, 0
        file, match = named[0]
        before = match.string[: match.start(1)]
        line = before.count("\n") + 1
        column = before[before.rfind("\n") + 1 :]
        return words(file), line, len(column.encode("utf-16-le", "surrogatepass")) // 2 + 1

    def _source_map(self) -> SourceMap:
        if self._map is None:
            self._map = SourceMap.parse(self._document())
        return self._map

    def _document(self) -> bytes:
        return self._bundle.source_map or _inline_map(self._bundle.code)


def words(text: str) -> str:
    """Text of a stranger for a message, bounded.

    No surrogates, and of control characters only line feeds.
    """
    most = limits.VIOLATION_TEXT.value
    short = text if len(text) <= most else f"{text[:most]}…"
    return _CONTROL.sub("�", short)


def _own_sources(document: bytes) -> dict[str, str]:
    """The texts in a map, but those of packages."""
    if len(document) > limits.SOURCE_MAP.value:
        return {}
    try:
        read: Any = json.loads(document or b"{}")
        pairs: list[tuple[Any, Any]] = list(
            zip(read.get("sources", ()), read.get("sourcesContent", ()), strict=False)
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {
        file: text
        for file, text in pairs
        if isinstance(file, str) and isinstance(text, str) and "node_modules/" not in file
    }


def _inline_map(code: bytes) -> bytes:
    """The map in a bundle's last comment; b"" where there is none."""
    at = code.rfind(_COMMENT)
    if at < 3 or len(code) - at > limits.SOURCE_MAP.value * 2:
        return b""
    comment = _INLINE.match(code, at - 4)
    if comment is None:
        return b""
    if comment[1].endswith(b";base64"):
        try:
            return base64.b64decode(comment[2], validate=True)
        except binascii.Error:
            return b""
    return unquote_to_bytes(comment[2])


def entry_of(metafile: bytes | None) -> str:
    """The entrypoint that a metafile names; "" where it names none."""
    return next(iter(chains_of(metafile)), "")


def chains_of(metafile: bytes | None) -> dict[str, tuple[str, ...]]:
    """For each file of a metafile, the shortest chain of imports to it, from the entrypoint."""
    try:
        account: Any = json.loads(metafile or b"{}")
        inputs: dict[str, Any] = account["inputs"]
        outputs: dict[str, Any] = account["outputs"]
        entry = next(o["entryPoint"] for o in outputs.values() if "entryPoint" in o)
        chains: dict[str, tuple[str, ...]] = {entry: (entry,)}
        todo = [entry]
        for file in todo:  # grows while it is walked: breadth first
            for item in inputs.get(file, {}).get("imports", ()):
                path = item["path"]
                if not item.get("external") and path in inputs and path not in chains:
                    chains[path] = (*chains[file], path)
                    todo.append(path)
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
        return {}
    return chains
