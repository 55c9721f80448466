"""One request and its answer: what is left of them when they are done."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

from amba_router.cycle import Cycle


def test_an_answered_request_is_no_work_for_the_collector() -> None:
    """Nothing that was made for it refers back to it: it is gone with the last who needs it."""
    written: list[bytes] = []
    flow = SimpleNamespace(write_paused=False)
    edge: Any = SimpleNamespace(
        transport=SimpleNamespace(write=written.append),
        flow=flow,
        pipeline=[],
        logger=None,
        server_state=SimpleNamespace(default_headers=[]),
        on_response_complete=lambda: None,
        headers=[],
    )
    gc.disable()
    try:
        cycle = Cycle(edge, keep_alive=True)
        scope: Any = {"method": "GET", "extensions": {"amba.whole": cycle.whole}}
        cycle.scope = scope
        assert scope["extensions"]["amba.whole"](200, [(b"content-length", b"2")], b"ok")
        gone = weakref.ref(cycle)
        del cycle, scope
        assert gone() is None
    finally:
        gc.enable()
    assert b"".join(written).endswith(b"\r\n\r\nok")
