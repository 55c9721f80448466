"""Work on passwords: the same for everybody, and bounded (contract E.3)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from threading import Event

import bcrypt
import pytest

from amba_router.api.faults import Refused
from amba_router.services.users.passwords import Passwords
from amba_runtime import limits


def test_nobody_takes_as_long_as_a_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """One hash of the same cost each, so that no clock tells which addresses there are (E.3)."""
    costs: list[bytes] = []
    real = bcrypt.hashpw

    def watched(password: bytes, salt: bytes) -> bytes:
        costs.append(salt[:7])
        return real(password, salt)

    monkeypatch.setattr(bcrypt, "hashpw", watched)

    async def main() -> None:
        passwords = Passwords()
        kept = await passwords.hash("p", "correct horse")
        assert await passwords.matches("p", "correct horse", kept)
        assert not await passwords.matches("p", "wrong horse", kept)
        assert not await passwords.matches("p", "wrong horse", None)
        await passwords.close()

    asyncio.run(main())
    assert costs == [b"$2b$04$"] * 4


def test_the_same_password_is_kept_differently() -> None:
    """Each hash has its own salt."""

    async def main() -> tuple[str, str]:
        passwords = Passwords()
        one, other = await asyncio.gather(*(passwords.hash("p", "same") for _ in range(2)))
        await passwords.close()
        await passwords.close()
        return one, other

    one, other = asyncio.run(main())
    assert one != other


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A project has its share and all have theirs; then 503 OVERLOADED, and later room again."""
    monkeypatch.setattr(limits, "PASSWORD_THREADS", replace(limits.PASSWORD_THREADS, value=1))
    monkeypatch.setattr(limits, "PASSWORDS_WAITING", replace(limits.PASSWORDS_WAITING, value=2))
    own = replace(limits.PASSWORDS_OF_PROJECT, value=2)
    monkeypatch.setattr(limits, "PASSWORDS_OF_PROJECT", own)
    gate = Event()
    real = bcrypt.hashpw

    def slow(password: bytes, salt: bytes) -> bytes:
        assert gate.wait(20)
        return real(password, salt)

    monkeypatch.setattr(bcrypt, "hashpw", slow)

    async def main() -> None:
        passwords = Passwords()
        under_way = [
            asyncio.ensure_future(passwords.hash(project, "password"))
            for project in ("one", "one", "other")
        ]
        await asyncio.sleep(0)
        for project in ("one", "third"):  # its own share is full; all shares are
            with pytest.raises(Refused) as refused:
                await passwords.hash(project, "password")
            assert refused.value.problem.code == "OVERLOADED"
            assert refused.value.problem.retry_after_s == 1
        gate.set()
        await asyncio.gather(*under_way)
        await passwords.hash("one", "password")
        await passwords.close()

    asyncio.run(main())
