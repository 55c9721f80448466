"""From what is stored of a project or deployment to what a node serves it with. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from amba_router.store.control_records import Credentials, ProjectRecord
from amba_run.tenant import Tenant
from amba_runtime import limits
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle
from amba_runtime.room import Env
from amba_runtime.secret import SecretText


def tenant(record: ProjectRecord, credentials: Credentials) -> Tenant:
    internal, signing, session = credentials.internal, credentials.signing, credentials.session
    return Tenant(
        id=record.id,
        slug=record.slug,
        internal_token=internal[0].value.reveal(),
        signing_secret=signing[0].value.reveal(),
        session_key=bytes.fromhex(session[0].value.reveal()),
        older_signing=tuple(c.value.reveal() for c in signing[1:]),
        older_sessions=tuple(bytes.fromhex(c.value.reveal()) for c in session[1:]),
    )


def limits_of(asked: Mapping[str, int]) -> tuple[FunctionLimits, tuple[str, ...]]:
    """What is in force, and a sentence for each limit that was lowered to the node's own."""
    most = FunctionLimits.hosted()
    wanted = most.override(asked)
    settings = wanted.clamp(most)
    lowered = [
        f"{name} is {getattr(settings, name)} on this node, not {value}"
        for name, value in asked.items()
        if getattr(settings, name) != value
    ]
    return settings, tuple(lowered)


async def size_if_large(bundle: Bundle) -> int:
    """At gzip level 9, which takes a moment: 0 for one that is no matter."""
    if len(bundle.code) < limits.BUNDLE_GZIP_WARN.value:
        return 0
    return await asyncio.to_thread(bundle.bytes_gzip)


def revealed(secrets: Sequence[tuple[str, SecretText]]) -> Env:
    return tuple((name, value.reveal()) for name, value in secrets)
