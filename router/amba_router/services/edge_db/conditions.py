"""Conditions and values, as they stand in a WHERE. Each comparison is of a column with a value."""

from __future__ import annotations

from abc import abstractmethod

from amba_router.rows.statements import (
    And,
    AnyOfArray,
    Comparison,
    Condition,
    Constant,
    Flag,
    InList,
    InSelect,
    IsNull,
    Not,
    NotTaken,
    Now,
    Operator,
    Or,
    Param,
    Select,
    Truth,
    Value,
)
from amba_router.services.edge_db.lexer import Kind
from amba_router.services.edge_db.reader import Reader
from amba_runtime import limits

_COMPARED = {op.value: op for op in Operator if op not in (Operator.LIKE, Operator.ILIKE)}
_TURNED = {
    Operator.EQ: Operator.EQ,
    Operator.NE: Operator.NE,
    Operator.GT: Operator.LT,
    Operator.GTE: Operator.LTE,
    Operator.LT: Operator.GT,
    Operator.LTE: Operator.GTE,
}
_TYPES = {
    ("uuid",): "uuid",
    ("text",): "text",
    ("varchar",): "text",
    ("character", "varying"): "text",
    ("int",): "integer",
    ("int4",): "integer",
    ("integer",): "integer",
    ("int8",): "bigint",
    ("bigint",): "bigint",
    ("numeric",): "numeric",
    ("decimal",): "numeric",
    ("bool",): "boolean",
    ("boolean",): "boolean",
    ("timestamptz",): "timestamptz",
    ("timestamp", "with", "time", "zone"): "timestamptz",
    ("date",): "date",
    ("json",): "jsonb",
    ("jsonb",): "jsonb",
    ("vector",): "vector",
}
"""Names of types in a cast; the longest that fits counts."""


