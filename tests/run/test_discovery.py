"""Finding functions: what counts, what is passed over with a warning, what is an error."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from amba_run.config import load_config
from amba_run.discovery import Discovery, FunctionSource, SourceKind, discover, folder_of
from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError
from amba_runtime.manifest import FunctionName


def tree(root: Path, *names: str | bytes) -> Path:
    """Write empty files at these paths below `root`."""
    for name in names:
        path = Path(os.fsdecode(os.fsencode(root) + b"/" + os.fsencode(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def find(path: Path) -> Discovery:
    return discover(path, load_config(folder_of(path)))


def names(path: Path) -> dict[str, str]:
    """Function names and entries relative to `path`, where nothing may be warned about."""
    found = find(path)
    assert found.warnings == ()
    return {f.name: str(f.entry.relative_to(path)) for f in found.functions}


def refused(path: Path, code: UserCode) -> UserError:
    with pytest.raises(UserError) as caught:
        find(path)
    assert caught.value.code is code
    assert caught.value.hint
    return caught.value


# --- what counts ---


def test_top_level_files_and_index_folders(tmp_path: Path) -> None:
    """Each source file and each folder with an index is a function, sorted (interface.md 2)."""
    tree(tmp_path, "a.ts", "b.tsx", "c.js", "d.mjs", "e.py", "f/index.ts", "g/index.py", "h/x.ts")
    assert names(tmp_path) == {
        "a": "a.ts",
        "b": "b.tsx",
        "c": "c.js",
        "d": "d.mjs",
        "e": "e.py",
        "f": "f/index.ts",
        "g": "g/index.py",
    }


def test_python_is_marked() -> None:
    """A Python entry can be told from one that esbuild bundles."""
    kinds = [FunctionSource(FunctionName("a"), Path(f"/a{s}")).kind for s in (".py", ".ts", ".js")]
    assert kinds == [SourceKind.PYTHON, SourceKind.JAVASCRIPT, SourceKind.JAVASCRIPT]


def test_what_is_skipped_in_silence(tmp_path: Path) -> None:
    """Private, hidden, declaration and test files, other files, and node_modules' packages."""
    tree(
        tmp_path,
        *("_a.ts", ".b.ts", "c.d.ts", "d.test.ts", "e.spec.js", "_f/index.ts", ".g/index.ts"),
        *("README.md", "data.json", "-rf", "noext", "node_modules/x/index.js", "Folder/x.ts"),
        *("node_modules/index.js", "d.test.x/index.ts", "lib/deep/index.ts", "ok.ts"),
    )
    assert names(tmp_path) == {"ok": "ok.ts"}


def test_folder_without_functions_is_no_error(tmp_path: Path) -> None:
    """An empty folder gives nothing: dev says what to do and keeps watching."""
    assert find(tmp_path) == Discovery()


def test_one_file(tmp_path: Path) -> None:
    """A file is one function; tables for others are left alone (interface.md section 2)."""
    tree(tmp_path, "hello.ts", "other.ts")
    (tmp_path / "amba.toml").write_text('[functions.elsewhere]\n[functions.hello]\nengine="wasm"')
    found = find(tmp_path / "hello.ts")
    assert found == Discovery((FunctionSource(FunctionName("hello"), tmp_path / "hello.ts"),))


