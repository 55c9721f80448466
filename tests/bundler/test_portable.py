"""No path of this machine in a bundle: what is renamed, and what is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amba_bundler.portable import (
    portable_names,
    rename_in_code,
    rename_in_map,
    rename_in_metafile,
)

_FOLDER = Path("/home/me/app")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("fn.ts", None),
        ("../lib/db.ts", None),
        ("../node_modules/zod/index.js", None),
        ("../../node_modules/zod/index.js", None),
        ("../../you/node_modules/zod/index.js", "node_modules/zod/index.js"),
        ("../../s/node_modules/.pnpm/a@1/node_modules/a/i.js",
         "node_modules/.pnpm/a@1/node_modules/a/i.js"),
        ("(disabled):../../you/node_modules/a/i.js", "(disabled):node_modules/a/i.js"),
        ("../../../opt/shared/db.ts", "outside/db.ts"),
        ("<define:process.env>", None),
    ],
)  # fmt: skip
def test_only_paths_that_tell_of_the_machine_are_renamed(path: str, name: str | None) -> None:
    """A path inside the checkout keeps its name; one that leaves it loses what lies between."""
    assert portable_names([path], _FOLDER) == ({} if name is None else {path: name})


def test_no_two_files_get_one_name() -> None:
    """Names that would fall together are numbered, so that the metafile keeps every file."""
    paths = ["node_modules/a/i.js", "../../x/node_modules/a/i.js", "../../y/node_modules/a/i.js"]
    assert portable_names(paths, _FOLDER) == {
        "../../x/node_modules/a/i.js": "node_modules/a/i.js~2",
        "../../y/node_modules/a/i.js": "node_modules/a/i.js~3",
    }


def test_code_is_renamed_only_where_esbuild_wrote_the_path() -> None:
    """Comments before modules, keys of wrappers, headings of legal comments; nothing else."""
    names = {"../../x/a.js": "A", "../../x/b.js": "B"}
    code = (
        b'// ../../x/a.js\nvar require_a = __commonJS({\n  "../../x/a.js"(exports) {\n'
        b'  x = "../../x/a.js"; // ../../x/a.js\n// ../../x/a.jsx\n../../x/b.js:\n'
    )
    assert rename_in_code(code, names) == (
        b'// A\nvar require_a = __commonJS({\n  "A"(exports) {\n'
        b'  x = "../../x/a.js"; // ../../x/a.js\n// ../../x/a.jsx\nB:\n'
    )


@pytest.mark.parametrize("separator", [',\n  "sourcesContent": ', ', "sourcesContent": '])
def test_a_map_keeps_all_but_its_sources(separator: str) -> None:
    """Both the quick way and the whole way give the same map."""
    text = f'{{\n  "version": 3,\n  "sources": ["../../x/a.js", "f.ts", "../../../s.ts"]{separator}'
    text += '["../../x/a.js", null],\n  "mappings": "AAAA",\n  "names": []\n}\n'
    renamed = json.loads(rename_in_map(text.encode(), _FOLDER, {"../../x/a.js": "A"}))
    assert renamed == {**json.loads(text), "sources": ["A", "f.ts", "outside/s.ts"]}
    assert rename_in_map(b'{"sources": ["f.ts"]}', _FOLDER, {}) == b'{"sources": ["f.ts"]}'


def test_a_metafile_is_renamed_in_keys_and_values() -> None:
    """Inputs, imports and outputs agree on the new names; numbers and flags stay."""
    metafile = {
        "inputs": {"p": {"bytes": 1, "imports": [{"path": "p", "external": True}]}},
        "outputs": {"o": {"inputs": {"p": {"bytesInOutput": 1}}, "entryPoint": "p"}},
    }
    renamed = rename_in_metafile(json.dumps(metafile).encode(), {"p": "q"})
    assert json.loads(renamed) == json.loads(json.dumps(metafile).replace('"p"', '"q"'))
