"""Metrics Insights: `SELECT MAX(Throttles) FROM SCHEMA("AWS/Lambda", FunctionName) GROUP BY …`.

Syntax: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-metrics-insights-querylanguage.html.
Keywords are in any case, identifiers are not; label values are in single quotation marks, and other
names may be in double ones. Queries by tag (`tag.team`) are not understood.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from local.aws.cloudwatch.expressions import ExpressionError, TimeSeries
from local.aws.cloudwatch.store import Statistics

# What a query returns at most.
MAX_SERIES = 500
_STATISTICS = {
    "AVG": "Average",
    "COUNT": "SampleCount",
    "MAX": "Maximum",
    "MIN": "Minimum",
    "SUM": "Sum",
}
_FUNCTION = "AVG|COUNT|MAX|MIN|SUM"
_NAME = r'(?:"(?:[^"\\]|\\.)+"|[A-Za-z_]\w*)'
_NAMES = rf"{_NAME}(?:\s*,\s*{_NAME})*"
_VALUE = r"'(?:[^'\\]|\\.)*'"
_CONDITION = rf"{_NAME}\s*!?=\s*{_VALUE}"
_SELECT = re.compile(r"\s*SELECT\b", re.IGNORECASE)
_QUERY = re.compile(
    rf"""\s*SELECT\s+(?P<function>{_FUNCTION})\s*\(\s*(?P<metric>{_NAME})\s*\)
    \s+FROM\s+(?:SCHEMA\s*\(\s*(?P<schema>{_NAMES})\s*\)|(?P<namespace>{_NAME}))
    (?:\s+WHERE\s+(?P<where>{_CONDITION}(?:\s+AND\s+{_CONDITION})*))?
    (?:\s+GROUP\s+BY\s+(?P<group>{_NAMES}))?
    (?:\s+ORDER\s+BY\s+(?P<order>{_FUNCTION})\s*\(\s*\)(?:\s+(?P<direction>ASC|DESC))?)?
    (?:\s+LIMIT\s+(?P<limit>\d+))?\s*""",
    re.IGNORECASE | re.VERBOSE,
)
_PARTS = re.compile(rf"({_NAME})\s*(!?=)\s*({_VALUE})")

type Buckets = Mapping[int, Statistics]


@dataclass(frozen=True, slots=True)
class Query:
    """One query; `dimensions` are None where any are good, `order` is empty for that of labels."""

    statistic: str
    metric: str
    namespace: str
    dimensions: frozenset[str] | None
    conditions: tuple[tuple[str, bool, str], ...]
    """Key, whether it must be equal (or must not), value."""
    group_by: tuple[str, ...]
    order: str
    descending: bool
    limit: int

    def matches(self, dimensions: Mapping[str, str]) -> bool:
        """Tell whether a metric with these dimensions is meant."""
        if self.dimensions is not None and self.dimensions != dimensions.keys():
            return False
        return all(
            key in dimensions and (dimensions[key] == value) == equal
            for key, equal, value in self.conditions
        )

    def label(self, dimensions: Mapping[str, str]) -> str:
        """Return the group that a metric belongs to; empty for the only one."""
        return " ".join(dimensions.get(key, "Other") for key in self.group_by)


def is_query(expression: str) -> bool:
    """Tell a query from metric math."""
    return bool(_SELECT.match(expression))


def parse(expression: str) -> Query:
    """Read a query. Raises ExpressionError."""
    found = _QUERY.fullmatch(expression)
    if found is None:
        raise ExpressionError(f"cannot read the query {expression!r}")
    source = _names(found["schema"] or found["namespace"])
    limit = int(found["limit"] or MAX_SERIES)
    if not 1 <= limit <= MAX_SERIES:
        raise ExpressionError(f"LIMIT must be from 1 to {MAX_SERIES}, not {limit}")
    return Query(
        statistic=_STATISTICS[found["function"].upper()],
        metric=_unquoted(found["metric"]),
        namespace=source[0],
        dimensions=frozenset(source[1:]) if found["schema"] else None,
        conditions=tuple(
            (_unquoted(key), operator == "=", _unquoted(value))
            for key, operator, value in _PARTS.findall(found["where"] or "")
        ),
        group_by=_names(found["group"] or ""),
        order=(found["order"] or "").upper(),
        descending=(found["direction"] or "").upper() == "DESC",
        limit=limit,
    )


def answer(
    query: Query, metrics: Sequence[tuple[Mapping[str, str], Buckets]]
) -> dict[str, TimeSeries]:
    """Aggregate metrics (their dimensions and statistics by period) to one time series a group.

    The groups come in the order that the query wants, without those that have no data.
    """
    merged: dict[str, dict[int, Statistics]] = {}
    for dimensions, buckets in metrics:
        group = merged.setdefault(query.label(dimensions), {})
        for at, statistics in buckets.items():
            group[at] = group[at].merged(statistics) if at in group else statistics
    series = {
        label: {at: _value(group[at], query.statistic) for at in sorted(group)}
        for label, group in sorted(merged.items())
        if group
    }
    labels = list(series)
    if query.order:
        labels.sort(key=lambda label: _scalar(query.order, series[label]), reverse=query.descending)
    return {label: series[label] for label in labels[: query.limit]}


def _value(statistics: Statistics, statistic: str) -> float:
    value = statistics.get(statistic)
    assert value is not None  # noqa: S101 -- only percentiles can be unknown
    return value


def _scalar(function: str, series: TimeSeries) -> float:
    values = list(series.values())
    match function:
        case "AVG":
            return sum(values) / len(values)
        case "COUNT":
            return float(len(values))
        case "SUM":
            return sum(values)
    return max(values) if function == "MAX" else min(values)


def _names(listed: str) -> tuple[str, ...]:
    return tuple(_unquoted(name) for name in re.findall(_NAME, listed))


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[:1] in ("'", '"') else text