def test_entries_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative PATH gives absolute entries, so that no later `cd` or `-` name matters."""
    tree(tmp_path, "a.ts")
    monkeypatch.chdir(tmp_path)
    for path in (Path(), Path("a.ts")):
        (function,) = find(path).functions
        assert function.entry == tmp_path / "a.ts"


@pytest.mark.parametrize("name", ["a" * 58, "a_b-9"])
def test_names_at_the_edge_of_the_rule(tmp_path: Path, name: str) -> None:
    """58 characters, and every allowed kind of them, are a name (A.2)."""
    assert names(tree(tmp_path, f"{name}.ts")) == {name: f"{name}.ts"}


@pytest.mark.parametrize(
    ("file", "better"),
    [
        ("Hello.ts", "hello.ts"),
        ("a.b.ts", "a-b.ts"),
        ("1st.ts", "st.ts"),
        ("-rf.js", "rf.js"),
        ("123.js", "my-function.js"),
        ("a b.ts", "a-b.ts"),
        ("a" * 59 + ".ts", "a" * 58 + ".ts"),
        ("MyApp/index.ts", "to myapp"),
        ("vite.config.ts", "vite-config.ts"),
        ("héllo.ts", "h-llo.ts"),
    ],
)
def test_names_that_break_the_rule_are_skipped_with_the_fix(
    tmp_path: Path, file: str, better: str
) -> None:
    """The warning names the file, the rule and a better name; the others are served (A.2)."""
    found = find(tree(tmp_path, file, "ok.ts"))
    assert [f.name for f in found.functions] == ["ok"]
    (warning,) = found.warnings
    assert warning.startswith(str(tmp_path / file.removesuffix("/index.ts")))
    assert "a lower-case letter, then" in warning
    assert warning.endswith(better)


def test_endings_that_are_nearly_right(tmp_path: Path) -> None:
    """A `.jsx` file that would be a function is told; tools' own `.cjs` files are not."""
    found = find(tree(tmp_path, "page.jsx", "eslint.config.cjs"))
    assert found.functions == ()
    (warning,) = found.warnings
    assert "page.jsx is skipped: .jsx is not" in warning


# --- two sources for one name ---


def test_two_sources_for_one_name(tmp_path: Path) -> None:
    """Every name with two sources is told, with all of them (NAME_TAKEN)."""
    tree(tmp_path, "a.ts", "a.js", "b.ts", "b/index.js", "c/index.ts", "c/index.py", "d.ts")
    error = refused(tmp_path, UserCode.NAME_TAKEN)
    assert error.message.splitlines() == [
        f'the function "a" has 2 sources: {tmp_path}/a.js and {tmp_path}/a.ts',
        f'the function "b" has 2 sources: {tmp_path}/b/index.js and {tmp_path}/b.ts',
        f'the function "c" has 2 sources: {tmp_path}/c/index.ts and {tmp_path}/c/index.py',
    ]
    assert [f["name"] for f in error.details["functions"]] == ["a", "b", "c"]


# --- joined with the configuration ---


def test_table_adds_a_function(tmp_path: Path) -> None:
    """`entry` brings in a function that lies deeper (interface.md section 4)."""
    tree(tmp_path, "a.ts", "src/deep/b.ts")
    (tmp_path / "amba.toml").write_text('[functions.bee]\nentry = "src/deep/b.ts"\n[functions.a]')
    assert names(tmp_path) == {"a": "a.ts", "bee": "src/deep/b.ts"}


def test_table_may_name_the_file_that_was_found(tmp_path: Path) -> None:
    """An `entry` that is the found file itself takes nothing away."""
    tree(tmp_path, "a.ts")
    (tmp_path / "amba.toml").write_text('[functions.a]\nentry = "./a.ts"')
    assert names(tmp_path) == {"a": "a.ts"}
    assert [f.name for f in find(tmp_path / "a.ts").functions] == ["a"]


def test_entry_for_a_name_that_was_found(tmp_path: Path) -> None:
    """`entry` for another file than the one found is a second source (interface.md 4)."""
    tree(tmp_path, "a.ts", "src/a.ts")
    (tmp_path / "amba.toml").write_text('[functions.a]\nentry = "src/a.ts"')
    assert f"{tmp_path}/a.ts and {tmp_path}/src/a.ts" in (
        refused(tmp_path, UserCode.NAME_TAKEN).message
    )
    error = refused(tmp_path / "a.ts", UserCode.NAME_TAKEN)
    assert f"{tmp_path}/amba.toml:1 (entry)" in error.message


