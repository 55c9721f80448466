"""Processes that write to a store and say each acknowledged write; made to be killed.

Started once: it imports everything, then forks a writer for each line on stdin
(`WORKLOAD SEED DIR`), so that a round costs milliseconds. Writers print their pid first, then one
JSON value per acknowledged write, and a `try` before one that changes what was there.
When a writer has ended, its parent prints `end STATUS`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from amba_router.store import deployment_rows, repair, snapshot_rows
from amba_router.store.control import ControlStore
from amba_router.store.control_records import NewDeployment
from amba_router.store.state import State
from amba_runtime.clock import SystemClock
from amba_runtime.errors import InternalError, UserError
from amba_runtime.manifest import Bundle
from amba_runtime.secret import SecretText

T = TypeVar("T")
LOADED = (deployment_rows, repair, snapshot_rows)
"""What an open would import: before the fork, once."""


def say(*facts: object) -> None:
    """One whole line in one call: acknowledged is what was said.

    `writev`, so that a kill at each `write` hits those of the store.
    """
    os.writev(1, [(json.dumps(facts) + "\n").encode()])


async def deploy(store: ControlStore, owner: str, name: str, code: bytes) -> None:
    """A new version, said once it is stored."""
    bundle = Bundle.of(code, source_map=b'{"of":"%s"}' % code[:32])
    version = await store.next_version(owner, name)
    made = await store.add_deployment(NewDeployment(owner, name, version, bundle, ("fetch",)))
    say("deploy", name, version, made.bundle_sha)


async def roll_back(store: ControlStore, owner: str, name: str, wanted: int) -> None:
    """A new version with an old one's bundle."""
    old = await store.find_deployment(owner, name=name, version=wanted)
    if old is None:
        return
    bundle = await store.load_bundle(old.id)
    version = await store.next_version(owner, name)
    made = await store.add_deployment(
        NewDeployment(owner, name, version, bundle, ("fetch",), rolled_back_from=wanted)
    )
    say("deploy", name, version, made.bundle_sha)


async def set_secret(store: ControlStore, owner: str, name: str, value: str) -> None:
    """The function's secret S."""
    say("try", "set", name, value)
    await store.set_secret(owner, "S", SecretText(value), name)
    say("set", name, value)


async def unset_secret(store: ControlStore, owner: str, name: str) -> None:
    """The same, gone."""
    say("try", "set", name, None)
    await store.unset_secret(owner, "S", name)
    say("set", name, None)


async def endless(store: ControlStore, owner: str, chance: random.Random) -> None:
    """Deploys, rollbacks and secrets of four functions at once, until killed."""
    count = 0

    async def one(name: str) -> None:
        nonlocal count
        while True:
            count += 1
            what = chance.choice(["deploy", "deploy", "rollback", "set", "set", "unset", "key"])
            if what == "deploy":
                code = b"%s %d " % (name.encode(), count) * chance.randrange(1, 20_000)
                await deploy(store, owner, name, code)
            elif what == "rollback":
                highest = await store.next_version(owner, name)
                await roll_back(store, owner, name, chance.randrange(1, highest + 1))
            elif what == "set":
                await set_secret(store, owner, name, f"v{count}")
            elif what == "unset":
                await unset_secret(store, owner, name)
            else:
                key, _ = await store.add_api_key(owner, "client", "development")
                say("key", key.id)
                if chance.random() < 0.5:
                    say("try", "revoked", key.id)
                    await store.revoke_api_key(owner, key.id)
                    say("revoked", key.id)

    await asyncio.gather(*(one(f"f{n}") for n in range(4)))


async def once(store: ControlStore, owner: str, chance: random.Random) -> None:
    """One of each, for a kill at each system call."""
    await deploy(store, owner, "f0", b"%d" % chance.randrange(1 << 60))
    await roll_back(store, owner, "f0", 1)
    await set_secret(store, owner, "f0", "v9")
    await unset_secret(store, owner, "f0")


async def insist(step: Callable[[], Awaitable[T]]) -> T:
    """Try again what was refused; each refusal is said."""
    for _ in range(20):
        try:
            return await step()
        except (UserError, InternalError) as error:
            say("refused", error.code)
    raise AssertionError("refused for ever")


async def stubborn(store: ControlStore, owner: str, chance: random.Random) -> None:
    """One of each, as often as it takes; reads never fail."""
    code = b"%d" % chance.randrange(1 << 60)
    await insist(lambda: deploy(store, owner, "f0", code))
    await insist(lambda: roll_back(store, owner, "f0", 1))
    await insist(lambda: set_secret(store, owner, "f0", "v9"))
    await insist(lambda: unset_secret(store, owner, "f0"))


async def main(workload: str, seed: int, path: Path) -> None:
    """Open, find the project, work."""
    state = await insist(lambda: State.open(path, SystemClock()))
    store = ControlStore(state, SystemClock())
    owner = (await insist(store.snapshot)).projects[0].record.id
    chance = random.Random(seed)
    if workload == "stubborn":
        await stubborn(store, owner, chance)
    elif workload == "once":
        await once(store, owner, chance)
    else:
        await endless(store, owner, chance)
    await state.close()
    say("done")


def serve() -> None:
    """Fork a writer for each line."""
    say("ready")
    for line in sys.stdin:
        workload, seed, path = line.split()
        pid = os.fork()
        if pid == 0:
            say("pid", os.getpid())
            try:
                asyncio.run(main(workload, int(seed), Path(path)))
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        say("end", status)


if __name__ == "__main__":
    serve()
