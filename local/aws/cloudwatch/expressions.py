"""Metric math: a small, safe parser and evaluator of CloudWatch's expressions.

Semantics: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html.
Understood: numbers, ids, ``+ - * / ^``, comparisons, AND OR NOT, METRICS() and the functions in
``_FUNCTIONS``. Anything else (SEARCH, ANOMALY_DETECTION_BAND …) raises ExpressionError; SELECT is
for ``insights``.

A time series is a dict from a period's start (epoch seconds) to its value; a period without data
has no key. Arithmetic between two series keeps the periods that both have.
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

type TimeSeries = dict[int, float]
type Value = float | TimeSeries | list[TimeSeries]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<string>\"[^\"]*\"|'[^']*')|(?P<op>\|\||&&|==|!=|<=|>=|[-+*/^(),<>\[\]]))"
)


class ExpressionError(ValueError):
    """The expression cannot be evaluated; the message says why."""


@dataclass
class Scope:
    """What an expression may see: the metrics by id, how to look ids up, and the time grid."""

    lookup: Callable[[str], Value]
    metrics: Callable[[], list[TimeSeries]]
    grid: Sequence[int]
    period: int


def evaluate(expression: str, scope: Scope) -> Value:
    """Evaluate one expression. Raises ExpressionError."""
    tokens = _tokens(expression)
    parser = _Parser(tokens, scope, expression)
    value = parser.disjunction()
    if parser.at != len(tokens):
        parser.fail(f"unexpected {tokens[parser.at]!r}")
    return value


def as_series(value: Value, scope: Scope) -> TimeSeries:
    """Turn a result into one time series: a number repeats over the grid."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list):
        raise ExpressionError("the expression gives several time series, where one is needed")
    return dict.fromkeys(scope.grid, value)


def _tokens(expression: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    text = expression.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"cannot read {text[position:]!r} in {expression!r}")
        tokens.append(match.group().strip())
        position = match.end()
    if not tokens:
        raise ExpressionError("the expression is empty")
    return tokens


class _Parser:
    """Recursive descent, evaluating on the way."""

    def __init__(self, tokens: list[str], scope: Scope, text: str) -> None:
        self.tokens, self.scope, self.text, self.at = tokens, scope, text, 0
        self.depth = 0

    def fail(self, why: str) -> NoReturn:
        raise ExpressionError(f"{why} in {self.text!r}")

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        if self.peek().upper() in wanted:
            self.at += 1
            return self.tokens[self.at - 1].upper()
        return ""

    def expect(self, token: str) -> None:
        if not self.take(token):
            self.fail(f"expected {token!r}, found {self.peek() or 'the end'!r}")

    def disjunction(self) -> Value:
        self.depth += 1
        if self.depth > 50:  # noqa: PLR2004 -- far below Python's recursion limit
            self.fail("nested too deeply")
        value = self.conjunction()
        while self.take("OR", "||"):
            value = _apply(_truth(lambda a, b: bool(a or b)), value, self.conjunction())
        self.depth -= 1
        return value

    def conjunction(self) -> Value:
        value = self.comparison()
        while self.take("AND", "&&"):
            value = _apply(_truth(lambda a, b: bool(a and b)), value, self.comparison())
        return value

    def comparison(self) -> Value:
        value = self.addition()
        while operator := self.take(*_COMPARISONS):
            value = _apply(_truth(_COMPARISONS[operator]), value, self.addition())
        return value

    def addition(self) -> Value:
        value = self.product()
        while operator := self.take("+", "-"):
            value = _apply(_ARITHMETIC[operator], value, self.product())
        return value

    def product(self) -> Value:
        value = self.unary()
        while operator := self.take("*", "/"):
            value = _apply(_ARITHMETIC[operator], value, self.unary())
        return value

    def unary(self) -> Value:
        if self.take("-"):
            return _apply(_ARITHMETIC["*"], -1.0, self.unary())
        if self.take("NOT"):
            return _apply(_truth(lambda a, b: a == b), self.unary(), 0.0)
        value = self.primary()
        if self.take("^"):
            value = _apply(_ARITHMETIC["^"], value, self.unary())
        return value

    def primary(self) -> Value:
        token = self.peek()
        if self.take("("):
            value = self.disjunction()
            self.expect(")")
            return value
        if self.take("["):
            return self.array()
        self.at += 1
        if token[:1].isdigit() or token[:1] == ".":
            return float(token)
        if not token or not (token[0].isalpha() or token[0] == "_"):
            self.fail(f"unexpected {token or 'end'!r}")
        if self.peek() == "(":
            return self.call(token)
        return self.scope.lookup(token)

    def array(self) -> list[TimeSeries]:
        members: list[TimeSeries] = []
        while True:
            value = self.disjunction()
            members.extend(value if isinstance(value, list) else [as_series(value, self.scope)])
            if not self.take(","):
                break
        self.expect("]")
        return members

    def call(self, name: str) -> Value:
        function = _FUNCTIONS.get(name.upper())
        if function is None:
            self.fail(f"function {name} is not supported here")
        self.expect("(")
        arguments: list[Any] = []
        while not self.take(")"):
            word = self.peek().upper()
            if name.upper() == "FILL" and word in ("REPEAT", "LINEAR"):
                self.at += 1
                arguments.append(word)
            elif self.peek()[:1] in ("'", '"'):
                self.fail("strings are not supported here")
            else:
                arguments.append(self.disjunction())
            if not self.take(",") and self.peek() != ")":
                self.fail(f"expected ',' or ')', found {self.peek() or 'the end'!r}")
        try:
            return function(self.scope, *arguments)
        except TypeError as error:
            raise ExpressionError(f"wrong arguments for {name} in {self.text!r}") from error


