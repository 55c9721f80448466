"""What the store's tests share: an opened state directory, and a project in it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from amba_router.store.control import ControlStore
from amba_router.store.control_records import CreatedProject, Deployment, NewDeployment, NewProject
from amba_router.store.state import State
from amba_runtime.clock import Clock, ManualClock
from amba_runtime.manifest import Bundle


@contextlib.asynccontextmanager
async def opened(path: Path, clock: Clock | None = None) -> AsyncGenerator[ControlStore]:
    """A store on `path`, closed at the end."""
    clock = clock or ManualClock()
    state = await State.open(path, clock)
    try:
        yield ControlStore(state, clock)
    finally:
        await state.close()


@contextlib.asynccontextmanager
async def opened_state(path: Path, clock: Clock | None = None) -> AsyncGenerator[State]:
    """The state directory itself, closed at the end."""
    state = await State.open(path, clock or ManualClock())
    try:
        yield state
    finally:
        await state.close()


async def project(
    store: ControlStore, name: str = "Shop", slug: str | None = None
) -> CreatedProject:
    """A new project of developer `d`."""
    return await store.create_project(NewProject(name, slug, "all", "development", None, "d"))


async def deploy(
    store: ControlStore,
    project_id: str,
    name: str = "f",
    code: bytes = b"export default {}",
    source_map: bytes | None = None,
) -> Deployment:
    """The next version of a function."""
    version = await store.next_version(project_id, name)
    bundle = Bundle.of(code, source_map=source_map)
    return await store.add_deployment(NewDeployment(project_id, name, version, bundle, ("fetch",)))


def blob_names(path: Path) -> set[str]:
    """The blobs of a state directory."""
    return {file.name for file in (path / "blobs").glob("??/*")}
