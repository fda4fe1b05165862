"""Reading CloudWatch: several metrics of one window of whole periods in one call.

A series holds one value a period, oldest first; it is empty where CloudWatch has no datapoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from mypy_boto3_cloudwatch.type_defs import MetricDataQueryTypeDef

    from oncall.services import Services

type Query = Mapping[str, Any]
"""A ``MetricStat`` or an ``Expression`` as GetMetricData takes it, without its period."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of whole periods."""

    start: datetime
    end: datetime

    @classmethod
    def latest(cls, aws: Services, periods: float) -> Window:
        """Return the latest whole periods."""
        now = aws.clock()
        period = aws.settings.period_seconds
        end = now - timedelta(seconds=now.timestamp() % period)
        return cls(end - timedelta(seconds=periods * period), end)

    def before(self, aws: Services, periods: float) -> Window:
        """Return so many periods right before this window."""
        return Window(
            self.start - timedelta(seconds=periods * aws.settings.period_seconds), self.start
        )


def query(namespace: str, metric: str, statistic: str, **dimensions: str) -> Query:
    """Return a query for one statistic of one metric."""
    return {
        "MetricStat": {
            "Metric": {
                "Namespace": namespace,
                "MetricName": metric,
                "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
            },
            "Stat": statistic,
        }
    }


def read(aws: Services, queries: Mapping[str, Query], window: Window) -> dict[str, Sequence[float]]:
    """Return a series for each query (CloudWatch ``GetMetricData``)."""
    found: dict[str, list[float]] = {name: [] for name in queries}
    for result in _results(aws, queries, window):
        found[result["Id"]] += result["Values"]
    return dict(found)


def greatest(
    aws: Services, function: str, metric: str, window: Window, most: int
) -> dict[str, Sequence[float]]:
    """Return the series of the Lambda functions that lead in a metric, greatest first.

    ``function`` is ``MAX`` or ``SUM``. One Metrics Insights query, whatever the number of
    functions: CloudWatch User Guide, "Metrics Insights query components and syntax".
    """
    found: dict[str, list[float]] = {}
    text = (
        f'SELECT {function}({metric}) FROM SCHEMA("AWS/Lambda", FunctionName) '  # noqa: S608 -- reads metrics; the names are ours
        f"GROUP BY FunctionName ORDER BY {function}() DESC LIMIT {most}"
    )
    for result in _results(aws, {"greatest": {"Expression": text}}, window):
        found.setdefault(result["Label"], []).extend(result["Values"])
    return dict(found)


def _results(aws: Services, queries: Mapping[str, Query], window: Window) -> list[Any]:
    period = aws.settings.period_seconds
    wanted: list[MetricDataQueryTypeDef] = [
        {"Id": name, "MetricStat": {**one["MetricStat"], "Period": period}}  # type: ignore[typeddict-item]  # built from data
        if "MetricStat" in one
        else {"Id": name, "Expression": one["Expression"], "Period": period}
        for name, one in queries.items()
    ]
    pages = (
        aws.client("cloudwatch")
        .get_paginator("get_metric_data")
        .paginate(
            MetricDataQueries=wanted,
            StartTime=window.start,
            EndTime=window.end,
            ScanBy="TimestampAscending",
        )
    )
    return [result for page in pages for result in page["MetricDataResults"]]
