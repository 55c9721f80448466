"""Currencies over the wire: definitions, grants, spends, what a user sees (contract E.9)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import Got, World

from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import app_users, balances, currency_transactions
from amba_runtime import limits

Run = Callable[[World, Any], Awaitable[None]]
MOST = 2**53 - 1


def run(tmp_path: Path, work: Run) -> None:
    """Do something with a world and a project of it, whose users are ann and ben."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            await add_users(world, project, "ann", "ben")
            await work(world, project)

    asyncio.run(main())


async def add_users(world: World, project: Any, *ids: str) -> None:
    def work(scoped: Scoped) -> None:
        for id_ in ids:
            seen = {"first_seen_ms": 0, "last_seen_ms": 0}
            lists = {"auth_providers": "[]", "properties": "{}"}
            scoped.add_missing(app_users, {"id": id_, **seen, **lists})

    await ProjectStore(world.states).write(project["id"], work)


def base(project: Any) -> str:
    return f"/v1/admin/projects/{project['id']}/currencies"


async def define(world: World, project: Any, code: str = "gems", **more: Any) -> Any:
    """A new currency's data."""
    return (await world.post(base(project), {"code": code, "name": code.title(), **more})).data


async def grant(world: World, project: Any, amount: Any, user: str = "ann", **more: Any) -> Got:
    body = {"app_user_id": user, "currency_code": "gems", "amount": amount, **more}
    return await world.post(f"{base(project)}/grant", body)


async def spend(world: World, project: Any, amount: Any, user: str = "ann", **more: Any) -> Got:
    body = {"app_user_id": user, "currency_code": "gems", "amount": amount, **more}
    return await world.post(f"{base(project)}/spend", body)


async def patch(world: World, project: Any, id_: str, body: object) -> Got:
    return await world.ask("PATCH", f"{base(project)}/{id_}", json.dumps(body).encode())


async def balance(world: World, project: Any, user: str = "ann") -> int:
    """What the client plane says, and that it fits the two sums."""
    got = await world.as_client("GET", "/v1/client/currencies", project=project, user=user)
    row = next(row for row in got.data if row["currency_code"] == "gems")
    assert row["lifetime_earned"] - row["lifetime_spent"] == row["balance"]
    return int(row["balance"])


async def history(world: World, project: Any, user: str = "ann", query: str = "") -> Any:
    """A user's transactions, the newest first."""
    return (await world.get(f"{base(project)}/transactions/{user}{query}")).data


