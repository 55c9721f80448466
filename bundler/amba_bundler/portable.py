"""Paths in what was built that would tell where this machine keeps things, and their replacements.

esbuild names every input relative to the build's root. That is the same everywhere as long as the
files lie in the checkout; packages that are reached through a symbolic link (pnpm's store, npm
workspaces, a linked `node_modules`) come out as `../../../home/me/...` instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

_CLIMBS = re.compile(r"(\(disabled\):)?((?:\.\./)+)(.+)", re.DOTALL)
# The three forms in which esbuild 0.28.2 writes a path into readable code: before a module, as the
# key of a CommonJS or lazy module, and above its legal comments. Whole lines or their starts, so
# that user code is touched only where it spells such a line with that very path.
_IN_CODE = re.compile(
    rb'^(// |  "|)((?:\(disabled\):)?\.\./[^\n"]*?)("\(|:?$)',
    re.MULTILINE,
)
_SOURCES_END = b',\n  "sourcesContent": '
"""Where esbuild 0.28.2 ends the list of sources in a map; no file name holds a raw newline."""


def portable_names(paths: Iterable[str], folder: Path) -> dict[str, str]:
    """New names for those of `paths` that depend on the machine; the others are left out.

    A path that climbs and then enters `node_modules` somewhere is named from there on.
    One that climbs up to the root of the file system is named by its file alone.
    No two names are the same.

    Args:
        paths: as in the metafile, relative to `folder`.
        folder: absolute path of the build's root.
    """
    names: dict[str, str] = {}
    taken = set(paths)
    for path in sorted(taken):
        name = _portable_name(path, len(folder.parts) - 1)
        if name == path:
            continue
        unique, number = name, 1
        while unique in taken:
            number += 1
            unique = f"{name}~{number}"
        taken.add(unique)
        names[path] = unique
    return names


def rename_in_metafile(metafile: bytes, names: Mapping[str, str]) -> bytes:
    """The metafile with every string and key in `names` replaced."""

    def rename(node: Any) -> Any:
        if isinstance(node, str):
            return names.get(node, node)
        if _is_list(node):
            return [rename(item) for item in node]
        if _is_object(node):
            return {names.get(key, key): rename(item) for key, item in node.items()}
        return node

    return _dump(rename(json.loads(metafile)))


def rename_in_map(source_map: bytes, folder: Path, names: Mapping[str, str]) -> bytes:
    """The source map with its `sources` renamed; megabytes of content are not read for that.

    A package that was published with a map of its own adds sources that are no inputs, so they
    get their names here, beside those in `names`.
    """
    head, found, tail = source_map.partition(_SOURCES_END)
    document: dict[str, Any] = json.loads(head + b"}" if found else head)
    others = portable_names({*document["sources"]} - {*names}, folder)
    if not names and not others:
        return source_map
    document["sources"] = [
        names.get(source) or others.get(source, source) for source in document["sources"]
    ]
    return _dump(document)[:-1] + found + tail if found else _dump(document)


def rename_in_code(code: bytes, names: Mapping[str, str]) -> bytes:
    """The bundle with those names replaced where esbuild wrote them. The line count stays."""
    encoded = {path.encode(): name.encode() for path, name in names.items()}

    def rename(match: re.Match[bytes]) -> bytes:
        name = encoded.get(match[2])
        return match[0] if name is None else match[1] + name + match[3]

    return _IN_CODE.sub(rename, code)


def _portable_name(path: str, depth: int) -> str:
    match = _CLIMBS.fullmatch(path)
    if not match:
        return path
    mark, climb, rest = match[1] or "", match[2], match[3]
    if rest.startswith("node_modules/"):
        return path
    _, found, inside = rest.partition("/node_modules/")
    if found:
        return f"{mark}node_modules/{inside}"
    if len(climb) // len("../") >= depth:
        return f"{mark}outside/{rest.rpartition('/')[2]}"
    return path


def _is_list(node: Any) -> TypeGuard[list[Any]]:
    return isinstance(node, list)


def _is_object(node: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(node, dict)


def _dump(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
