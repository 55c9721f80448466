"""Row 4: from the client's send to the first answer of the new version."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from time import monotonic

from tests.drills.figures import Figure, at_most
from tests.drills.nodes import NodeProcess, ask, create_project, tagged
from tests.drills.nodes import deploy as upload

KIB = 1024


def run(folder: Path, *, rounds: int = 30) -> list[Figure]:
    """Deploy a 100 KiB bundle again and again."""
    with NodeProcess(folder / "deploy") as node:
        project, slug = create_project(node, "deploy-drill")
        api = node.api(project)
        took_ms: list[float] = []
        for n in range(rounds):
            tag = f"v{n}"
            code = tagged(tag, filler_bytes=100 * KIB)
            began = monotonic()
            upload(api, "big", code)
            while not ask(node.port, f"/fn/{slug}/big").body.startswith(tag + " "):
                if monotonic() - began > 10:
                    break
            took_ms.append((monotonic() - began) * 1000)
    return [at_most("4", "deploy to new answer, p50", round(median(took_ms), 1), 150, " ms")]
