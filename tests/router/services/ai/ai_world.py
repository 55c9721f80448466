"""A world whose AI gateway has recorded replies, and a provider that is asked for real."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.router.control.world import Got, World

from amba_router.api.app import Api
from amba_router.api.operations import Fields
from amba_router.services.ai.upstream import JSON, Made, Provider, Reply, UpstreamError, Wire
from amba_run.emulation import Emulation
from amba_runtime.secret import SecretText

MESSAGES: dict[str, Any] = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "Name three rivers"}],
}
CHAT: dict[str, Any] = {
    "model": "gpt-5-mini",
    "messages": [{"role": "user", "content": "Name three rivers"}],
}
EMBED: dict[str, Any] = {
    "provider": "openai",
    "model": "text-embedding-3-small",
    "input": "three rivers",
}
PROMPT: dict[str, Any] = {
    "name": "summary",
    "model": "claude-sonnet-4-5",
    "template": "Sum up {{text}} for {{ reader }}.",
    "system": "You are {{tone}}.",
}
VARIABLES = {"text": "the news", "reader": "children", "tone": "brief"}


@dataclass
class FakeUpstream:
    """Answers what it was told to; remembers what it was sent."""

    status: int = 200
    content_type: bytes = JSON
    pieces: Sequence[bytes] = (b"{}",)
    headers: Fields = ()
    error: str = ""
    breaks: str = ""
    asked: list[dict[str, Any]] = field(default_factory=lambda: list[dict[str, Any]]())
    given: int = 0
    closed: int = 0

    async def send(
        self, provider: Provider, wire: Wire, key: SecretText, headers: Fields, body: bytes
    ) -> Reply:
        """See `Upstream`."""
        self.asked.append(
            {
                "provider": str(provider),
                "wire": str(wire),
                "key": key.reveal(),
                "headers": dict(headers),
                "body": body,
            }
        )
        if self.error:
            raise UpstreamError(self.error)
        return Reply(self.status, self.content_type, self._body(), self.headers, emulated=False)

    async def _body(self) -> Made:
        try:
            for piece in self.pieces:
                self.given += 1
                yield piece
            if self.breaks:
                raise UpstreamError(self.breaks)
        finally:
            self.closed += 1

    def close(self) -> None:
        """See `Upstream`."""


class AiWorld(World):
    """Args: upstream: None asks no real provider."""

    def __init__(self, folder: Path, upstream: FakeUpstream | None = None) -> None:
        super().__init__(folder)
        self.fixtures = folder / "replies"
        self.fixtures.mkdir(exist_ok=True)
        self.upstream = upstream or FakeUpstream()

    async def restart(self) -> None:
        """See `World`."""
        await super().restart()
        directory = self.app.directory
        self.emulation = Emulation(
            self.states,
            self.storage,
            directory,
            self.clock,
            triggers=self.triggers,
            ai_fixtures=self.fixtures,
            ai_upstream=self.upstream,
        )
        parts = (self.plane.operations, *self.emulation.parts())
        self.app = Api(parts, directory, self.clock, users=self.emulation, version="1.2.3")

    async def internal(self, project_id: str) -> str:
        """The project's internal token: what its functions call with."""
        got = await self.get(f"/v1/admin/projects/{project_id}/internal-credentials")
        return str(got.data["internal_token"])

    async def gateway(
        self, path: str, body: object, *, project: Any, headers: Sequence[tuple[str, str]] = ()
    ) -> Got:
        """As a function calls it. Args: body: bytes as they are, else JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        token = await self.internal(project["id"])
        return await self.ask("POST", f"/ai/{path}", raw, token=token, headers=headers)

    async def prompt(self, project: Any, **changed: Any) -> Any:
        """A new prompt's data."""
        target = f"/v1/admin/projects/{project['id']}/ai/prompts"
        return (await self.post(target, {**PROMPT, **changed})).data

    def record(self, name: str, fixture: object) -> None:
        """A recorded reply of a prompt. Args: fixture: bytes as they are, else JSON."""
        raw = fixture if isinstance(fixture, bytes) else json.dumps(fixture).encode()
        (self.fixtures / f"{name}.json").write_bytes(raw)


def events_of(raw: bytes) -> list[tuple[str, Any]]:
    """A stream's events: (name, data); the last line's `[DONE]` is text."""
    events: list[tuple[str, Any]] = []
    for block in raw.decode().split("\n\n")[:-1]:
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        data = lines["data"]
        events.append((lines.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return events