def test_definitions(tmp_path: Path) -> None:
    """Create, list, change, delete (contract E.9)."""

    async def work(world: World, project: Any) -> None:
        made = await world.post(base(project), {"code": "gems", "name": "Gems"})
        assert made.status == 201
        id_ = made.data["id"]
        assert made.data == {
            "id": id_,
            "code": "gems",
            "name": "Gems",
            "description": None,
            "is_premium": False,
            "initial_balance": 0,
            "max_balance": None,
            "auto_recharge_amount": None,
            "auto_recharge_interval_hours": None,
            "created_at": "2026-01-01T00:00:00.000Z",
            "updated_at": "2026-01-01T00:00:00.000Z",
        }
        all_of_it = {
            "name": "Energy",
            "description": "to play",
            "is_premium": True,
            "initial_balance": 5,
            "max_balance": 10,
            "auto_recharge_amount": 1,
            "auto_recharge_interval_hours": 2,
        }
        energy = await define(world, project, "energy", **all_of_it)
        assert {name: energy[name] for name in all_of_it} == all_of_it
        again = await world.post(base(project), {"code": "gems", "name": "Others"})
        assert again.said == (409, "CONFLICT")
        await world.clock.advance(1)
        changed = await patch(world, project, id_, {"name": "Jewels", "max_balance": 7})
        assert changed.data == {
            **made.data,
            "name": "Jewels",
            "max_balance": 7,
            "updated_at": "2026-01-01T00:00:01.000Z",
        }
        listed = await world.get(base(project))
        assert [row["code"] for row in listed.data] == ["energy", "gems"]
        assert listed.body["total"] == 2
        gone = await world.delete(f"{base(project)}/{id_}")
        assert gone.data == {"id": id_, "deleted": True}
        assert (await world.delete(f"{base(project)}/{id_}")).said == (404, "CURRENCY_NOT_FOUND")
        assert (await patch(world, project, id_, {"name": "x"})).said == (404, "CURRENCY_NOT_FOUND")

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "n"}, "$"),
        ({"code": "c"}, "$"),
        ({"code": "", "name": "n"}, "$.code"),
        ({"code": "c\n", "name": "n"}, "$.code"),
        ({"code": "1c", "name": "n"}, "$.code"),
        ({"code": "c'; DROP TABLE currencies; --", "name": "n"}, "$.code"),
        ({"code": "c" * 65, "name": "n"}, "$.code"),
        ({"code": "c", "name": ""}, "$.name"),
        ({"code": "c", "name": "n" * 201}, "$.name"),
        ({"code": "c", "name": "n", "description": "d" * 2001}, "$.description"),
        ({"code": "c", "name": "n", "is_premium": 1}, "$.is_premium"),
        ({"code": "c", "name": "n", "initial_balance": -1}, "$.initial_balance"),
        ({"code": "c", "name": "n", "initial_balance": None}, "$.initial_balance"),
        ({"code": "c", "name": "n", "initial_balance": MOST + 1}, "$.initial_balance"),
        ({"code": "c", "name": "n", "max_balance": 0}, "$.max_balance"),
        ({"code": "c", "name": "n", "initial_balance": 2, "max_balance": 1}, "$.initial_balance"),
        ({"code": "c", "name": "n", "auto_recharge_amount": 1}, "$.auto_recharge_amount"),
        (
            {"code": "c", "name": "n", "auto_recharge_interval_hours": 1},
            "$.auto_recharge_amount",
        ),
        (
            {
                "code": "c",
                "name": "n",
                "auto_recharge_amount": 1,
                "auto_recharge_interval_hours": 0,
            },
            "$.auto_recharge_interval_hours",
        ),
        (
            {
                "code": "c",
                "name": "n",
                "auto_recharge_amount": 1,
                "auto_recharge_interval_hours": 8785,
            },
            "$.auto_recharge_interval_hours",
        ),
    ],
)
def test_bad_definitions_are_named(tmp_path: Path, body: object, field: str) -> None:
    """400 with the place, and nothing is written."""

    async def work(world: World, project: Any) -> None:
        got = await world.post(base(project), body)
        assert got.said == (400, "INVALID_INPUT")
        assert got.details == {"field": field}
        assert (await world.get(base(project))).data == []

    run(tmp_path, work)


def test_bad_changes_leave_what_was(tmp_path: Path) -> None:
    """What the members say of each other is checked with those that stay."""

    async def work(world: World, project: Any) -> None:
        made = await define(
            world,
            project,
            initial_balance=5,
            max_balance=9,
            auto_recharge_amount=1,
            auto_recharge_interval_hours=1,
        )
        bad: list[dict[str, Any]] = [
            {},
            {"code": "coins"},
            {"max_balance": 4},
            {"initial_balance": 10},
            {"auto_recharge_amount": None},
            {"name": None},
        ]
        for body in bad:
            assert (await patch(world, project, made["id"], body)).said == (400, "INVALID_INPUT")
        assert (await world.get(base(project))).data == [made]
        same = {"code": "gems", "auto_recharge_amount": None, "auto_recharge_interval_hours": None}
        assert (await patch(world, project, made["id"], same)).status == 200

    run(tmp_path, work)


def test_grants_and_spends(tmp_path: Path) -> None:
    """The members of a transaction, and lists of them (contract E.9)."""

    async def work(world: World, project: Any) -> None:
        await define(world, project)
        given = await grant(world, project, 100, reason="welcome")
        assert given.status == 201
        id_ = given.data["id"]
        assert given.data == {
            "id": id_,
            "app_user_id": "ann",
            "currency_code": "gems",
            "amount": 100,
            "balance_after": 100,
            "transaction_type": "grant",
            "source": "admin",
            "reference_id": None,
            "created_at": "2026-01-01T00:00:00.000Z",
            "reason": "welcome",
        }
        taken = await spend(world, project, 30)
        assert taken.status == 201
        assert (taken.data["amount"], taken.data["balance_after"]) == (-30, 70)
        assert (taken.data["transaction_type"], taken.data["source"]) == ("spend", "admin")
        assert "reason" not in taken.data
        rows = await history(world, project)
        assert rows == [taken.data, given.data]
        listed = await world.get(f"{base(project)}/transactions/ann?limit=1&offset=1")
        assert listed.data == [given.data]
        assert {k: v for k, v in listed.body.items() if k != "data"} == {
            "total": 2,
            "offset": 1,
            "limit": 1,
        }
        assert (await world.get(f"{base(project)}/transactions/ben")).body == {
            "data": [],
            "total": 0,
            "offset": 0,
            "limit": 50,
        }
        assert await balance(world, project) == 70

    run(tmp_path, work)