class Conditions(Reader):
    """Reads what has a truth, and what has a value."""

    def __init__(self, sql: str) -> None:
        super().__init__(sql)
        self._comparisons = 0

    @abstractmethod
    def select(self) -> Select:
        """A whole SELECT."""

    def condition(self) -> Condition:
        """Parts with OR between; AND binds closer, NOT closer still."""
        parts = [self._all()]
        while self.accept_words("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _all(self) -> Condition:
        parts = [self._one()]
        while self.accept_words("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self) -> Condition:
        if self.accept_words("not"):
            with self.deeper():
                return Not(self._one())
        if self.accept("("):
            with self.deeper():
                found = self.condition()
            self.expect(")")
            return found
        self._comparisons += 1
        if self._comparisons > limits.EDGE_DB_CONDITIONS.value:
            most = limits.EDGE_DB_CONDITIONS.value
            raise self.refused(f"{most} comparisons are the most in a statement")
        if self.at_name() and not self.is_call("now"):
            return self._of_column(self.column())
        if self.is_words("exists"):
            raise self.refused("compare a column with a value")
        value = self.value()
        return self._of_value(value)

    def _of_value(self, value: Value) -> Condition:
        """`value = column` is `column = value`."""
        operator = self._operator()
        if operator is None:
            if isinstance(value, Constant) and isinstance(value.value, bool):
                return Truth(value.value)
            raise self.refused("a comparison with a column belongs here")
        if not self.at_name():
            raise self.refused("one side of a comparison is a column")
        return Comparison(self.column(), _TURNED[operator], value)

    def _operator(self) -> Operator | None:
        token = self.token
        if token.kind is not Kind.SIGN or token.text not in _COMPARED:
            return None
        self.skip()
        return _COMPARED[token.text]

    def _of_column(self, column: str) -> Condition:
        operator = self._operator()
        if operator is not None:
            if operator is Operator.EQ and (self.is_words("any") or self.is_words("some")):
                return self._any(column)
            return Comparison(column, operator, self.value())
        if self.accept_words("is"):
            negated = self.accept_words("not")
            self.expect_word("null")
            return _negated(IsNull(column), negated)
        negated = self.accept_words("not")
        found = self._of_word(column)
        if found is None:
            if negated:
                raise self.refused("IN, BETWEEN, LIKE or ILIKE belongs here")
            return Flag(column)
        return _negated(found, negated)

    def _of_word(self, column: str) -> Condition | None:
        if self.accept_words("in"):
            return self._in(column)
        if self.accept_words("between"):
            low = self.value()
            self.expect_word("and")
            high = self.value()
            above = Comparison(column, Operator.GTE, low)
            return And((above, Comparison(column, Operator.LTE, high)))
        for operator in (Operator.LIKE, Operator.ILIKE):
            if self.accept_words(operator.lower()):
                pattern = self.value()
                if self.is_words("escape"):
                    raise self.refused("the backslash is what escapes")
                return Comparison(column, operator, pattern)
        return None

    def _in(self, column: str) -> Condition:
        self.expect("(")
        with self.deeper():
            if self.is_words("select"):
                found: Condition = InSelect(column, self.select())
            else:
                found = InList(column, self.several(self.value, limits.COLLECTION_FILTER_IN.value))
        self.expect(")")
        return found

    def _any(self, column: str) -> Condition:
        self.skip()
        self.expect("(")
        with self.deeper():
            if self.is_words("select"):
                found: Condition = InSelect(column, self.select())
            else:
                array = self.value()
                if not isinstance(array, Param):
                    raise self.refused("the array of ANY is a parameter")
                found = AnyOfArray(column, array)
        self.expect(")")
        return found

    # values

    def value(self) -> Value:
        """A parameter, a constant, the time; with casts."""
        if self.accept_words("cast"):
            self.expect("(")
            with self.deeper():
                inner = self.value()
            self.expect_word("as")
            found = self._cast(inner, self._type())
            self.expect(")")
        else:
            found = self._plain()
        while self.accept("::"):
            found = self._cast(found, self._type())
        return found

    def casts(self) -> None:
        """Take casts that change nothing: of a count, which is a number already."""
        while self.accept("::"):
            at = self.token
            if self._type() not in ("integer", "bigint", "numeric"):
                raise NotTaken("a count is a number", at.position)

    def _cast(self, value: Value, type_: str) -> Value:
        if isinstance(value, Param):
            return Param(value.index, type_)
        return Constant(value.value, type_) if isinstance(value, Constant) else value

    def _type(self) -> str:
        for words, type_ in _TYPES.items():
            if self.accept_words(*words):
                if self.is_sign("[", "]"):
                    self.skip(2)
                    return f"{type_}[]"
                return type_
        raise self.refused("the type of a column belongs here")

    def _plain(self) -> Value:
        token = self.token
        if token.kind is Kind.PARAM:
            return self._param()
        if token.kind is Kind.TEXT:
            return Constant(self.skip().text)
        if token.kind is Kind.NUMBER:
            return Constant(_number(self.skip().text))
        if self.accept("-"):
            if self.token.kind is not Kind.NUMBER:
                raise self.refused("a number belongs here")
            return Constant(-_number(self.skip().text))
        for word, constant in (("null", None), ("true", True), ("false", False)):
            if self.accept_words(word):
                return Constant(constant)
        if self.accept_words("current_timestamp"):
            return Now()
        if self.is_call("now"):
            self.skip(2)
            self.expect(")")
            return Now()
        raise self.refused("a parameter or a plain value belongs here")

    def _param(self) -> Param:
        digits = self.token.text.lstrip("0")
        most = limits.EDGE_DB_PARAMS.value
        if not digits or len(digits) > len(str(most)) or int(digits) > most:
            raise self.refused(f"parameters are $1 to ${most}")
        self.skip()
        self.parameters = max(self.parameters, int(digits))
        return Param(int(digits) - 1)


def _negated(condition: Condition, negated: bool) -> Condition:
    return Not(condition) if negated else condition


def _number(text: str) -> int | float:
    """A whole number of 64 bits stays one."""
    if text.isdigit() and len(text) < 20:
        return int(text)
    return float(text)
