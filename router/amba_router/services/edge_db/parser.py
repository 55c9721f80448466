"""From words to a statement: an allowlist, read from left to right in one pass.

No general SQL parser stands here: of those at hand, one takes minutes over 25 nested joins
(190 bytes), and all understand far more than may pass. What this one does not know is refused.
Source: the statements of the 0.1.x functions SDK (contract B.1); PostgreSQL documentation, "SELECT"
and its siblings, for their order and their spelling.
"""

from __future__ import annotations

from collections.abc import Callable

from amba_router.rows.statements import (
    Condition,
    Default,
    Delete,
    Insert,
    Ordering,
    Output,
    Parsed,
    Select,
    Statement,
    Update,
    Value,
)
from amba_router.services.edge_db.conditions import Conditions
from amba_router.services.edge_db.lexer import Kind
from amba_runtime import limits


def parse(sql: str) -> Parsed:
    """Read one statement; a semicolon may end it. Raises `NotTaken`."""
    return _Parser(sql).whole()


class _Parser(Conditions):
    """What statements are made of, beside conditions."""

    def whole(self) -> Parsed:
        begins: dict[str, Callable[[], Statement]] = {
            "select": self.select,
            "insert": self._insert,
            "update": self._update,
            "delete": self._delete,
        }
        first = self.token
        read = begins.get(first.text) if first.kind is Kind.WORD else None
        if read is None:
            raise self.refused("a statement begins with SELECT, INSERT, UPDATE or DELETE")
        statement = read()
        while self.accept(";"):
            pass
        if self.token.kind is not Kind.END:
            raise self.refused("only one statement is taken, and this is none of its parts")
        return Parsed(statement, self.parameters)

    def select(self) -> Select:
        """Also as the right side of `column IN (...)`."""
        with self.one_table():
            self.expect_word("select")
            outputs, count_as = self._selected()
            self.expect_word("from")
            table = self.table()
            where = self._where()
            order = self._order() if self.accept_words("order", "by") else ()
            limit, offset = self._limits()
        return Select(table, outputs, where, order, limit, offset, count_as)

    def _selected(self) -> tuple[tuple[Output, ...], str]:
        if self.is_call("count"):
            self.skip(2)
            self.expect("*")
            self.expect(")")
            self.casts()
            name = self._alias() or "count"
            if self.is_sign(","):
                raise self.refused("count(*) stands alone: GROUP BY is not taken")
            return (), name
        return self._outputs(), ""

    def _outputs(self) -> tuple[Output, ...]:
        return self.several(self._output, limits.EDGE_DB_CONDITIONS.value)

    def _output(self) -> Output:
        if self.accept("*"):
            return Output("*", "*")
        column = self.column(star=True)
        return Output(column, self._alias() or column)

    def _alias(self) -> str:
        if self.accept_words("as"):
            return self.name("a name")
        return self.name("a name") if self.at_name() else ""

    def _where(self) -> Condition | None:
        return self.condition() if self.accept_words("where") else None

    def _order(self) -> tuple[Ordering, ...]:
        return self.several(self._ordering, limits.COLLECTION_ORDER.value)

    def _ordering(self) -> Ordering:
        column = self.column()
        descending = self.accept_words("desc")
        if not descending:
            self.accept_words("asc")
        nulls_first = descending
        if self.accept_words("nulls"):
            nulls_first = self.accept_words("first")
            if not nulls_first:
                self.expect_word("last")
        return Ordering(column, descending, nulls_first)

    def _limits(self) -> tuple[Value | None, Value | None]:
        found: dict[str, Value | None] = {}
        while self.token.kind is Kind.WORD and self.token.text in ("limit", "offset"):
            word = self.token.text
            if word in found:
                raise self.refused("it stands twice")
            self.skip()
            if word == "limit" and self.accept_words("all"):
                found[word] = None
                continue
            found[word] = self.value()
            if word == "offset" and not self.accept_words("rows"):
                self.accept_words("row")
        return found.get("limit"), found.get("offset")

    def _insert(self) -> Insert:
        with self.one_table():
            self.expect_word("insert")
            self.expect_word("into")
            table = self.table()
            self.expect("(")
            columns = self.several(lambda: self.name("a column"), limits.EDGE_DB_CONDITIONS.value)
            self.expect(")")
            for at, column in enumerate(columns):
                if column in columns[:at]:
                    raise self.refused(f"column {column} stands twice before it")
            self.expect_word("values")
            rows = self.several(lambda: self._row(len(columns)), limits.COLLECTION_BATCH.value)
            returning = self._returning()
        return Insert(table, columns, rows, returning)

    def _row(self, width: int) -> tuple[Value | Default, ...]:
        self.expect("(")
        row = self.several(self._settable, limits.EDGE_DB_CONDITIONS.value)
        if len(row) != width:
            raise self.refused(f"{width} columns were named, and here are {len(row)} values")
        self.expect(")")
        return row

    def _settable(self) -> Value | Default:
        return Default() if self.accept_words("default") else self.value()

    def _update(self) -> Update:
        with self.one_table():
            self.expect_word("update")
            table = self.table()
            self.expect_word("set")
            sets = self.several(self._set, limits.EDGE_DB_CONDITIONS.value)
            for at, (column, _) in enumerate(sets):
                if column in [name for name, _ in sets[:at]]:
                    raise self.refused(f"column {column} is set twice before it")
            where = self._where()
            returning = self._returning()
        return Update(table, sets, where, returning)

    def _set(self) -> tuple[str, Value | Default]:
        column = self.name("a column")
        self.expect("=")
        return column, self._settable()

    def _delete(self) -> Delete:
        with self.one_table():
            self.expect_word("delete")
            self.expect_word("from")
            table = self.table()
            where = self._where()
            returning = self._returning()
        return Delete(table, where, returning)

    def _returning(self) -> tuple[Output, ...]:
        if not self.accept_words("returning"):
            return ()
        return self._outputs()