@pytest.mark.parametrize("way", ["grant", "spend"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"amount": 0}, (400, "INVALID_INPUT")),
        ({"amount": -1}, (400, "INVALID_INPUT")),
        ({"amount": 1.5}, (400, "INVALID_INPUT")),
        ({"amount": "1"}, (400, "INVALID_INPUT")),
        ({"amount": True}, (400, "INVALID_INPUT")),
        ({"amount": None}, (400, "INVALID_INPUT")),
        ({"amount": MOST + 1}, (400, "INVALID_INPUT")),
        ({"amount": 10**400}, (400, "INVALID_INPUT")),
        ({"app_user_id": ""}, (400, "INVALID_INPUT")),
        ({"app_user_id": None}, (400, "INVALID_INPUT")),
        ({"app_user_id": "nobody"}, (404, "USER_NOT_FOUND")),
        ({"app_user_id": "ann' OR '1'='1"}, (404, "USER_NOT_FOUND")),
        ({"app_user_id": "nobody", "currency_code": "none"}, (404, "USER_NOT_FOUND")),
        ({"currency_code": "none"}, (404, "CURRENCY_NOT_FOUND")),
        ({"currency_code": "GEMS"}, (404, "CURRENCY_NOT_FOUND")),
        ({"currency_code": 3}, (400, "INVALID_INPUT")),
        ({"reason": "r" * 2001}, (400, "INVALID_INPUT")),
        ({"reference_id": ""}, (400, "INVALID_INPUT")),
        ({"reference_id": "r" * 201}, (400, "INVALID_INPUT")),
    ],
)
def test_bad_orders_write_nothing(
    tmp_path: Path, way: str, change: dict[str, Any], said: tuple[int, str]
) -> None:
    """Whole numbers above 0 that JSON can carry, a user and a currency of the project."""

    async def work(world: World, project: Any) -> None:
        await define(world, project)
        await grant(world, project, 10)
        body = {"app_user_id": "ann", "currency_code": "gems", "amount": 1, **change}
        got = await world.post(f"{base(project)}/{way}", body)
        assert got.said == said
        assert await balance(world, project) == 10
        assert len(await history(world, project)) == 1

    run(tmp_path, work)


def test_what_is_not_there_is_not_spent(tmp_path: Path) -> None:
    """409 INSUFFICIENT_BALANCE, by one, and with nothing at all (contract E.9)."""

    async def work(world: World, project: Any) -> None:
        await define(world, project)
        assert (await spend(world, project, 1)).said == (409, "INSUFFICIENT_BALANCE")
        await grant(world, project, 10)
        got = await spend(world, project, 11)
        assert got.said == (409, "INSUFFICIENT_BALANCE")
        assert got.details == {"currency_code": "gems", "amount": 11, "balance": 10}
        assert (await spend(world, project, 10)).data["balance_after"] == 0
        assert (await spend(world, project, 1)).said == (409, "INSUFFICIENT_BALANCE")

    run(tmp_path, work)


def test_no_more_than_the_maximum(tmp_path: Path) -> None:
    """A grant over `max_balance`, or over what JSON carries, is refused whole (ours)."""

    async def work(world: World, project: Any) -> None:
        made = await define(world, project, max_balance=100)
        assert (await grant(world, project, 101)).said == (409, "MAX_BALANCE_EXCEEDED")
        assert (await grant(world, project, 60)).status == 201
        got = await grant(world, project, 41)
        assert got.said == (409, "MAX_BALANCE_EXCEEDED")
        assert got.details == {
            "currency_code": "gems",
            "amount": 41,
            "balance": 60,
            "max_balance": 100,
        }
        assert (await grant(world, project, 40)).data["balance_after"] == 100
        # lowered: what is there stays
        await patch(world, project, made["id"], {"max_balance": 50})
        assert await balance(world, project) == 100
        assert (await grant(world, project, 1)).said == (409, "MAX_BALANCE_EXCEEDED")
        await patch(world, project, made["id"], {"max_balance": None})
        assert (await grant(world, project, MOST - 100)).data["balance_after"] == MOST
        assert (await grant(world, project, 1)).said == (409, "MAX_BALANCE_EXCEEDED")
        # the sum of all that was ever earned is bounded as well
        assert (await spend(world, project, MOST)).data["balance_after"] == 0
        assert (await grant(world, project, 1)).said == (409, "MAX_BALANCE_EXCEEDED")

    run(tmp_path, work)


