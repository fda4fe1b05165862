"""Alarms: reading what CloudWatch says of them, naming their runs and deciding what to do.

Pure. An event only announces that an alarm has changed; what is decided on is the alarm as
``DescribeAlarms`` shows it afterwards, so that an event and the sweep (``reconcile``) decide alike
and name the same run for the same state period.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from oncall.contract import MODES, target_of_alarm
from oncall.errors import BadInput
from oncall.targets import arn_of
from oncall.times import iso, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.contract import Contract

RUNBOOK_TAG = "runbook"
MODE_TAG = "runbook:mode"
TARGET_TAG = "runbook:target"
SAME_PERIOD = timedelta(seconds=5)
"""An event's time and ``StateTransitionedTimestamp`` may differ so much and mean one transition;
CloudWatch evaluates an alarm every 10 seconds at the most often."""

_SLUG_LENGTH = 36
_NAME_LENGTH = 80  # StartExecution: 1-80 characters
_CROSSED = re.compile(
    r"datapoints? \[(?P<value>[\d.eE+-]+) .*?threshold \((?P<threshold>[\d.eE+-]+)\)"
)
_REASON_LENGTH = 300
_DESCRIPTION_LENGTH = 500
_EXAMPLE = (
    '{"source": "aws.cloudwatch", "detail-type": "CloudWatch Alarm State Change", '
    '"resources": ["arn:aws:cloudwatch:us-east-1:123456789012:alarm:orders-backlog"], '
    '"detail": {"alarmName": "orders-backlog", "state": {"value": "ALARM", '
    '"timestamp": "2026-01-31T03:02:11.123+0000"}, "previousState": {"value": "OK"}}}'
)


@dataclass(frozen=True, slots=True)
class StateChange:
    """What a "CloudWatch Alarm State Change" event announces."""

    name: str
    arn: str
    state: str
    previous: str
    """``OK ALARM INSUFFICIENT_DATA``"""
    at: datetime


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm as CloudWatch shows it now: a metric, metric-math or composite alarm."""

    name: str
    arn: str
    state: str
    changed_at: datetime
    """When it went into this state."""
    reason: str
    description: str
    metrics: tuple[Mapping[str, Any], ...]
    """In the shape of an event's ``configuration.metrics``; none for a composite alarm."""
    silenced: str
    """Why its actions are not carried out now, ``""`` when they are."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """Start nothing, and count it under ``reason``."""

    reason: str
    """``not_alarm from_insufficient_data untagged late silenced duplicate joined misconfigured``"""
    text: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start a run."""

    runbook: str
    name: str
    """The execution's and the incident's name: one for each state period of the alarm."""
    target: str
    target_arn: str
    mode: str
    """``""``: the contract decides."""


class Misconfigured(BadInput):
    """An alarm's tags or dimensions do not say what to run; the sentence says what to fix."""


class ReadTooEarly(Exception):  # noqa: N818 -- says what happened; the function's retry is the remedy
    """``DescribeAlarms`` does not show a transition yet that an event has announced."""