def _truth(test: Callable[[float, float], bool]) -> Callable[[float, float], float]:
    return lambda a, b: 1.0 if test(a, b) else 0.0


def _divide(a: float, b: float) -> float:
    # CloudWatch drops a datapoint that is not a number; NaN is filtered out in _apply.
    return a / b if b else math.nan


def _power(a: float, b: float) -> float:
    try:
        result = a**b
    except (OverflowError, ZeroDivisionError):
        return math.nan
    return float(result) if not isinstance(result, complex) else math.nan


_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "^": _power,
}
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
}


def _apply(operate: Callable[[float, float], float], left: Value, right: Value) -> Value:
    if isinstance(left, list):
        return [_one(_apply(operate, member, right)) for member in left]
    if isinstance(right, list):
        return [_one(_apply(operate, left, member)) for member in right]
    if isinstance(left, dict) and isinstance(right, dict):
        pairs = {at: operate(value, right[at]) for at, value in left.items() if at in right}
    elif isinstance(left, dict) and not isinstance(right, dict):
        pairs = {at: operate(value, right) for at, value in left.items()}
    elif isinstance(right, dict) and not isinstance(left, dict):
        pairs = {at: operate(left, value) for at, value in right.items()}
    else:
        return operate(left, right)  # type: ignore[arg-type]  # both are numbers here
    return {at: value for at, value in pairs.items() if math.isfinite(value)}


def _one(value: Value) -> TimeSeries:
    if not isinstance(value, dict):
        raise ExpressionError("an array may hold time series only")
    return value


def _reduce(fold: Callable[[Sequence[float]], float]) -> Callable[..., Value]:
    """SUM, AVG, MIN, MAX: over time for one series, across the series for an array."""

    def reduced(_scope: Scope, *values: Value) -> Value:
        if len(values) == 1 and isinstance(values[0], dict):
            found = list(values[0].values())
            return fold(found) if found else math.nan
        numbers = [value for value in values if isinstance(value, int | float)]
        members: list[TimeSeries] = []
        for value in values:
            if isinstance(value, list):
                members.extend(value)
            elif isinstance(value, dict):
                members.append(value)
        if not members:
            return fold(numbers)
        moments = sorted({at for member in members for at in member})
        return {
            at: fold([member[at] for member in members if at in member] + numbers) for at in moments
        }

    return reduced


def _each(change: Callable[[float], float]) -> Callable[..., Value]:
    def changed(_scope: Scope, value: Value) -> Value:
        return _apply(lambda a, _b: change(a), value, 0.0)

    return changed


def _fill(scope: Scope, value: Value, how: Any) -> Value:
    if isinstance(value, list):
        return [_one(_fill(scope, member, how)) for member in value]
    if not isinstance(value, dict):
        return value
    found = {at: value[at] if at in value else _filler(value, how, at) for at in scope.grid}
    return {at: number for at, number in sorted((found | value).items()) if number is not None}


def _filler(series: TimeSeries, how: Any, at: int) -> float | None:
    """Return what fills one missing moment, or None to leave it missing."""
    if isinstance(how, dict):
        return how.get(at)
    if how not in ("REPEAT", "LINEAR"):
        return float(how)
    low = max((k for k in series if k < at), default=None)
    high = min((k for k in series if k > at), default=None)
    if low is None:
        return None
    if how == "REPEAT":
        return series[low]
    if high is None:
        return None
    return series[low] + (at - low) / (high - low) * (series[high] - series[low])


def _if(_scope: Scope, condition: Value, yes: Value, no: Value | None = None) -> Value:
    def pick(value: Value | None, at: int) -> float | None:
        if isinstance(value, dict):
            return value.get(at)
        if isinstance(value, list):
            raise ExpressionError("IF takes time series and numbers, not arrays")
        return value

    if isinstance(condition, int | float):
        chosen = yes if condition else no
        return chosen if chosen is not None else {}
    if isinstance(condition, list):
        raise ExpressionError("IF takes time series and numbers, not arrays")
    picked = {at: pick(yes if met else no, at) for at, met in condition.items()}
    return {at: value for at, value in picked.items() if value is not None}


def _rate(_scope: Scope, value: Value) -> Value:
    """Difference to the previous datapoint, per second between the two."""
    if isinstance(value, list):
        return [_one(_rate(_scope, member)) for member in value]
    if not isinstance(value, dict):
        raise ExpressionError("RATE takes a time series")
    moments = sorted(value)
    return {
        at: (value[at] - value[before]) / (at - before)
        for before, at in itertools.pairwise(moments)
    }


def _diff(_scope: Scope, value: Value) -> Value:
    if isinstance(value, list):
        return [_one(_diff(_scope, member)) for member in value]
    if not isinstance(value, dict):
        raise ExpressionError("DIFF takes a time series")
    moments = sorted(value)
    return {at: value[at] - value[before] for before, at in itertools.pairwise(moments)}


def _running_sum(_scope: Scope, value: Value) -> Value:
    if not isinstance(value, dict):
        raise ExpressionError("RUNNING_SUM takes a time series")
    total = 0.0
    running: TimeSeries = {}
    for at in sorted(value):
        total += value[at]
        running[at] = total
    return running


_FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "ABS": _each(abs),
    "AVG": _reduce(lambda found: sum(found) / len(found)),
    "CEIL": _each(lambda value: float(math.ceil(value))),
    "DIFF": _diff,
    "FILL": _fill,
    "FLOOR": _each(lambda value: float(math.floor(value))),
    "IF": _if,
    "MAX": _reduce(max),
    "METRICS": lambda scope: scope.metrics(),
    "MIN": _reduce(min),
    "PERIOD": lambda scope, _metric: float(scope.period),
    "RATE": _rate,
    "RUNNING_SUM": _running_sum,
    "SUM": _reduce(sum),
}
