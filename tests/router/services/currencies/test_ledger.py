"""Balances against a plain model: any orders, at any times, in any number at once (E.9)."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.router.store.world import project

from amba_router.api.faults import Refused
from amba_router.services.currencies.ledger import due, moved, opened
from amba_router.services.currencies.service import CurrencyService, Order
from amba_router.store.control import ControlStore
from amba_router.store.currency_rows import Balance, Currency
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import app_users
from amba_router.store.state import State
from amba_runtime.clock import ManualClock

MOST = 2**53 - 1
HOUR_MS = 3_600_000

amounts = st.integers(1, 40) | st.integers(1, MOST)
orders = st.one_of(
    st.tuples(st.just("grant"), amounts),
    st.tuples(st.just("spend"), amounts),
    st.tuples(st.just("wait"), st.integers(1, 300)),
    st.tuples(st.just("look"), st.just(0)),
)
"""What happens; waits are in tenths of an hour."""

rates = st.none() | st.tuples(st.integers(1, 30), st.integers(1, 5))


@dataclass
class Model:
    """What one user has, worked out tenth by tenth of an hour.

    Attributes:
        waiting: what time has brought since the last transaction, which is part of `balance`.
    """

    initial: int
    most: int
    rate: tuple[int, int] | None
    balance: int | None = None
    tenths: int = 0
    earned: int = 0
    waiting: int = 0
    amounts: list[int] = field(default_factory=lambda: list[int]())

    def touch(self) -> None:
        """Read or spent: it begins, if it has not."""
        if self.balance is None:
            self.balance = 0
            self.tenths = 0
            self.add(self.initial)

    def add(self, amount: int) -> None:
        assert self.balance is not None
        self.balance += amount
        self.earned += max(amount, 0)
        if amount:
            self.amounts.append(amount)

    def wait(self, tenths: int) -> None:
        """Time passes; what it brings in all is one transaction, as nobody looked."""
        if self.balance is None or self.rate is None:
            return
        brought = 0
        for _ in range(tenths):
            self.tenths += 1
            if self.tenths % (self.rate[1] * 10) == 0:
                brought += min(self.rate[0], self.room() - brought)
        self.waiting += brought
        self.balance += brought

    def room(self) -> int:
        assert self.balance is not None
        return min(self.most - self.balance, MOST - self.earned - self.waiting)

    def settle(self) -> None:
        if self.waiting:
            self.earned += self.waiting
            self.amounts.append(self.waiting)
            self.waiting = 0
        self.touch()

    def grant(self, amount: int) -> bool:
        room = self.most - self.initial if self.balance is None else self.room()
        if amount > room:
            return False
        self.settle()
        self.add(amount)
        return True

    def spend(self, amount: int) -> bool:
        there = self.initial if self.balance is None else self.balance
        if amount > there:
            return False
        self.settle()
        self.add(-amount)
        return True


@dataclass
class Bench:
    """A service on a store, one project, users on demand."""

    service: CurrencyService
    store: ProjectStore
    clock: ManualClock
    project_id: str
    numbers: Any = field(default_factory=itertools.count)

    @classmethod
    async def open(cls, state: State, clock: ManualClock) -> Bench:
        store = ProjectStore(OnDemand(state, clock))
        owner = (await project(ControlStore(state, clock))).record.id
        return cls(CurrencyService(store, clock), store, clock, owner)

    async def currency(self, **values: Any) -> tuple[str, str]:
        """(code, id of a user that has none of it); the definition is the only one."""
        number = next(self.numbers)
        user_id = f"u{number}"

        def add(scoped: Scoped) -> None:
            seen = {"first_seen_ms": 0, "last_seen_ms": 0}
            lists = {"auth_providers": "[]", "properties": "{}"}
            scoped.add(app_users, {"id": user_id, **seen, **lists})

        await self.store.write(self.project_id, add)
        every = {
            "code": f"c{number}",
            "name": "n",
            "description": None,
            "is_premium": False,
            "initial_balance": 0,
            "max_balance": None,
            "auto_recharge_amount": None,
            "auto_recharge_interval_hours": None,
            **values,
        }
        made = await self.service.create(self.project_id, every)
        return made.code, user_id

    async def forget(self) -> None:
        """Without any definition."""
        for one in (await self.service.page(self.project_id, 0, 100))[0]:
            await self.service.remove(self.project_id, one.id)

    async def move(self, way: str, code: str, user_id: str, amount: int) -> bool:
        """Whether it was done."""
        order = Order(user_id, code, amount)
        try:
            await getattr(self.service, way)(self.project_id, order)
        except Refused as refusal:
            code_given = refusal.fault.code
        else:
            return True
        assert code_given in ("INSUFFICIENT_BALANCE", "MAX_BALANCE_EXCEEDED")
        return False

    async def balance(self, user_id: str) -> Balance:
        """Of the only currency, as a user sees it."""
        [(_, balance)] = await self.service.balances(self.project_id, user_id)
        return balance

    async def check(self, user_id: str, balance: Balance) -> list[int]:
        """The invariants; the amounts of all transactions, the oldest first."""
        page = await self.service.transactions(self.project_id, user_id, None, 0, 1000, known=True)
        running = 0
        for one in reversed(page.transactions):
            running += one.amount
            assert one.balance_after == running >= 0
        assert balance.balance == running
        assert balance.lifetime_earned - balance.lifetime_spent == running
        assert balance.lifetime_earned == sum(max(t.amount, 0) for t in page.transactions)
        assert page.total == len(page.transactions) == balance.transactions
        return [one.amount for one in reversed(page.transactions)]


def test_any_orders_at_any_time(tmp_path: Path) -> None:
    """The same balances, refusals and transactions as a plain model has."""
    clock = ManualClock()
    with asyncio.Runner() as runner:
        state = runner.run(State.open(tmp_path / "state", clock))
        bench = runner.run(Bench.open(state, clock))

        async def play(
            steps: list[tuple[str, int]], initial: int, most: int | None, rate: Any
        ) -> None:
            amount, hours = rate or (None, None)
            code, user_id = await bench.currency(
                initial_balance=initial,
                max_balance=None if most is None else most + initial,
                auto_recharge_amount=amount,
                auto_recharge_interval_hours=hours,
            )
            model = Model(initial, MOST if most is None else most + initial, rate)
            for what, number in steps:
                if what == "wait":
                    clock.jump(number * 360)
                    model.wait(number)
                elif what == "look":
                    model.settle()
                    assert (await bench.balance(user_id)).balance == model.balance
                else:
                    did = await bench.move(what, code, user_id, number)
                    assert did == getattr(model, what)(number)
            model.settle()
            balance = await bench.balance(user_id)
            assert balance.balance == model.balance
            assert await bench.check(user_id, balance) == model.amounts
            await bench.forget()

        @settings(max_examples=60, deadline=None)
        @given(
            st.lists(orders, max_size=12),
            st.integers(0, 30),
            st.none() | st.integers(1, 100),
            rates,
        )
        def check(steps: list[tuple[str, int]], initial: int, most: int | None, rate: Any) -> None:
            runner.run(play(steps, initial, most, rate))

        check()
        runner.run(state.close())


def test_any_orders_at_once(tmp_path: Path) -> None:
    """In whatever order they come to be done: never negative, never over, the exact sum."""
    clock = ManualClock()
    with asyncio.Runner() as runner:
        state = runner.run(State.open(tmp_path / "state", clock))
        bench = runner.run(Bench.open(state, clock))

        async def play(steps: list[tuple[str, int]], most: int) -> None:
            code, user_id = await bench.currency(max_balance=most, initial_balance=1)
            did = await asyncio.gather(
                *(bench.move(way, code, user_id, amount) for way, amount in steps)
            )
            balance = await bench.balance(user_id)
            signed = [amount if way == "grant" else -amount for way, amount in steps]
            made = [amount for amount, done in zip(signed, did, strict=True) if done]
            assert balance.balance == 1 + sum(made)
            told = await bench.check(user_id, balance)
            assert sorted(told) == sorted([1, *made])
            assert all(running <= most for running in itertools.accumulate(told))
            await bench.forget()

        moves = st.tuples(st.sampled_from(["grant", "spend"]), st.integers(1, 20))

        @settings(max_examples=40, deadline=None)
        @given(st.lists(moves, min_size=1, max_size=24), st.integers(1, 40))
        def check(steps: list[tuple[str, int]], most: int) -> None:
            runner.run(play(steps, most))

        check()
        runner.run(state.close())


@given(
    amount=st.integers(1, MOST),
    hours=st.integers(1, 24 * 366),
    had=st.integers(0, MOST),
    most=st.none() | st.integers(1, MOST),
    now_ms=st.integers(0, 2**45),
    since_ms=st.integers(0, 2**45),
    again_ms=st.integers(0, 2**45),
)
def test_what_is_due_is_due_once(
    amount: int, hours: int, had: int, most: int | None, now_ms: int, since_ms: int, again_ms: int
) -> None:
    """Whatever the clock does: in range, never behind what was worked out, nothing twice."""
    currency = Currency("i", "c", "n", None, False, 0, most, amount, hours, 0, 0, 0)
    balance = Balance("u", "c", had, had, 0, since_ms, 0)
    first = due(currency, balance, now_ms)
    if first is None:
        assert now_ms - since_ms < hours * HOUR_MS
        return
    assert 0 <= now_ms - first.recharged_ms < hours * HOUR_MS
    assert 0 <= first.amount <= max(0, (MOST if most is None else most) - had)
    after = moved(balance, first.amount)
    assert after.lifetime_earned <= MOST
    settled = Balance("u", "c", after.balance, after.lifetime_earned, 0, first.recharged_ms, 1)
    assert due(currency, settled, now_ms) is None
    later = due(currency, settled, again_ms)
    assert later is None or later.recharged_ms > first.recharged_ms


def test_what_opens_is_nothing() -> None:
    """Zeroes, and a clock that starts now."""
    currency = Currency("i", "c", "n", None, False, 7, None, None, None, 0, 0, 0)
    assert opened(currency, "u", 5) == Balance("u", "c", 0, 0, 0, 5, 0)
