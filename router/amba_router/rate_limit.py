"""Rate limits per function: how one is written, and how requests are counted against it.

A fixed window per caller, aligned to the first request that it counts. Source: contract D.8, H-5.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from amba_router.problem import Problem
from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.errors import UserCode, UserError

ANONYMOUS = "__anon__"
"""The bucket that all callers without a user share. Source: contract D.8."""

RateKey = Literal["user_id", "ip"]
KEYS: Mapping[str, RateKey] = {"user_id": "user_id", "ip": "ip"}
_WINDOW = re.compile(r"([0-9]{1,9})([smh])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`max` requests per window and caller; `window` as written (`60s`), and in seconds.

    `key` is `user_id` or `ip`.
    """

    window: str
    window_s: int
    max: int
    key: RateKey

    def wire(self) -> dict[str, Any]:
        """As an upload's metadata carries it, and as it is stored."""
        return {"window": self.window, "max": self.max, "key": self.key}


def parse_window(text: str) -> int | None:
    """Seconds of `30s`, `5m` or `1h`, from 1 second to 1 hour; None for anything else."""
    match = _WINDOW.match(text)
    if match is None:
        return None
    seconds = int(match[1]) * _SECONDS[match[2]]
    return seconds if 1 <= seconds <= limits.RATE_LIMIT_WINDOW_MAX_S.value else None


def parse_rate_limit(value: object) -> RateLimit | None:
    """The limit of an upload's `rate_limit`; None (JSON null) is no limit.

    Raises:
        UserError: INVALID_RATE_LIMIT, naming the member and what it may be.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise _invalid("it must be an object with window, max and key, or null")
    given = cast(Mapping[str, object], value)
    missing = [name for name in ("window", "max", "key") if given.get(name) is None]
    if missing:
        raise _invalid(f"{' and '.join(missing)} missing: all three of window, max, key or none")
    window, most, key = given["window"], given["max"], given["key"]
    window_s = parse_window(window) if isinstance(window, str) else None
    if not isinstance(window, str) or window_s is None:
        raise _invalid(f"window is {_shown(window)}; write 1s to 3600s, 1m to 60m, or 1h")
    highest = limits.RATE_LIMIT_MAX.value
    if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= highest:
        raise _invalid(f"max is {_shown(most)}; write a whole number from 1 to {highest}")
    known = KEYS.get(key) if isinstance(key, str) else None
    if known is None:
        raise _invalid(f"key is {_shown(key)}; write user_id or ip")
    return RateLimit(window, window_s, most, known)


def stored_rate_limit(value: object) -> RateLimit | None:
    """The same of what was stored: what is malformed limits nothing (contract D.8: falls open)."""
    try:
        return parse_rate_limit(value)
    except UserError:
        return None


def _invalid(what: str) -> UserError:
    return UserError(
        UserCode.INVALID_RATE_LIMIT,
        f"the rate limit is not valid: {what}",
        hint='for example {"window": "60s", "max": 100, "key": "ip"}',
    )


def _shown(value: object) -> str:
    return repr(value)[:60]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One request over the limit: whole seconds until the caller's window ends, at least 1."""

    limit: RateLimit
    scope: str
    retry_after_s: int

    def problem(self) -> Problem:
        """429 in the shape of the SDK's `AmbaRateLimitError`. Source: contract A.7."""
        limit, wait = self.limit, self.retry_after_s
        return Problem(
            429,
            "rate_limited",
            "rate_limit",
            f"more than {limit.max} requests in {limit.window} by one "
            f"{'address' if limit.key == 'ip' else 'user'}; try again in {wait} s",
            {
                "retry_after_seconds": wait,
                "scope": self.scope,
                "window": limit.window,
                "max": limit.max,
            },
            retry_after_s=wait,
            extra=(
                (b"x-ratelimit-limit", b"%d" % limit.max),
                (b"x-ratelimit-remaining", b"0"),
                (b"x-ratelimit-reset", b"%d" % wait),
            ),
        )


class RateCounter:
    """Counts one function's requests. Changed only by `count`, on the event loop.

    At most `limits.RATE_LIMIT_BUCKETS` callers are remembered; the oldest window goes first, and
    its caller begins another. Windows are equally long, so the order of making is that of ending.

    Args:
        scope: what is limited, such as `project:function`; the key is added.
        refused: called once for each refusal.
    """

    def __init__(
        self,
        limit: RateLimit,
        *,
        scope: str,
        clock: Clock,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self.limit = limit
        self._scope = f"{scope}:{limit.key}"
        self._clock = clock
        self._refused = refused
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def count(self, caller: str) -> Refusal | None:
        """Note one request; the refusal when it is one too many.

        Args:
            caller: the user id ("" for nobody) or the address, by the limit's key.
        """
        caller = caller or ANONYMOUS
        now_s = self._clock.monotonic_s()
        window = self._windows.get(caller)
        if window is None or now_s >= window.ends_s:
            self._windows.pop(caller, None)
            self._make_room(now_s)
            window = self._windows[caller] = _Window(now_s + self.limit.window_s)
        if window.count >= self.limit.max:
            self._refused()
            wait = max(1, math.ceil(window.ends_s - now_s))
            return Refusal(self.limit, self._scope, wait)
        window.count += 1
        return None

    @property
    def remembered(self) -> int:
        """Callers with a window."""
        return len(self._windows)

    def _make_room(self, now_s: float) -> None:
        """Forget the windows that have ended, and the oldest one where there are too many."""
        windows = self._windows
        while windows:
            caller, oldest = windows.popitem(last=False)
            if now_s < oldest.ends_s and len(windows) < limits.RATE_LIMIT_BUCKETS.value - 1:
                windows[caller] = oldest
                windows.move_to_end(caller, last=False)
                return


class _Window:
    __slots__ = ("count", "ends_s")

    def __init__(self, ends_s: float) -> None:
        self.ends_s = ends_s
        self.count = 0