def test_unknown_tables_and_missing_entries_are_all_told(tmp_path: Path) -> None:
    """A table that fits nothing names its line, and the nearest function (interface.md 4)."""
    tree(tmp_path, "hello.ts", "folder.ts/x")
    (tmp_path / "amba.toml").write_text(
        "[functions.helo]\n[functions.zzz]\n[functions.b]\nentry = 'gone.ts'\n"
        "[functions.c]\nentry = 'folder.ts'\n"
    )
    message = refused(tmp_path, UserCode.INVALID_CONFIG).message
    file = tmp_path / "amba.toml"
    assert f"{file}:1: functions.helo: no such function was found" in message
    assert 'did you mean "hello"' in message
    assert "functions.zzz: no such function was found, and the table has no entry; found" in message
    assert f"{file}:3: functions.b.entry: there is no file {tmp_path}/gone.ts" in message
    assert f"functions.c.entry: there is no file {tmp_path}/folder.ts" in message


def test_table_in_an_empty_folder(tmp_path: Path) -> None:
    """With nothing found, an unknown table is told without a guess."""
    (tmp_path / "amba.toml").write_text("[functions.a]")
    message = refused(tmp_path, UserCode.INVALID_CONFIG).message
    assert message.endswith("the table has no entry")


def test_queue_bound_to_nothing_is_warned_about(tmp_path: Path) -> None:
    """A queue whose consumer is not here is told; the functions are served (D.7)."""
    tree(tmp_path, "mailer.ts")
    (tmp_path / "amba.toml").write_text('[queues]\na = "maler"\nb = "mailer"')
    found = find(tmp_path)
    assert [f.name for f in found.functions] == ["mailer"]
    assert found.warnings == (
        'queue "a" is bound to "maler", which is no function here; did you mean "mailer"?',
    )


# --- PATH itself ---


@pytest.mark.parametrize("name", ["gone", "gone.ts", "file.ts/x", "nul\0", "x" * 300])
def test_path_that_is_not_there(tmp_path: Path, name: str) -> None:
    """Nothing at PATH is a user error that says how to name one."""
    tree(tmp_path, "file.ts")
    error = refused(tmp_path / name, UserCode.ENTRY_NOT_FOUND)
    assert "\0" not in error.message


def test_path_that_is_no_entry_file(tmp_path: Path) -> None:
    """A file without handlers by its ending, or with a name that cannot be, is told why."""
    tree(tmp_path, "a.json", "My App.ts", "x.test.ts")
    assert ".mjs" in refused(tmp_path / "a.json", UserCode.ENTRY_NOT_FOUND).message
    error = refused(tmp_path / "My App.ts", UserCode.INVALID_NAME)
    assert error.hint == "rename it to my-app.ts"
    refused(tmp_path / "x.test.ts", UserCode.INVALID_NAME)


def test_path_that_is_a_fifo_or_a_device(tmp_path: Path) -> None:
    """Neither is opened, so nothing hangs."""
    os.mkfifo(tmp_path / "pipe.ts")
    assert "is a FIFO" in refused(tmp_path / "pipe.ts", UserCode.ENTRY_NOT_FOUND).message
    assert "is a device" in refused(Path("/dev/zero"), UserCode.ENTRY_NOT_FOUND).message


def test_path_that_is_a_link_to_a_folder(tmp_path: Path) -> None:
    """PATH itself may be a link: what it leads to is the tree."""
    tree(tmp_path / "real", "a.ts")
    (tmp_path / "link").symlink_to("real")
    (function,) = find(tmp_path / "link").functions
    assert function.entry == tmp_path / "real/a.ts"


@pytest.mark.slow
def test_huge_folder_is_refused(tmp_path: Path) -> None:
    """4,096 members are looked at, one more is told to be the wrong folder."""
    tree(tmp_path, *(f"{n}.txt" for n in range(limits.FOLDER_ENTRIES.value)))
    assert find(tmp_path) == Discovery()
    tree(tmp_path, "one-more.txt")
    assert "more than 4096" in refused(tmp_path, UserCode.ENTRY_NOT_FOUND).message


