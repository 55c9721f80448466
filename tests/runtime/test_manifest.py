"""A bundle's hash and size are computed here; names are what the contract lets them be."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib

import pytest

from amba_runtime.manifest import (
    FUNCTION_NAME,
    PROJECT_SLUG,
    Bundle,
    FunctionName,
    Manifest,
    ProjectId,
)

CODES = [b"", b"export default {}", b"x" * 100_000, bytes(range(256)) * 40]


@pytest.mark.parametrize("code", CODES)
def test_a_bundles_hash_is_of_its_uncompressed_code(code: bytes) -> None:
    """Lower-case hex SHA-256 of the output as it is (contract D.1)."""
    assert Bundle.of(code).sha256 == hashlib.sha256(code).hexdigest()


def test_the_empty_bundles_hash_is_the_known_one() -> None:
    """FIPS 180's own value: the hash is SHA-256 and nothing near it (contract D.1)."""
    assert Bundle.of(b"").sha256 == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


@pytest.mark.parametrize("code", CODES)
def test_a_bundles_size_is_that_of_gzip_level_9(code: bytes) -> None:
    """The size the upload cap is measured on, container and all (contract D.1, H-21)."""
    assert Bundle.of(code).bytes_gzip() == len(gzip.compress(code, 9))


def test_map_and_metafile_change_neither_hash_nor_size() -> None:
    """Only the code is what is served; the rest is for reports."""
    bare = Bundle.of(b"export default {}")
    full = Bundle.of(b"export default {}", source_map=b"{}" * 500, metafile=b"[]" * 500)
    assert (full.sha256, full.bytes_gzip()) == (bare.sha256, bare.bytes_gzip())
    assert (full.source_map, full.metafile) == (b"{}" * 500, b"[]" * 500)
    assert "{}{}" not in repr(full)


def test_a_manifest_does_not_print_its_env() -> None:
    """Secrets are among the text bindings: repr shows neither name nor value (issue 2)."""
    manifest = Manifest(ProjectId("p"), FunctionName("f"), 1, env=(("API_KEY", "zq9-secret"),))
    assert "zq9-secret" not in repr(manifest)
    assert "API_KEY" not in repr(manifest)
    assert manifest.env == (("API_KEY", "zq9-secret"),)


def test_values_do_not_change() -> None:
    """A bundle and a manifest are what they were made as."""
    bundle, manifest = Bundle.of(b""), Manifest(ProjectId("p"), FunctionName("f"), 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.__setattr__("code", b"other")
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest.__setattr__("version", 2)


@pytest.mark.parametrize(
    ("name", "ok"),
    [
        ("a", True),
        ("z", True),
        ("a" * 58, True),
        ("a" * 59, False),
        ("a" * 10_000, False),
        ("a-_9", True),
        ("a--", True),
        ("", False),
        ("1a", False),
        ("-a", False),
        ("_a", False),
        ("A", False),
        ("aB", False),
        ("a.b", False),
        ("a b", False),
        ("a/b", False),
        ("a\n", False),
        ("\na", False),
        ("é", False),
        ("aé", False),
        ("a\u0661", False),
        ("ⅰ", False),
    ],
)
def test_function_names_at_their_borders(name: str, ok: bool) -> None:
    """^[a-z][a-z0-9_-]*$ with 58 characters at most, and no line feed slips in (contract A.2)."""
    assert (FUNCTION_NAME.match(name) is not None) is ok


@pytest.mark.parametrize(
    ("slug", "ok"),
    [
        ("ab", True),
        ("0a", True),
        ("a-", True),
        ("9" * 63, True),
        ("a" * 64, False),
        ("a" * 10_000, False),
        ("a", False),
        ("", False),
        ("-a", False),
        ("a_b", False),
        ("Ab", False),
        ("aB", False),
        ("a.b", False),
        ("ab\n", False),
        ("ab\x00", False),
        ("aé", False),
        ("a\u0661", False),
        ("xn--a", True),
    ],
)
def test_project_slugs_at_their_borders(slug: str, ok: bool) -> None:
    """^[a-z0-9][a-z0-9-]{1,62}$: 2 to 63 characters, one DNS label (contract A.1)."""
    assert (PROJECT_SLUG.match(slug) is not None) is ok
