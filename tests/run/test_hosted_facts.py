"""From what is stored to what a node serves it with."""

from __future__ import annotations

import asyncio
import os

import pytest

from amba_router.store.control_records import Credential, Credentials, ProjectRecord
from amba_run.hosted_facts import limits_of, revealed, size_if_large, tenant
from amba_runtime import limits
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, DeveloperId, ProjectId
from amba_runtime.secret import SecretText


def _credential(kind: str, value: str) -> Credential:
    return Credential(f"id-{value}", kind, SecretText(value), 0)


def test_the_newest_credential_signs_and_the_older_verify() -> None:
    """Newest first in the store, so in the tenant (contract C.1; signing.Keyring)."""
    record = ProjectRecord(
        *(ProjectId("p"), "acme", "Acme", "all", "development", None, DeveloperId("d"), True, 0)
    )
    made = tenant(
        record,
        Credentials(
            internal=(_credential("i", "amb_int_2"), _credential("i", "amb_int_1")),
            signing=tuple(_credential("s", f"whsec_{n}") for n in (3, 2, 1)),
            session=(_credential("k", "bb" * 32), _credential("k", "aa" * 32)),
        ),
    )
    assert (made.id, made.slug, made.internal_token) == ("p", "acme", "amb_int_2")
    assert (made.signing_secret, made.older_signing) == ("whsec_3", ("whsec_2", "whsec_1"))
    assert (made.session_key, made.older_sessions) == (b"\xbb" * 32, (b"\xaa" * 32,))


@pytest.mark.parametrize(
    ("asked", "in_force", "lowered"),
    [
        ({}, {}, 0),
        ({"memory_mib": 64}, {"memory_mib": 64}, 0),
        ({"memory_mib": 256}, {"memory_mib": 256}, 0),
        ({"memory_mib": 257}, {"memory_mib": 256}, 1),
        ({"total_ms": 0}, {"total_ms": 300_000}, 1),
        ({"cpu_ms": 0, "concurrency": 1000}, {"cpu_ms": 10_000, "concurrency": 50}, 2),
    ],
)
def test_no_limit_is_above_the_nodes(
    asked: dict[str, int], in_force: dict[str, int], lowered: int
) -> None:
    """What is off, or higher, becomes the node's own, and that is said (interface.md 4)."""
    settings, said = limits_of(asked)
    assert settings == FunctionLimits.hosted().override(in_force)
    assert len(said) == lowered
    assert all(name in " ".join(said) for name, value in asked.items() if in_force[name] != value)


def test_secrets_are_opened_for_the_env_alone() -> None:
    """In their order."""
    assert revealed([("A", SecretText("1")), ("B", SecretText(""))]) == (("A", "1"), ("B", ""))


def test_a_small_bundle_is_not_packed_to_be_measured() -> None:
    """Only one that may come near the limit is: packing takes a moment (contract D.1)."""
    small = Bundle.of(b"x" * (limits.BUNDLE_GZIP_WARN.value - 1))
    assert asyncio.run(size_if_large(small)) == 0
    large = Bundle.of(b"x" * limits.BUNDLE_GZIP_WARN.value + os.urandom(1000))
    assert asyncio.run(size_if_large(large)) == large.bytes_gzip() > 1000