# --- odd members ---


def test_links(tmp_path: Path) -> None:
    """Links inside the tree are followed, those out of it and dead ones are warned about."""
    outside = tree(tmp_path / "outside", "x.ts", "f/index.ts")
    root = tree(tmp_path / "root", "lib/x.ts", "g/y.ts", "h/y.ts")
    (root / "in.ts").symlink_to("lib/x.ts")
    (root / "out.ts").symlink_to(outside / "x.ts")
    (root / "outdir").symlink_to(outside / "f")
    (root / "g/index.ts").symlink_to(outside / "x.ts")
    (root / "dead.ts").symlink_to("nowhere")
    (root / "h/index.ts").symlink_to("nowhere")
    (root / "loop.ts").symlink_to("loop.ts")
    (root / "dead").symlink_to("nowhere")
    (root / "self").symlink_to(".")
    found = find(root)
    assert [f.name for f in found.functions] == ["in"]
    about = {Path(w.split(" is skipped")[0]).relative_to(root): w for w in found.warnings}
    assert sorted(map(str, about)) == ["dead.ts", "g", "h/index.ts", "loop.ts", "out.ts", "outdir"]
    assert f"a link out of the folder, to {outside}/x.ts" in about[Path("out.ts")]


def test_things_that_are_no_files(tmp_path: Path) -> None:
    """FIFOs, sockets, devices and folders in a file's place are told, and nothing hangs."""
    os.mkfifo(tmp_path / "fifo.ts")
    os.mkfifo(tmp_path / "fifo")
    os.mkfifo(tmp_path / "fifo.jsx")
    (tmp_path / "dev.ts").symlink_to("/dev/zero")
    (tmp_path / "folder/index.ts").mkdir(parents=True)
    (tmp_path / "dir.ts").mkdir()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener, _inside(tmp_path):
        listener.bind("sock.ts")
        found = find(tmp_path)
    assert found.functions == ()
    told = [w.removeprefix(f"{tmp_path}/").split(";")[0] for w in found.warnings]
    assert told == [
        "dev.ts is skipped: it is a device",
        "fifo.ts is skipped: it is a FIFO",
        "folder/index.ts is skipped: it is a folder",
        "sock.ts is skipped: it is a socket",
    ]


@contextlib.contextmanager
def _inside(folder: Path) -> Generator[None]:
    """A socket's path has to be short, so it is bound from within."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def test_names_that_are_not_text(tmp_path: Path) -> None:
    """Undecodable names and escape codes give a printable warning, or none when no source."""
    tree(tmp_path, b"caf\xe9.ts", b"\xff", b"\xfe/index.js", "esc\x1b[31m.ts", "new\nline.ts")
    found = find(tmp_path)
    assert found.functions == ()
    assert len(found.warnings) == 4
    text = "".join(found.warnings)
    assert text.isprintable()
    assert text.encode("utf-8")
    assert "caf\\udce9.ts" in text


def test_unreadable_folders() -> None:
    """A folder that may not be read is told; the other functions are served."""
    with tempfile.TemporaryDirectory() as name:
        root = tree(Path(name), "ok.ts", "closed/index.ts")
        root.chmod(0o755)
        (root / "closed").chmod(0)
        with _nobody():
            found = find(root)
            root_closed = root.resolve()
        assert [f.name for f in found.functions] == ["ok"]
        (warning,) = found.warnings
        assert "closed is skipped: it cannot be read (Permission denied)" in warning
        root_closed.chmod(0o311)
        with _nobody():
            error = refused(root, UserCode.ENTRY_NOT_FOUND)
        assert "cannot be listed: Permission denied" in error.message
        root_closed.chmod(0o755)
        (root / "closed").chmod(0o755)


@contextlib.contextmanager
def _nobody() -> Generator[None]:
    """For root, to whom every folder is open: act as somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
