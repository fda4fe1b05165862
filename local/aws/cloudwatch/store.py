"""Datapoints in memory: one sample a second and unit, as CloudWatch keeps them.

CloudWatch keeps statistic sets, not raw values: "CloudWatch stores data about a metric as a series
of data points", periods below 60 seconds stay for three hours and are then rolled up to one minute
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html, Metrics
retention). Percentiles need the raw values, so a sample keeps them with their counts; a statistic
set that was published without them has none, as documented there under Percentiles.

A gauge published every second costs one float; everything else a small tuple.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ministack.core.responses import request_scope
from ministack.services import cloudwatch

HIGH_RESOLUTION_RETENTION_SECONDS = 3 * 3600
RETENTION_SECONDS = 15 * 24 * 3600

# Guards every Series: requests, function threads and the publisher all write.
LOCK = threading.RLock()


@dataclass(frozen=True, slots=True)
class Statistics:
    """What one period says: count, total, low and high, and the values where they are known."""

    count: float
    total: float
    low: float
    high: float
    values: Mapping[float, float] | None

    def get(self, statistic: str) -> float | None:
        """Return a statistic by CloudWatch's name, or None where it cannot be computed.

        Knows SampleCount, Sum, Average, Minimum, Maximum and percentiles such as ``p99`` or
        ``p99.9``. Raises UnsupportedStatisticError for any other name.
        """
        basic = {
            "SampleCount": self.count,
            "Sum": self.total,
            "Average": self.total / self.count,
            "Minimum": self.low,
            "Maximum": self.high,
        }
        if statistic in basic:
            return basic[statistic]
        rank = percentile_rank(statistic)
        if self.values is None or self.low < 0:
            return None
        return _percentile(self.values, rank)

    def merged(self, other: "Statistics") -> "Statistics":
        """Add another sample of the same metric."""
        values: dict[float, float] | None = None
        if self.values is not None and other.values is not None:
            values = dict(self.values)
            for value, count in other.values.items():
                values[value] = values.get(value, 0.0) + count
        return Statistics(
            self.count + other.count,
            self.total + other.total,
            min(self.low, other.low),
            max(self.high, other.high),
            values,
        )


class UnsupportedStatisticError(ValueError):
    """The statistic's name is none that this CloudWatch computes."""


def percentile_rank(statistic: str) -> float:
    """Return 99.9 for ``p99.9``; raise UnsupportedStatisticError for any other statistic."""
    try:
        rank = float(statistic[1:]) if statistic[:1] in ("p", "P") else -1.0
    except ValueError:
        rank = -1.0
    if not 0 <= rank <= 100:  # noqa: PLR2004 -- per cent
        raise UnsupportedStatisticError(
            f"Statistic {statistic!r} is not supported here, use for example 'Sum' or 'p99'."
        )
    return rank


def _percentile(values: Mapping[float, float], rank: float) -> float:
    """Interpolate linearly between the nearest ranks of the weighted values."""
    ordered = sorted(values.items())
    total = sum(count for _, count in ordered)
    position = rank / 100.0 * (total - 1) if total > 1 else 0.0

    def at(index: float) -> float:
        seen = 0.0
        for value, count in ordered:
            seen += count
            if index < seen:
                return value
        return ordered[-1][0]

    low = at(int(position))
    fraction = position - int(position)
    return low + fraction * (at(int(position) + 1) - low) if fraction else low


def _statistics(sample: "float | Statistics") -> Statistics:
    if isinstance(sample, Statistics):
        return sample
    return Statistics(1.0, sample, sample, sample, {sample: 1.0})


