"""Retention of datapoints, and reading embedded metric format."""

import pytest

from local.aws.cloudwatch.store import RETENTION_SECONDS, Series, UnsupportedStatisticError

MINUTE = 1_772_334_240  # 2026-03-01T03:04:00Z
HOURS = 3600


def series(*points: tuple[int, float]) -> Series:
    made = Series({"Q": "a"})
    for second, value in points:
        made.add(second, value, "Count")
    return made


def test_seconds_are_rolled_up_to_the_minute_after_three_hours() -> None:
    made = series((MINUTE + 1, 1.0), (MINUTE + 59, 5.0), (MINUTE + 60, 7.0))
    assert made.roll_up(MINUTE + 4 * HOURS)
    first = made.statistics(MINUTE, MINUTE + 60)
    assert first is not None
    assert (first.count, first.total, first.low, first.high) == (2, 6.0, 1.0, 5.0)
    assert made.statistics(MINUTE + 1, MINUTE + 60) is None
    assert len(made) == 2


def test_what_is_younger_stays_and_what_is_too_old_goes() -> None:
    made = series((MINUTE, 1.0), (MINUTE + RETENTION_SECONDS, 2.0))
    assert made.roll_up(MINUTE + RETENTION_SECONDS + 1)
    assert made.by_period(0, 2 * MINUTE, 1).keys() == {MINUTE + RETENTION_SECONDS}
    assert not made.roll_up(MINUTE + 2 * RETENTION_SECONDS + 2)


def test_percentiles_need_the_single_values() -> None:
    made = series(*[(MINUTE, float(value)) for value in range(1, 101)])
    stats = made.statistics(MINUTE, MINUTE + 1)
    assert stats is not None
    assert stats.get("p50") == pytest.approx(50.5)
    assert stats.get("p100") == 100.0
    with pytest.raises(UnsupportedStatisticError, match="'tm99'"):
        stats.get("tm99")
    published = {"SampleCount": 10, "Sum": 50, "Minimum": 1, "Maximum": 9}
    made.append({"Timestamp": MINUTE, "Unit": "Count", "Value": 5.0, "_stat": published})
    merged = made.statistics(MINUTE, MINUTE + 1)
    assert merged is not None
    assert merged.get("p50") is None
    assert merged.get("Maximum") == 100.0


def test_units_are_kept_apart() -> None:
    made = series((MINUTE, 1.0))
    made.add(MINUTE, 50.0, "Seconds")
    seconds = made.statistics(MINUTE, MINUTE + 60, "Seconds")
    assert seconds is not None
    assert seconds.total == 50.0
    every = made.statistics(MINUTE, MINUTE + 60)
    assert every is not None
    assert every.count == 2
