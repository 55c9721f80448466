"""Work that outlives whoever began it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from amba_runtime.background import Background, ended


def test_work_goes_on_until_its_owner_closes() -> None:
    """Architecture.md 5: no orphan tasks. What is not done is cancelled, and has ended."""

    async def main() -> None:
        background, told, one = Background(), list[str](), asyncio.Event()

        async def work(name: str, until: asyncio.Event) -> None:
            try:
                await until.wait()
                told.append(f"{name} done")
                one.set()
            except asyncio.CancelledError:
                told.append(f"{name} cancelled")
                raise

        now = asyncio.Event()
        background.spawn(work("first", now))
        background.spawn(work("second", asyncio.Event()))
        now.set()
        await one.wait()
        await background.close()
        await background.close()
        assert told == ["first done", "second cancelled"]

    asyncio.run(main())


def test_what_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Style.md, async: an error of work that nobody awaits is not lost, and harms no other."""

    async def main() -> None:
        background, done = Background(), asyncio.Event()

        async def fail() -> None:
            raise ValueError("of no use")

        async def succeed() -> None:
            done.set()

        background.spawn(fail())
        background.spawn(succeed())
        await done.wait()
        await asyncio.sleep(0)
        await background.close()

    with caplog.at_level(logging.ERROR, "amba.background"):
        asyncio.run(main())
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "of no use" in str(record.exc_info[1])


def test_one_bad_end_keeps_no_other_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    """All are waited for; the failure is in the log, and whoever waits goes on."""

    async def main() -> None:
        told: list[str] = []

        async def bad() -> None:
            raise RuntimeError("would not end")

        async def good() -> None:
            await asyncio.sleep(0)
            told.append("ended")

        await ended(bad(), good())
        assert told == ["ended"]

    with caplog.at_level(logging.ERROR, logger="amba.background"):
        asyncio.run(main())
    assert "would not end" in caplog.text