def test_a_reference_is_used_once(tmp_path: Path) -> None:
    """The same order again is the same transaction; another amount is a conflict (ours)."""

    async def work(world: World, project: Any) -> None:
        await define(world, project)
        first = await grant(world, project, 10, reference_id="order-1")
        assert (first.status, first.data["reference_id"]) == (201, "order-1")
        again = await asyncio.gather(
            *(grant(world, project, 10, reference_id="order-1") for _ in range(8))
        )
        assert {got.status for got in again} == {200}
        assert all(got.data == first.data for got in again)
        other = await grant(world, project, 11, reference_id="order-1")
        assert other.said == (409, "CONFLICT")
        assert other.details == {"field": "$.reference_id"}
        # of another type, and of another user, it is another reference
        assert (await spend(world, project, 4, reference_id="order-1")).status == 201
        assert (await spend(world, project, 4, reference_id="order-1")).status == 200
        assert (await grant(world, project, 10, "ben", reference_id="order-1")).status == 201
        assert [row["amount"] for row in await history(world, project)] == [-4, 10]
        # one that was refused may come again
        assert (await spend(world, project, 7, reference_id="o2")).code == "INSUFFICIENT_BALANCE"
        await grant(world, project, 1)
        assert (await spend(world, project, 7, reference_id="o2")).status == 201

    run(tmp_path, work)


def test_64_spenders_of_1000(tmp_path: Path) -> None:
    """Never negative, the exact sum, each `balance_after` the next one (issue 5, row 4)."""

    async def work(world: World, project: Any) -> None:
        await define(world, project)
        await grant(world, project, 1000)

        async def spender(number: int) -> int:
            spent = 0
            for step in range(4):
                amount = 1 + (number * 7 + step * 5) % 19
                got = await spend(world, project, amount)
                if got.status == 201:
                    assert got.data["balance_after"] >= 0
                    spent += amount
                else:
                    assert got.said == (409, "INSUFFICIENT_BALANCE")
            return spent

        spent = await asyncio.gather(*(spender(number) for number in range(64)))
        left = 1000 - sum(spent)
        assert 0 <= left < 19
        assert await balance(world, project) == left
        rows = (await history(world, project, query="?limit=1000"))[::-1]
        running = 0
        for row in rows:
            running += row["amount"]
            assert row["balance_after"] == running >= 0
        assert running == left

    run(tmp_path, work)


def test_what_a_user_sees(tmp_path: Path) -> None:
    """A row for each currency, touched or not; own transactions, of one currency on demand."""

    async def work(world: World, project: Any) -> None:
        await define(world, project)
        await define(world, project, "coins", is_premium=True)
        await grant(world, project, 5)
        await spend(world, project, 2)
        await grant(world, project, 9, "ben", currency_code="coins")
        got = await world.as_client("GET", "/client/currencies", project=project, user="ann")
        nothing = {"balance": 0, "lifetime_earned": 0, "lifetime_spent": 0}
        gems = {"currency_code": "gems", "name": "Gems", "is_premium": False}
        coins = {"currency_code": "coins", "name": "Coins", "is_premium": True}
        assert got.body == {
            "data": [
                {**coins, **nothing},
                {**gems, "balance": 3, "lifetime_earned": 5, "lifetime_spent": 2},
            ]
        }
        target = "/v1/client/currencies/transactions"
        mine = await world.as_client("GET", target, project=project, user="ann")
        assert mine.data == await history(world, project)
        assert (mine.body["total"], mine.body["limit"], mine.body["offset"]) == (2, 50, 0)
        one = f"{target}?currency_code=gems&limit=1&offset=1"
        mine = await world.as_client("GET", one, project=project, user="ann")
        assert [row["amount"] for row in mine.data] == [5]
        none = await world.as_client(
            "GET", f"{target}?currency_code=coins", project=project, user="ann"
        )
        assert (none.data, none.body["total"]) == ([], 0)
        for query in ("limit=0", "limit=1001", "limit=x", "offset=-1"):
            bad = await world.as_client("GET", f"{target}?{query}", project=project, user="ann")
            assert bad.said == (400, "INVALID_LIMIT")
        got = await world.as_client(
            "GET", f"{target}?currency_code=none", project=project, user="ann"
        )
        assert got.said == (404, "CURRENCY_NOT_FOUND")
        as_ben = await world.as_user("GET", target, project=project, user="ben")
        assert [row["amount"] for row in as_ben.data] == [9]

    run(tmp_path, work)


