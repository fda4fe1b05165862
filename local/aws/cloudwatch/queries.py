"""Answering metric data queries: MetricStat, metric math and Metrics Insights over one time grid.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from local.aws.cloudwatch import insights, store
from local.aws.cloudwatch.expressions import (
    ExpressionError,
    Scope,
    TimeSeries,
    Value,
    as_series,
    evaluate,
)

DEFAULT_PERIOD = 60


def dimensions_of(listed: Sequence[Mapping[str, str]] | None) -> dict[str, str]:
    """Turn the API's list of Name and Value into a mapping."""
    return {each["Name"]: each["Value"] for each in listed or ()}


def period_of(queries: Sequence[Mapping[str, Any]]) -> int:
    """Return the period of a set of queries: the largest that any of them names."""
    named = [int(query["MetricStat"]["Period"]) for query in queries if "MetricStat" in query]
    named += [int(query["Period"]) for query in queries if query.get("Period")]
    return max(named, default=DEFAULT_PERIOD)


@dataclass
class Evaluation:
    """Evaluates queries by id, each once. ``windows`` are the (start, end) of every period wanted.

    The queries' periods align to the epoch for GetMetricData (``aligned``); an alarm's windows end
    at the moment of evaluation instead, because an alarm of five minutes is evaluated every minute
    over the last five.
    """

    queries: Mapping[str, Mapping[str, Any]]
    start: int
    end: int
    period: int
    aligned: bool = True
    labels: dict[str, list[str]] = field(default_factory=dict)
    """The groups of a Metrics Insights query by its id, in the order of its time series."""
    _known: dict[str, Value] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)

    def series(self, query_id: str) -> TimeSeries:
        """Return a query's time series. Raises ExpressionError, UnsupportedStatisticError."""
        return as_series(self.value(query_id), self._scope(query_id))

    def value(self, query_id: str) -> Value:
        """Return a query's value, which for an expression may be a number or an array."""
        if query_id in self._known:
            return self._known[query_id]
        query = self.queries.get(query_id)
        if query is None:
            raise ExpressionError(f"there is no metric with the id {query_id!r}")
        if query_id in self._open:
            raise ExpressionError(f"the expression {query_id!r} refers to itself")
        self._open.append(query_id)
        try:
            if "MetricStat" in query:
                value: Value = self._metric(query["MetricStat"])
            elif insights.is_query(query["Expression"]):
                value = self._insights(query_id, query)
            else:
                value = evaluate(query["Expression"], self._scope(query_id))
        finally:
            self._open.pop()
        self._known[query_id] = value
        return value

    def _scope(self, query_id: str) -> Scope:
        query = self.queries[query_id]
        own = query.get("MetricStat", query).get("Period")
        period = int(own) if own else self.period
        return Scope(self.value, self._metrics, self._grid(period), period)

    def _metrics(self) -> list[TimeSeries]:
        wanted = [name for name, query in self.queries.items() if "MetricStat" in query]
        return [self.series(name) for name in wanted]

    def _grid(self, period: int) -> Sequence[int]:
        first = self.start - self.start % period if self.aligned else self.start
        return range(first, self.end, period)

    def _metric(self, stat: Mapping[str, Any]) -> TimeSeries:
        metric = stat["Metric"]
        known = store.find(
            metric["Namespace"], metric["MetricName"], dimensions_of(metric.get("Dimensions"))
        )
        if known is None:
            return {}
        period = int(stat.get("Period") or self.period)
        found: TimeSeries = {}
        for at, stats in self._statistics(known, period, stat.get("Unit")).items():
            value = stats.get(stat["Stat"])
            if value is not None:
                found[at] = value
        return found

    def _insights(self, query_id: str, query: Mapping[str, Any]) -> Value:
        parsed = insights.parse(query["Expression"])
        if not query.get("Period"):
            raise ExpressionError("a Metrics Insights query needs a Period, such as 60")
        known = store.matching(parsed.namespace, parsed.metric)
        groups = insights.answer(
            parsed,
            [
                (metric.dimensions, self._statistics(metric, int(query["Period"]), None))
                for metric in known
                if parsed.matches(metric.dimensions)
            ],
        )
        if not parsed.group_by:
            return groups.get("", {})
        self.labels[query_id] = list(groups)
        return list(groups.values())

    def _statistics(
        self, known: store.Series, period: int, unit: str | None
    ) -> dict[int, store.Statistics]:
        grid = self._grid(period)
        if self.aligned:
            return known.by_period(grid[0] if grid else self.start, self.end, period, unit)
        windows = ((at, known.statistics(at, at + period, unit)) for at in grid)
        return {at: stats for at, stats in windows if stats is not None}
