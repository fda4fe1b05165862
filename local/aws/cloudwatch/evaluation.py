"""Deciding an alarm's state from datapoints: pure functions.

Rules, with the tables that the unit tests copy:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html and
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

# The tables of the documentation retrieve five datapoints to evaluate three.
EXTRA_PERIODS = 2


class State(StrEnum):
    """An alarm's StateValue."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


@dataclass(frozen=True, slots=True)
class Datapoint:
    """One period: its start (epoch seconds), value and sample count (None for metric math)."""

    start: int
    value: float
    sample_count: float | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What an alarm asks of its datapoints."""

    evaluation_periods: int
    datapoints_to_alarm: int
    comparison: str
    threshold: float
    treat_missing_data: str = "missing"

    def breaches(self, value: float) -> bool:
        """Say whether a value is outside the threshold."""
        return COMPARISONS[self.comparison](value, self.threshold)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state that the datapoints ask for, and why (CloudWatch's wording)."""

    state: State
    reason: str
    evaluated: tuple[Datapoint, ...]  # newest first


COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}
_WORDS = {
    "GreaterThanOrEqualToThreshold": "greater than or equal to",
    "GreaterThanThreshold": "greater than",
    "LessThanThreshold": "less than",
    "LessThanOrEqualToThreshold": "less than or equal to",
}


def decide(rule: Rule, datapoints: Sequence[Datapoint | None]) -> Verdict | None:
    """Return the state for an evaluation range (newest first, None = missing); None keeps it.

    Real datapoints count before missing ones: with at least EvaluationPeriods of them the treatment
    of missing data plays no part; with fewer, every real one counts and only the rest is filled in.
    """
    needed = rule.evaluation_periods
    real = [point for point in datapoints if point is not None]
    used = real[:needed]
    filled = needed - len(used)
    breaching = sum(rule.breaches(point.value) for point in used)
    calm = len(used) - breaching
    minimum = rule.datapoints_to_alarm
    treatment = rule.treat_missing_data if filled else "notBreaching"

    if not used and treatment == "missing":
        reason = f"Insufficient Data: {needed} datapoint{_s(needed)} {_was(needed)} unknown."
        return Verdict(State.INSUFFICIENT_DATA, reason, ())
    if not used and treatment == "ignore":
        return None
    alarming = breaching + (filled if treatment == "breaching" else 0) >= minimum
    if not alarming and treatment in ("missing", "ignore") and not calm:
        # Only breaching and missing ones. Missing treated as missing alarms once the oldest breach
        # is DatapointsToAlarm periods old; until then, and for ignore, the state stays.
        oldest = max(age for age, point in enumerate(datapoints, 1) if point is not None)
        if treatment == "ignore" or oldest < minimum:
            return None
        alarming = True
    state = State.ALARM if alarming else State.OK
    return Verdict(state, _reason(rule, state, used, filled, treatment), tuple(used))


def _reason(
    rule: Rule, state: State, used: Sequence[Datapoint], filled: int, treatment: str
) -> str:
    if not used:
        word = "Breaching" if treatment == "breaching" else "NonBreaching"
        return (
            f"Threshold Crossed: no datapoints were received for {filled} period{_s(filled)} "
            f"and {filled} missing datapoint{_s(filled)} {_was(filled)} treated as [{word}]."
        )
    alarming = state is State.ALARM
    chosen = [point for point in used if rule.breaches(point.value) is alarming] or list(used)
    shown = ", ".join(f"{point.value} ({_moment(point.start)})" for point in chosen)
    total = rule.evaluation_periods
    minimum = rule.datapoints_to_alarm if alarming else total - rule.datapoints_to_alarm + 1
    change = "OK -> ALARM" if alarming else "ALARM -> OK"
    return (
        f"Threshold Crossed: {len(chosen)} out of the last {total} datapoint{_s(total)} [{shown}] "
        f"{_was(len(chosen))} {'' if alarming else 'not '}{_WORDS[rule.comparison]} the threshold "
        f"({rule.threshold}) (minimum {minimum} datapoint{_s(minimum)} for {change} transition)."
    )


def reason_data(
    rule: Rule,
    verdict: Verdict,
    *,
    now: str,
    period: int,
    statistic: str | None,
    unit: str | None,
    iso: Callable[[float], str],
) -> dict[str, Any]:
    """Build StateReasonData: the datapoints that decided, as CloudWatch lists them."""
    points = sorted(verdict.evaluated, key=lambda point: point.start)
    data: dict[str, Any] = {"version": "1.0", "queryDate": now}
    if points:
        data["startDate"] = iso(points[0].start)
    if unit:
        data["unit"] = unit
    if statistic:
        data["statistic"] = statistic
    evaluated = [
        {"timestamp": iso(point.start), "value": point.value}
        | ({"sampleCount": point.sample_count} if point.sample_count is not None else {})
        for point in reversed(points)
    ]
    data |= {
        "period": period,
        "recentDatapoints": [point.value for point in points],
        "threshold": rule.threshold,
        "evaluatedDatapoints": evaluated,
    }
    return data


def _moment(start: int) -> str:
    return datetime.fromtimestamp(start, tz=UTC).strftime("%d/%m/%y %H:%M:%S")


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _was(count: int) -> str:
    return "was" if count == 1 else "were"