def test_nobody_has_no_currencies(tmp_path: Path) -> None:
    """401 without a session, with a client key and with a server key alone (E.0, H-9)."""

    async def work(world: World, project: Any) -> None:
        for target in ("/client/currencies", "/client/currencies/transactions"):
            got = await world.as_client("GET", target, project=project)
            assert got.said == (401, "UNAUTHORIZED")
            key = project["api_keys"]["server"]["key"]
            got = await world.ask("GET", target, token=None, headers=[("x-api-key", key)])
            assert got.said == (401, "UNAUTHORIZED")

    run(tmp_path, work)


def test_an_initial_balance_is_a_recharge(tmp_path: Path) -> None:
    """Given when a user's balance is first read or spent, once (ours)."""

    async def work(world: World, project: Any) -> None:
        await define(world, project, initial_balance=20)
        assert (await spend(world, project, 5)).data["balance_after"] == 15
        types = [
            (r["transaction_type"], r["source"], r["amount"], r["balance_after"])
            for r in await history(world, project)
        ]
        assert types == [("spend", "admin", -5, 15), ("recharge", "system", 20, 20)]
        assert [await balance(world, project, "ben") for _ in range(3)] == [20, 20, 20]
        assert len(await history(world, project, "ben")) == 1
        assert (await spend(world, project, 21, "ben")).said == (409, "INSUFFICIENT_BALANCE")

    run(tmp_path, work)


def test_recharges_follow_the_clock(tmp_path: Path) -> None:
    """Each interval that has passed, up to the maximum, never twice (ours)."""

    async def work(world: World, project: Any) -> None:
        made = await define(
            world,
            project,
            max_balance=10,
            auto_recharge_amount=3,
            auto_recharge_interval_hours=2,
        )
        hour = 3600.0
        assert await balance(world, project) == 0  # the clock of this user starts here
        await world.clock.advance(2 * hour - 0.001)
        assert await balance(world, project) == 0
        await world.clock.advance(0.001)
        assert [await balance(world, project) for _ in range(2)] == [3, 3]
        await world.clock.advance(5 * hour)  # two intervals and a half
        assert (await spend(world, project, 9)).data["balance_after"] == 0
        await world.clock.advance(hour)
        assert await balance(world, project) == 3
        await world.clock.advance(1000 * hour)
        assert await balance(world, project) == 10
        recharges = [
            row["amount"]
            for row in await history(world, project)
            if row["transaction_type"] == "recharge"
        ]
        assert recharges == [7, 3, 6, 3]
        # a full one: its intervals pass without bringing anything
        await world.clock.advance(3 * hour)
        assert (await spend(world, project, 1)).data["balance_after"] == 9
        # a clock that was set back brings nothing, and takes nothing
        world.clock.jump(-500 * hour)
        assert await balance(world, project) == 9
        # another rate counts from when it was set
        await world.clock.advance(600 * hour)
        await patch(world, project, made["id"], {"auto_recharge_amount": 1, "max_balance": 50})
        assert await balance(world, project) == 9
        await world.clock.advance(2 * hour)
        assert await balance(world, project) == 10

    run(tmp_path, work)


def test_many_readers_recharge_once(tmp_path: Path) -> None:
    """What is due is worked out in the transaction that writes it."""

    async def work(world: World, project: Any) -> None:
        rate: dict[str, Any] = {"auto_recharge_amount": 2, "auto_recharge_interval_hours": 1}
        await define(world, project, initial_balance=1, **rate)
        assert await asyncio.gather(*(balance(world, project) for _ in range(16))) == [1] * 16
        await world.clock.advance(3600)
        assert await asyncio.gather(*(balance(world, project) for _ in range(16))) == [3] * 16
        assert len(await history(world, project)) == 2

    run(tmp_path, work)


