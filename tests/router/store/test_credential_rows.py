"""Credentials, API keys and PATs: minted, found, rotated, revoked."""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path

import pytest
from tests.router.store.world import opened, project

from amba_router.store.control_records import Credential, CredentialKind, Credentials
from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError


def of_kind(credentials: Credentials, kind: str) -> tuple[Credential, ...]:
    members = {
        "internal_token": credentials.internal,
        "header_signing_secret": credentials.signing,
        "session_key": credentials.session,
    }
    return members[kind]


@pytest.mark.parametrize("kind", list(CredentialKind))
def test_rotation_keeps_the_old_until_it_is_revoked(tmp_path: Path, kind: CredentialKind) -> None:
    """Newest first; over a restart; the last of a kind is not revoked (H4)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            made = await project(store)
            (first,) = of_kind(made.credentials, kind)
            now = await store.rotate_internal(made.record.id, which=kind)
            newest, older = of_kind(now, kind)
            assert older == first
            assert newest.value != first.value
            for other in set(CredentialKind) - {kind}:
                assert of_kind(now, other) == of_kind(made.credentials, other)
        async with opened(tmp_path) as store:
            assert (await store.snapshot()).projects[0].credentials == now
            stranger = (await project(store)).record.id
            assert not await store.revoke_internal(stranger, first.id)
            assert await store.revoke_internal(made.record.id, first.id)
            assert not await store.revoke_internal(made.record.id, first.id)
            with pytest.raises(UserError, match="only one") as caught:
                await store.revoke_internal(made.record.id, newest.id)
            assert caught.value.code is UserCode.CONFLICT
        async with opened(tmp_path) as store:
            kept = (await store.snapshot()).projects[0].credentials
            assert of_kind(kept, kind) == (newest,)

    asyncio.run(main())


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    """Three words, no other."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            made = await project(store)
            with pytest.raises(ValueError, match="password"):
                await store.rotate_internal(made.record.id, which="password")

    asyncio.run(main())


def test_api_keys_come_and_go(tmp_path: Path) -> None:
    """Shown once, kept sealed, revoked by their own project only (contract E.1)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            mine, other = (await project(store)).record.id, (await project(store)).record.id
            key, value = await store.add_api_key(mine, "server", "development")
            assert re.fullmatch(r"amb_dev_sk_[\w-]{32}", value)
            assert (key.project_id, key.key_type, key.environment) == (
                mine,
                "server",
                "development",
            )
            assert value.startswith(key.prefix)
            assert len(key.prefix) == len("amb_dev_sk_") + 4
        async with opened(tmp_path) as store:
            mine_now = (await store.snapshot()).projects[0]
            assert [(k, v.reveal()) for k, v in mine_now.api_keys][-1] == (key, value)
            assert len(mine_now.api_keys) == 3
            assert not await store.revoke_api_key(other, key.id)
            assert await store.revoke_api_key(mine, key.id)
            assert not await store.revoke_api_key(mine, key.id)
            assert len((await store.snapshot()).projects[0].api_keys) == 2

    asyncio.run(main())


def test_pats_are_known_by_their_hash(tmp_path: Path) -> None:
    """Told once, stored hashed, over restarts, revoked by the hash (issue 3, item 3)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            assert not await store.has_pat()
            pat = await store.add_pat("d-1")
            assert re.fullmatch(r"amb_dpat_[\w-]{32}", pat)
            assert await store.has_pat()
        async with opened(tmp_path) as store:
            assert (await store.snapshot()).pats == (
                (hashlib.sha256(pat.encode()).digest(), "d-1"),
            )
            pat_id = hashlib.sha256(pat.encode()).hexdigest()
            assert not await store.revoke_pat("not hex")
            assert not await store.revoke_pat(pat_id[:-2])
            assert await store.revoke_pat(pat_id)
            assert not await store.revoke_pat(pat_id)
            assert not await store.has_pat()
            assert (await store.snapshot()).pats == ()

    asyncio.run(main())


def test_the_first_pat_is_minted_until_it_was_told(tmp_path: Path) -> None:
    """A start that was killed before its line was read locks nobody out (issue 3, item 5)."""

    async def main() -> None:
        minted: list[str] = []
        for _ in range(limits.UNTOLD_PATS.value + 1):
            async with opened(tmp_path) as store:
                pat = await store.mint_first_pat("d-1")
                assert pat is not None
                minted.append(pat)
        async with opened(tmp_path) as store:
            known = {hash_ for hash_, _ in (await store.snapshot()).pats}
            # somebody may have seen any of them; the oldest goes once there are too many
            assert known == {hashlib.sha256(p.encode()).digest() for p in minted[1:]}
            await store.first_pat_told()
        async with opened(tmp_path) as store:
            assert await store.mint_first_pat("d-1") is None
            assert len((await store.snapshot()).pats) == limits.UNTOLD_PATS.value

    asyncio.run(main())