class Series:
    """One metric: its dimensions and, by unit, one sample per second.

    It stands in for the list of points that MiniStack keeps per metric, so ``append``, iteration
    and ``[0]`` speak that list's dictionaries.
    """

    __slots__ = ("_by_unit", "dimensions")

    def __init__(self, dimensions: Mapping[str, str]) -> None:
        self.dimensions = dict(dimensions)
        self._by_unit: dict[str, dict[int, float | Statistics]] = {}

    def add(self, second: int, value: float, unit: str = "None") -> None:
        """Add one value."""
        self._merge(second, value, unit)

    def append(self, point: Mapping[str, Any]) -> None:
        """Add a point in MiniStack's shape: Timestamp, Unit, and Value (Count) or _stat."""
        self.dimensions = self.dimensions or dict(point.get("Dimensions") or {})
        second = int(point["Timestamp"])
        unit = point.get("Unit") or "None"
        if (published := point.get("_stat")) is not None:
            self._merge(second, _published_set(published), unit)
        elif (count := float(point.get("Count", 1.0))) == 1.0:
            self._merge(second, float(point["Value"]), unit)
        elif count > 0:
            value = float(point["Value"])
            values = {value: count}
            self._merge(second, Statistics(count, value * count, value, value, values), unit)

    def statistics(self, start: int, end: int, unit: str | None = None) -> Statistics | None:
        """Merge the samples of the seconds [start, end), of every unit unless one is named."""
        with LOCK:
            found: Statistics | None = None
            for samples in self._of(unit):
                inside = (
                    [samples[second] for second in range(start, end) if second in samples]
                    if end - start < len(samples)
                    else [sample for second, sample in samples.items() if start <= second < end]
                )
                for sample in inside:
                    found = found.merged(_statistics(sample)) if found else _statistics(sample)
            return found

    def by_period(
        self, start: int, end: int, period: int, unit: str | None = None
    ) -> dict[int, Statistics]:
        """Merge the seconds [start, end) by period; keys are multiples of the period."""
        with LOCK:
            found: dict[int, Statistics] = {}
            for samples in self._of(unit):
                for second, sample in samples.items():
                    if start <= second < end:
                        bucket = second - second % period
                        known = found.get(bucket)
                        merged = _statistics(sample)
                        found[bucket] = known.merged(merged) if known else merged
            return dict(sorted(found.items()))

    def units(self) -> list[str]:
        """Return the units that were published."""
        return list(self._by_unit)

    def roll_up(self, now: float) -> bool:
        """Apply CloudWatch's retention; say whether anything is left."""
        fine = now - HIGH_RESOLUTION_RETENTION_SECONDS
        oldest = now - RETENTION_SECONDS
        with LOCK:
            for unit, samples in list(self._by_unit.items()):
                for second in [s for s in samples if s < fine and (s % 60 or s < oldest)]:
                    sample = samples.pop(second)
                    if second >= oldest:
                        self._merge(second - second % 60, sample, unit)
                if not samples:
                    del self._by_unit[unit]
            return bool(self._by_unit)

    def _of(self, unit: str | None) -> list[dict[int, float | Statistics]]:
        if unit is None:
            return list(self._by_unit.values())
        return [self._by_unit[unit]] if unit in self._by_unit else []

    def _merge(self, second: int, sample: float | Statistics, unit: str) -> None:
        with LOCK:
            samples = self._by_unit.setdefault(unit, {})
            known = samples.get(second)
            samples[second] = (
                sample if known is None else _statistics(known).merged(_statistics(sample))
            )

    def __len__(self) -> int:
        return sum(len(samples) for samples in self._by_unit.values())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for unit, samples in list(self._by_unit.items()):
            for second, sample in list(samples.items()):
                stats = _statistics(sample)
                published = {
                    "SampleCount": stats.count,
                    "Sum": stats.total,
                    "Minimum": stats.low,
                    "Maximum": stats.high,
                }
                yield {
                    "Timestamp": float(second),
                    "Unit": unit,
                    "Dimensions": self.dimensions,
                    "Value": stats.total / stats.count,
                    "_stat": published,
                }

    def __getitem__(self, index: int) -> dict[str, Any]:
        return list(self)[index] if index else next(iter(self))


def _published_set(published: Mapping[str, Any]) -> Statistics:
    count, total = float(published.get("SampleCount", 0)), float(published.get("Sum", 0))
    low, high = float(published.get("Minimum", 0)), float(published.get("Maximum", 0))
    repeated = low == high and total == low * count
    return Statistics(count, total, low, high, {low: count} if repeated else None)


def series(namespace: str, name: str, dimensions: Mapping[str, str]) -> Series:
    """Return the current account's and region's metric, made on first use."""
    key = (namespace, name, cloudwatch._dims_key(dict(dimensions)))  # noqa: SLF001 -- its key format
    return bucket(key, dimensions)


def bucket(key: tuple[str, str, str], dimensions: Mapping[str, str] | None = None) -> Series:
    """Return the series under MiniStack's own key; replaces its ``_metric_bucket``."""
    with LOCK:
        metrics = cloudwatch._metrics  # noqa: SLF001 -- the store that MiniStack's APIs list
        known = metrics.get(key)
        if isinstance(known, Series):
            return known
        made = Series(dimensions or {})
        for point in known or ():
            made.append(point)
        metrics[key] = made
        return made


def find(namespace: str, name: str, dimensions: Mapping[str, str]) -> Series | None:
    """Return the metric with exactly these dimensions, or None if nothing was published."""
    key = (namespace, name, cloudwatch._dims_key(dict(dimensions)))  # noqa: SLF001 -- its key format
    return bucket(key) if key in cloudwatch._metrics else None  # noqa: SLF001 -- its store


def matching(namespace: str, name: str) -> list[Series]:
    """Return the current account's and region's metrics of this name, whatever their dimensions."""
    keys = [key for key in cloudwatch._metrics if key[:2] == (namespace, name)]  # noqa: SLF001 -- its store
    return [bucket(key) for key in keys]


def roll_up_all(now: float) -> None:
    """Apply retention to every metric of every account and region."""
    for scoped, points in cloudwatch._metrics.all_items():  # noqa: SLF001 -- its store
        if isinstance(points, Series) and not points.roll_up(now):
            cloudwatch._metrics.pop_scoped(*scoped, None)  # noqa: SLF001 -- its store


def put_metric_history(  # noqa: PLR0917 -- a metric is named by these five, in this order
    account: str,
    region: str,
    namespace: str,
    name: str,
    dimensions: Mapping[str, str],
    points: Iterable[tuple[datetime | float, float]],
    *,
    unit: str = "Count",
) -> None:
    """Seed datapoints in the past: pairs of a moment (aware datetime or epoch seconds) and a value.

    PutMetricData takes two weeks back as well, but not one call for a whole history, and it
    refuses the AWS/ namespaces, whose past a scenario needs.
    """
    with request_scope(account, region):
        metric = series(namespace, name, dimensions)
        for moment, value in points:
            epoch = moment.timestamp() if isinstance(moment, datetime) else moment
            metric.add(int(epoch), float(value), unit)


def iso(epoch: float) -> str:
    """Format as CloudWatch does in events and reasons: ``2019-10-02T17:04:40.989+0000``."""
    moment = datetime.fromtimestamp(epoch, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"


def now() -> float:
    """Return the wall clock in epoch seconds (one place to read it)."""
    return time.time()