def test_a_deleted_currency_takes_its_balances_along(tmp_path: Path) -> None:
    """One of the same code begins anew; others stay (ours)."""

    async def work(world: World, project: Any) -> None:
        made = await define(world, project)
        await define(world, project, "coins")
        await grant(world, project, 5, reference_id="r")
        await grant(world, project, 6, currency_code="coins")
        await world.delete(f"{base(project)}/{made['id']}")
        assert [row["amount"] for row in await history(world, project)] == [6]
        await define(world, project)
        assert await balance(world, project) == 0
        assert (await grant(world, project, 5, reference_id="r")).status == 201

    run(tmp_path, work)


def test_other_projects_are_not_touched(tmp_path: Path) -> None:
    """Ids, codes, users and references of one project are nothing to another (issue 5, row 2)."""

    async def work(world: World, project: Any) -> None:
        other = await world.project("Other")
        await add_users(world, other, "zoe")
        theirs = await define(world, other, "coins")
        body = {"app_user_id": "zoe", "currency_code": "coins", "amount": 9, "reference_id": "r"}
        was = (await world.post(f"{base(other)}/grant", body)).data
        await define(world, project)
        for got in (
            await patch(world, project, theirs["id"], {"name": "ours"}),
            await world.delete(f"{base(project)}/{theirs['id']}"),
            await grant(world, project, 1, currency_code="coins"),
            await spend(world, project, 1, currency_code="coins"),
            await world.get(f"{base(project)}/transactions/ann?currency_code=coins"),
        ):
            assert got.said == (404, "CURRENCY_NOT_FOUND")
        for got in (
            await grant(world, project, 1, "zoe"),
            await spend(world, project, 1, "zoe"),
            await world.get(f"{base(project)}/transactions/zoe"),
        ):
            assert got.said == (404, "USER_NOT_FOUND")
        token = project["api_keys"]["server"]["key"]
        for way in ("grant", "spend"):
            got = await world.post(f"{base(other)}/{way}", body, token=token)
            assert got.said == (403, "WRONG_PROJECT")
        # the same code, user and reference here are others
        await add_users(world, project, "zoe")
        await define(world, project, "coins")
        mine = await world.post(f"{base(project)}/grant", {**body, "amount": 4})
        assert (mine.status, mine.data["balance_after"]) == (201, 4)
        assert (await world.get(base(other))).data == [theirs]
        assert await history(world, other, "zoe") == [was]

    run(tmp_path, work)


def test_as_many_currencies_as_may_be(tmp_path: Path) -> None:
    """One more is refused (limits.CURRENCIES)."""

    async def work(world: World, project: Any) -> None:
        for number in range(limits.CURRENCIES.value):
            await define(world, project, f"c{number}")
        got = await world.post(base(project), {"code": "more", "name": "More"})
        assert got.said == (409, "CONFLICT")
        got = await world.as_client("GET", "/client/currencies", project=project, user="ann")
        assert len(got.data) == limits.CURRENCIES.value

    run(tmp_path, work)


def test_the_newest_transactions_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old ones go, of this user and currency alone; balances stay (CURRENCY_TRANSACTIONS)."""
    keep = limits.Limit(150, "transactions", "kept", "this test")
    monkeypatch.setattr(limits, "CURRENCY_TRANSACTIONS", keep)

    async def work(world: World, project: Any) -> None:
        await define(world, project)
        await grant(world, project, 1, "ben")
        await define(world, project, "coins")
        await grant(world, project, 1, currency_code="coins")
        for _ in range(3):
            await asyncio.gather(*(grant(world, project, 1) for _ in range(100)))
        assert await balance(world, project) == 300
        rows = await history(world, project, query="?currency_code=gems&limit=1000")
        assert [row["balance_after"] for row in rows] == list(range(300, 150, -1))
        assert len(await history(world, project, "ben")) == 1
        assert len(await history(world, project, query="?currency_code=coins")) == 1
        await grant(world, project, 1)
        assert len(await history(world, project, query="?currency_code=gems&limit=1000")) == 151

    run(tmp_path, work)


def test_a_deleted_project_takes_all_along(tmp_path: Path) -> None:
    """Nothing is left of it in the tables."""

    async def work(world: World, project: Any) -> None:
        await define(world, project)
        await grant(world, project, 1)
        name = project["name"]
        target = f"/v1/admin/projects/{project['id']}?confirm={name}"
        assert (await world.delete(target)).status == 200
        store = ProjectStore(world.states)

        def left(scoped: Scoped) -> list[int]:
            return [scoped.count(table) for table in (balances, currency_transactions)]

        assert await store.read(project["id"], left) == [0, 0]

    run(tmp_path, work)