def read_event(event: Mapping[str, Any]) -> StateChange:
    """Read an event (CloudWatch User Guide, "Alarm events and EventBridge").

    Raises ``BadInput`` for anything else.
    """
    try:
        detail = event["detail"]
        return StateChange(
            name=str(detail["alarmName"]),
            arn=str(event["resources"][0]),
            state=str(detail["state"]["value"]),
            previous=str(detail.get("previousState", {}).get("value", "")),
            at=parse(str(detail["state"]["timestamp"])),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise BadInput(
            f"event: it is no CloudWatch Alarm State Change ({type(error).__name__}: {error}). "
            f"Give for example {_EXAMPLE}."
        ) from error


def read_alarm(described: Mapping[str, Any]) -> Alarm:
    """Read a ``MetricAlarm`` or ``CompositeAlarm`` of ``DescribeAlarms``."""
    # Alarms that have not changed since AWS introduced StateTransitionedTimestamp lack it.
    changed_at = described.get("StateTransitionedTimestamp") or described["StateUpdatedTimestamp"]
    silenced = ""
    if not described.get("ActionsEnabled", True):
        silenced = "its actions are disabled"
    elif described.get("ActionsSuppressedBy"):
        reason = described.get("ActionsSuppressedReason", "")
        silenced = f"its actions are suppressed by {described['ActionsSuppressedBy']}" + (
            f" ({reason})" if reason else ""
        )
    return Alarm(
        name=described["AlarmName"],
        arn=described["AlarmArn"],
        state=described["StateValue"],
        changed_at=changed_at.astimezone(UTC),
        reason=described.get("StateReason", ""),
        description=described.get("AlarmDescription", ""),
        metrics=_metrics(described),
        silenced=silenced,
    )


def _metrics(described: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return a metric alarm's metrics as its events show them."""
    queries = described.get("Metrics") or []
    if described.get("MetricName"):
        queries = [{"MetricStat": {"Metric": described}}]
    return tuple(
        {
            "metricStat": {
                "metric": {
                    # What an expression makes of its metrics is the value of none of them.
                    "name": query["MetricStat"]["Metric"].get("MetricName", "")
                    if len(queries) == 1
                    else "",
                    "dimensions": {
                        pair["Name"]: pair["Value"]
                        for pair in query["MetricStat"]["Metric"].get("Dimensions", [])
                    },
                }
            },
            "accountId": query.get("AccountId", ""),
        }
        for query in queries
        if "MetricStat" in query
    )


def unworthy(change: StateChange) -> Ignore | None:
    """Return why an event starts nothing whatever its alarm's tags say, before any is read."""
    if change.state != "ALARM":
        return Ignore("not_alarm", f"Alarm {change.name} went to {change.state}.")
    if change.previous == "INSUFFICIENT_DATA":
        return Ignore(
            "from_insufficient_data",
            f"Alarm {change.name} came from INSUFFICIENT_DATA, as new alarms do; if it stays in "
            f"ALARM, the next sweep starts its run.",
        )
    return None


def outdated(change: StateChange, live: Alarm | None) -> Ignore | None:
    """Return why an event is late, judged by its alarm now.

    Raises ``ReadTooEarly`` when the reading is older than the event: both are only eventually
    consistent.
    """
    if live is None:
        return Ignore("late", f"Alarm {change.name} no longer exists.")
    if live.changed_at < change.at - SAME_PERIOD:
        raise ReadTooEarly(
            f"Alarm {change.name} went to {change.state} at {iso(change.at)}, but is shown as "
            f"{live.state} since {iso(live.changed_at)}; reading it again helps."
        )
    if live.state != "ALARM" or live.changed_at > change.at + SAME_PERIOD:
        return Ignore(
            "late",
            f"Alarm {change.name} has moved on since {iso(change.at)}: it is {live.state} since "
            f"{iso(live.changed_at)}.",
        )
    return None


def decide(live: Alarm, tags: Mapping[str, str], contract: Contract) -> Start | Ignore:
    """Decide what an alarm that is in ALARM starts by its tags and dimensions.

    Raises ``Misconfigured`` with a sentence that says what to fix.
    """
    if live.state != "ALARM":
        return Ignore("late", f"Alarm {live.name} is {live.state}.")
    if live.silenced:
        return Ignore("silenced", f"Alarm {live.name} starts nothing: {live.silenced}.")
    mode = tags.get(MODE_TAG, "")
    if mode and mode not in MODES:
        raise Misconfigured(
            f"Alarm {live.name}: its tag {MODE_TAG} is {mode!r}; set it to one of "
            f"{', '.join(MODES)}, for example {MODE_TAG}=ask, or remove it."
        )
    _, partition, _, region, account, *_ = live.arn.split(":", 5)
    elsewhere = sorted({metric["accountId"] for metric in live.metrics} - {"", account})
    if elsewhere and TARGET_TAG not in tags:
        raise Misconfigured(
            f"Alarm {live.name}: it watches account {elsewhere[0]}, but runbooks act in their own; "
            f"deploy them and tag an alarm there, or name a target here with the tag {TARGET_TAG}."
        )
    key = contract.target_input
    target = target_of_alarm(
        contract, {"configuration": {"metrics": live.metrics}}, tags.get(TARGET_TAG, "")
    )
    if not target:
        raise Misconfigured(
            f"Alarm {live.name}: no single dimension {contract.trigger['dimension']} names the "
            f"{key}; tag the alarm with it, for example "
            f"{TARGET_TAG}={contract.inputs[key]['examples'][0]}."
        )
    try:
        target_arn = arn_of(key, target, partition=partition, region=region, account=account)
    except BadInput as error:
        raise Misconfigured(f"Alarm {live.name}: {error}") from error
    return Start(
        runbook=contract.id,
        name=execution_name(live.arn, live.changed_at),
        target=target,
        target_arn=target_arn,
        mode=mode,
    )


def machine_input(
    contract: Contract, start: Start, live: Alarm, *, storm: str = "", request: str = ""
) -> Mapping[str, Any]:
    """Return the machine's input.

    ``request`` is the id of the Lambda request that starts the run: it leads to its log line, and
    keeps a second delivery of an event from looking like the first one tried again.
    """
    alarm = {"name": live.name, "arn": live.arn, "changed_at": iso(live.changed_at)}
    if live.description:
        alarm["description"] = shortened(live.description, _DESCRIPTION_LENGTH)
    if request:
        alarm["request"] = request
    given: dict[str, Any] = {contract.target_input: start.target}
    if start.mode:
        given["mode"] = start.mode
    given |= {"reason": in_brief(live), "alarm": alarm}
    if storm:
        given["storm"] = storm
    return given


def brief(reason: str, metric: str = "") -> str:
    """Return an alarm's state reason in brief: ``Errors 382, threshold 200``.

    CloudWatch words it "Threshold Crossed: 2 out of the last 3 datapoints [382.0 (…), …] were
    greater than the threshold (200.0) …"; any other reason is only shortened.
    """
    crossed = _CROSSED.search(reason)
    if not crossed:
        return shortened(reason, _REASON_LENGTH)
    value, threshold = float(crossed["value"]), float(crossed["threshold"])
    return f"{metric} {value:.6g}, threshold {threshold:.6g}".strip()


def in_brief(live: Alarm) -> str:
    """Return why an alarm fires, in brief and with its metric's name."""
    return brief(live.reason, _metric(live))


def _metric(live: Alarm) -> str:
    """Return the name of the metric that an alarm watches, ``""`` when it is an expression."""
    named = {
        str(metric["metricStat"]["metric"].get("name", ""))
        for metric in live.metrics
        if "metricStat" in metric
    }
    return named.pop() if len(named) == 1 else ""


def execution_name(alarm_arn: str, changed_at: datetime) -> str:
    """Name the run of one state period of an alarm: at most 62 of ``[0-9A-Za-z-_]``.

    ``orders-backlog-20261123T030211Z-1f0c9a3b``: equal for whoever names it, to the second.
    """
    moment = changed_at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    alarm = alarm_arn.split(":", 6)[-1]
    slug = re.sub(r"[^0-9A-Za-z_]+", "-", alarm)[:_SLUG_LENGTH].strip("-") or "alarm"
    return f"{slug}-{moment}-{digest(f'{alarm_arn} {moment}')}"


def derived_name(name: str, suffix: str) -> str:
    """Append ``-<suffix>`` to an execution's name, shortened where AWS's limit asks for it."""
    whole = f"{name}-{suffix}"
    if len(whole) <= _NAME_LENGTH:
        return whole
    ending = f"-{digest(name)}-{suffix}"
    return f"{name[: _NAME_LENGTH - len(ending)]}{ending}"


def execution_arn(machine_arn: str, name: str) -> str:
    """Return the ARN of an execution by its name, also of a machine's version or alias."""
    parts = machine_arn.split(":")
    return ":".join([*parts[:5], "execution", parts[6], name])


def shortened(text: str, length: int) -> str:
    """Cut ``text`` to ``length`` characters, showing that it was cut."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def digest(text: str) -> str:
    """Return eight characters that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
