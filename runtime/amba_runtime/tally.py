"""Subrequests of one version, counted in our process: as many as its invocations may make.

The guest's own realm counts first and says it better (host/subrequests.mjs), but a guest can get
round what shares a realm with it: by a context it lost on purpose, by `connect()`, by what nobody
has thought of. Here nothing gets round. Source: reliability.md 2.3 and rows E17 to E19.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeGuard

from amba_runtime import limits
from amba_runtime.callers import Callers
from amba_runtime.limits import FunctionLimits
from amba_runtime.line import Line
from amba_runtime.outcome import Breach
from amba_runtime.underway import GUESS, Underway


class Served(Protocol):
    """What is known of a version that is being served: `pool.Slot`.

    Attributes:
        answers: that have begun so far.
    """

    @property
    def invocations(self) -> Mapping[str, Underway]: ...
    @property
    def callers(self) -> Callers: ...
    @property
    def answers(self) -> int: ...
    @property
    def limits(self) -> FunctionLimits: ...


class TooManySubrequestsError(Exception):
    """An invocation, or all that may have sent a request, made as many as they may.

    Attributes:
        request_id: whose limit it is; "" where nobody can be named.
        breach: to be told, once per invocation; None after that.
    """

    def __init__(self, request_id: str, breach: Breach | None) -> None:
        super().__init__("too many subrequests")
        self.request_id = request_id
        self.breach = breach


@dataclass(slots=True)
class _Count:
    """How many, and whether it was told that there were too many."""

    made: int = 0
    told: bool = False


@dataclass(slots=True)
class _Account:
    """Of one invocation: what it made, and what was made in its place by who knows whom."""

    line: Line
    own: _Count = field(default_factory=_Count)
    lent: _Count = field(default_factory=_Count)

    @property
    def lends(self) -> int:
        """How many have been made in all: what it made itself cannot be lent."""
        return self.own.made + self.lent.made


class Tally:
    """Counts for one version; `believed`, `charge`, then `turn`, for each request of its isolate.

    A request whose invocation is known is that one's. Any other is charged to whoever in flight
    has something left, oldest first, which takes nothing from what that one may make itself;
    with nobody in flight, to an allowance of one invocation that comes back with the next
    answer. What is known comes from the guest's realm, and is believed only of names that we
    know ourselves (`Callers`): a function may lie about which of its own invocations asks.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._accounts: OrderedDict[str, _Account] = OrderedDict()  # used last comes last
        self._unknown = Line(self._most_unknown)
        self._idle = _Count()
        self._idle_since = -1
        served.callers.on_gone(self._accounts.clear)

    def believed(self, caller: str | None) -> str | None:
        """Whom a request is from, as far as we believe what the guest's realm says of it."""
        return self._served.callers.believed(caller)

    def charge(self, caller: str | None) -> None:
        """Count one request.

        Args:
            caller: what `believed` gave: a request id, after GUESS where it is one; or None.

        Raises:
            TooManySubrequestsError: it must not be sent.
        """
        most = self._served.limits.subrequests
        if _known(caller):
            name, count = caller, self._account(caller).own
            left = count.made < most
        else:
            name, count, left = self._payer(most)
        if left:
            count.made += 1
            return
        breach = None if count.told else Breach("subrequests", most + 1, most)
        count.told = True
        raise TooManySubrequestsError(name, breach)

    def turn(self, caller: str | None) -> contextlib.AbstractAsyncContextManager[None]:
        """A place among those that wait for their answers to begin.

        Args:
            caller: as `charge` was told.
        """
        return (self._account(caller).line if _known(caller) else self._unknown).turn()

    def _payer(self, most: int) -> tuple[str, _Count, bool]:
        """Who pays for a request that nobody can be named for, and whether it still can."""
        served = self._served
        for name in served.invocations:
            account = self._accounts.get(name)
            if account is None or account.lends < most:
                return name, self._account(name).lent, True
        if served.invocations:
            name = next(iter(served.invocations))
            return name, self._account(name).lent, False
        if self._idle_since != served.answers:
            self._idle_since = served.answers
            self._idle = _Count()
        return "", self._idle, self._idle.made < most

    def _account(self, name: str) -> _Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = _Account(Line(self._at_once))
            self._tidy()
        else:
            self._accounts.move_to_end(name)
        return account

    def _tidy(self) -> None:
        """Forget who used it longest ago; those in flight and what is on its way stay.

        A few are looked at for each that comes: who must stay goes to the end of the line.
        """
        accounts, served = self._accounts, self._served
        for _ in range(limits.CALLERS_TIDIED.value):
            if len(accounts) <= limits.CALLERS_KEPT.value:
                return
            name, account = next(iter(accounts.items()))
            if name in served.invocations or not account.line.idle:
                accounts.move_to_end(name)
            else:
                del accounts[name]
                served.callers.forget(name)  # or its name would be worth another account

    def _at_once(self) -> int:
        return self._served.limits.subrequests_at_once

    def _most_unknown(self) -> int:
        return self._at_once() * max(1, len(self._served.invocations))


def _known(caller: str | None) -> TypeGuard[str]:
    return caller is not None and not caller.startswith(GUESS)
