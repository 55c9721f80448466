"""One consistent read of all that a node keeps in memory: one query a table, opened in a thread.

A stored value that does not open stops nothing else: an API key is left out, and a project that
is left without a credential it needs gets a new one.
"""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import Connection, select

from amba_router.store.control_records import (
    ApiKey,
    Credential,
    CredentialKind,
    Deployment,
    ProjectState,
    Snapshot,
)
from amba_router.store.credential_rows import (
    api_key,
    group,
    mint_credential,
    open_credential,
    open_key,
)
from amba_router.store.deployment_rows import active_deployments
from amba_router.store.project_rows import project
from amba_router.store.schema import api_keys, credentials, pats, projects
from amba_router.store.sealing import Sealer
from amba_router.store.state import State
from amba_runtime.clock import Clock, time_ms
from amba_runtime.errors import InternalError
from amba_runtime.manifest import DeveloperId
from amba_runtime.secret import SecretText


async def take(state: State, clock: Clock) -> Snapshot:
    """See `ControlStore.snapshot`."""
    snapshot = await state.database.read(lambda c: _read(c, state.sealer))
    missing = _missing(snapshot)
    if not missing:
        return snapshot
    now_ms = time_ms(clock)

    def mend(c: Connection) -> Snapshot:
        for project_id, kind in missing:
            mint_credential(c, state.sealer, project_id, kind, now_ms)
        return _read(c, state.sealer)

    return await state.database.write(mend)


def _missing(snapshot: Snapshot) -> list[tuple[str, CredentialKind]]:
    found: list[tuple[str, CredentialKind]] = []
    for one in snapshot.projects:
        have = one.credentials
        for kind, there in zip(
            CredentialKind, (have.internal, have.signing, have.session), strict=True
        ):
            if not there:
                found.append((one.record.id, kind))
    return found


def _read(c: Connection, sealer: Sealer) -> Snapshot:
    problems: list[str] = []
    held: defaultdict[str, list[Credential]] = defaultdict(list)
    for row in c.execute(select(credentials).order_by(credentials.c.seq.desc())):
        try:
            held[row.project_id].append(open_credential(row, sealer))
        except InternalError as error:
            problems.append(f"{error.message}; a project without a {row.kind} gets a new one")
    keys: defaultdict[str, list[tuple[ApiKey, SecretText]]] = defaultdict(list)
    for row in c.execute(select(api_keys).order_by(api_keys.c.seq)):
        try:
            keys[row.project_id].append((api_key(row), open_key(row, sealer)))
        except InternalError as error:
            problems.append(
                f"{error.message}; the key {row.prefix}... is not accepted: make another"
            )
    active: defaultdict[str, list[Deployment]] = defaultdict(list)
    for deployment in active_deployments(c):
        active[deployment.project_id].append(deployment)
    return Snapshot(
        projects=tuple(
            ProjectState(
                project(row), group(held[row.id]), tuple(keys[row.id]), tuple(active[row.id])
            )
            for row in c.execute(select(projects).order_by(projects.c.seq))
        ),
        pats=tuple(
            (row.hash, DeveloperId(row.developer_id))
            for row in c.execute(select(pats).order_by(pats.c.created_ms, pats.c.hash))
        ),
        problems=tuple(problems),
    )
