"""The graph of an incident: when one is due, what it shows and which moments it marks. Pure.

It is a metric widget as CloudWatch's GetMetricWidgetImage draws it. Structure and limits:
CloudWatch API Reference, "GetMetricWidgetImage: Metric Widget Structure and Syntax"
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Metric-Widget-Structure.html).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from oncall.headline import decided
from oncall.service import ROLES
from oncall.texts import clean, first_sentence, plain
from oncall.times import iso, parse
from oncall.words import tell

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from oncall.incident import Incident
    from oncall.service import Service

PLAN, END = "plan", "end"
MAX_ALT = 1_000
"""Slack: files.getUploadURLExternal, ``alt_txt_too_large``."""
_WIDTH, _HEIGHT = 1000, 420
"""Pixels; CloudWatch draws up to 2,000 each way."""
_PERIODS = (1, 5, 10, 30, 60)
"""Seconds that a period may have besides multiples of a minute."""
_BEFORE = 30
"""Periods shown before the trouble: what it was like when all was well."""
_LONGEST = 180
"""Periods before the run that are shown at most, of an alarm that has stood for long."""
_POINTS = 500
"""Datapoints of a line from which periods are made longer."""
_NEAR = 1 / 25
"""Share of the width within which two marks could not be read beside each other."""
_LABEL = 60
_RED, _BLUE, _GREY, _GREEN = "#d13212", "#0073bb", "#687078", "#1d8102"
_HEALTH_REGION = "us-east-1"
"""Route 53's metrics are there (Route 53 Developer Guide, "Monitoring health checks using
CloudWatch")."""
_COMPARED = {
    "GreaterThanThreshold": "above",
    "GreaterThanOrEqualToThreshold": "from",
    "LessThanThreshold": "below",
    "LessThanOrEqualToThreshold": "up to",
}
_MADE = frozenset({"applied", "put_back", "left", "handed_over"})


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of a graph."""

    namespace: str
    metric: str
    statistic: str
    dimensions: Mapping[str, str]
    label: str
    axis: str = "left"
    """``left right``"""
    region: str = ""
    """``""``: where the graph is asked for."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of the incident."""

    at: datetime
    label: str
    colour: str


@dataclass(frozen=True, slots=True)
class Graph:
    """What to ask CloudWatch for, and what to say of the picture."""

    widget: Mapping[str, Any]
    title: str
    """Stands alone: whose metrics, and of when."""
    alt: str
    """The same for those who do not see the picture, with its marks and what the run has said."""


def due(incident: Incident, shown: Collection[str]) -> str:
    """Return the graph that the thread lacks: ``plan``, ``end`` or ``""``.

    One when a plan is asked about or acted on, for whoever decides or watches, and one at the end
    of a run that has acted or watched. None of a run that ended before it had a plan, none of
    what is no run (a scorecard), and none of a storm and what it gathers: a hundred pictures at
    once help nobody.
    """
    if not incident.plan or not incident.execution or incident.parent:
        return ""
    if incident.status == "open":
        # The question, if there is one, is asked a moment after the plan: it comes first.
        return "" if PLAN in shown or incident.phase == "investigating" else PLAN
    if END in shown:
        return ""
    has_news = any(entry.kind in {"changed", "verified"} for entry in incident.entries)
    return END if has_news or PLAN not in shown else ""


def lines_of(
    declared: Sequence[Mapping[str, str]], trigger: Mapping[str, Any], target: str
) -> list[Line]:
    """Return the lines that a contract's ``graph`` declares for the target of that name."""
    return [
        Line(
            namespace=trigger["namespace"],
            metric=one["metric"],
            statistic=one["statistic"],
            dimensions={trigger["dimension"]: target},
            label=one["label"],
            axis=one.get("axis", "left"),
        )
        for one in declared
    ]


def lines_of_service(service: Service) -> list[Line]:
    """Return a service's requests in both Regions; where its file names none, its health checks."""
    asked = service.requests
    if asked is None:
        return [
            Line(
                "AWS/Route53",
                "HealthCheckStatus",
                "Minimum",
                {"HealthCheckId": check},
                f"health of the {role}",
                region=_HEALTH_REGION,
            )
            for role in ROLES
            for check in service.health_checks[role]
        ]
    return [
        Line(
            asked.namespace,
            metric,
            "Sum",
            asked.dimensions[role],
            f"{what} in {service.regions[role]}",
            region=service.regions[role],
        )
        for metric, what in ((asked.count, "requests"), (asked.errors, "errors"))
        for role in ROLES
    ]


def make(
    incident: Incident,
    lines: Sequence[Line],
    alarm: Mapping[str, Any] | None,
    *,
    period_seconds: int,
    now: datetime,
) -> Graph:
    """Make the graph of an incident as it stands.

    ``alarm`` is a ``MetricAlarm`` of ``DescribeAlarms``: its threshold is drawn where its metric is
    one of the lines. ``period_seconds`` is that of the metrics.
    """
    started = parse(incident.started_at)
    fired = _fired(incident)
    base = timedelta(seconds=period_seconds)
    earliest = max(min(fired or started, started), started - (_LONGEST - _BEFORE) * base)
    start = earliest - _BEFORE * base
    end = parse(incident.closed_at) if incident.closed_at else now
    end = max(end, start + base)
    marks = [mark for mark in _marks(incident, fired) if start <= mark.at <= end]
    threshold = _threshold(alarm, lines)
    what = " and ".join(dict.fromkeys(line.label for line in lines))
    title = f"{clean(incident.target_name, 60)}: {what}, {start:%H:%M} to {end:%H:%M} UTC"
    widget: dict[str, Any] = {
        "title": title,
        "view": "timeSeries",
        "stacked": False,
        "width": _WIDTH,
        "height": _HEIGHT,
        "timezone": "+0000",
        "start": iso(start),
        "end": iso(end),
        "period": _period(period_seconds, (end - start).total_seconds()),
        "legend": {"position": "bottom"},
        "yAxis": _axes(lines),
        "metrics": [_metric(line) for line in lines],
        "annotations": {
            "horizontal": [threshold] if threshold else [],
            "vertical": [
                {"value": iso(mark.at), "label": mark.label, "color": mark.colour}
                for mark in _merged(marks, (end - start) * _NEAR)
            ],
        },
    }
    return Graph(widget, title, _alt(incident, title, threshold, marks))


def _fired(incident: Incident) -> datetime | None:
    """Return when the alarm fired; a pasted event may say anything."""
    alarm = incident.trigger.get("alarm") or {}
    try:
        return parse(str(alarm.get("changed_at", "")))
    except ValueError:
        return None


def _marks(incident: Incident, fired: datetime | None) -> list[Mark]:
    """Return the moments to mark, oldest first."""
    began = Mark(fired, "alarm", _RED) if fired else None
    marks = [began or Mark(parse(incident.started_at), "run started", _GREY)]
    marks += [
        Mark(
            parse(change.recorded_at),
            f"{change.lever} {tell(change.before)} to {tell(change.after)}",
            _BLUE,
        )
        for change in incident.changes
        if change.state in _MADE and change.recorded_at
    ]
    relief = _relief(incident)
    for entry in incident.entries:
        at = parse(entry.at)
        if decided(entry):
            marks.append(Mark(at, decided(entry).lower(), _GREY))
        elif entry.kind == "changed" and "step" in entry.data:
            marks.append(Mark(at, str(entry.data["step"]["sentence"]), _BLUE))
        elif entry.kind == "put_back" and entry.data.get("state", "put_back") == "put_back":
            marks.append(Mark(at, "put back", _GREY))
        elif entry.kind == "paged":
            marks.append(Mark(at, "person called", _RED))
        elif entry.id == relief:
            marks.append(Mark(at, "relief verified", _GREEN))
    return sorted(marks, key=lambda mark: mark.at)


def _relief(incident: Incident) -> str:
    """Return the id of the look that has shown relief: the last before settings went back."""
    if incident.outcome != "resolved":
        return ""
    kinds = [entry.kind for entry in incident.entries]
    before = kinds.index("put_back") if "put_back" in kinds else len(kinds)
    looks = [entry.id for entry in incident.entries[:before] if entry.kind == "verified"]
    return looks[-1] if looks else ""


def _merged(marks: Iterable[Mark], near: timedelta) -> list[Mark]:
    """Make one mark of those that are too near to each other; the first gives time and colour."""
    merged: list[tuple[Mark, dict[str, None]]] = []
    for mark in marks:
        if merged and mark.at - merged[-1][0].at < near:
            merged[-1][1][mark.label] = None
        else:
            merged.append((mark, {mark.label: None}))
    return [Mark(one.at, _short(", ".join(labels)), one.colour) for one, labels in merged]


def _short(text: str) -> str:
    whole = clean(text)
    return whole if len(whole) <= _LABEL else f"{whole[: _LABEL - 1].rstrip()}…"


def _threshold(alarm: Mapping[str, Any] | None, lines: Sequence[Line]) -> dict[str, Any] | None:
    """Return the annotation of an alarm's threshold, if its metric is on the graph."""
    if not alarm or "Threshold" not in alarm:
        return None
    dimensions = {one["Name"]: one["Value"] for one in alarm.get("Dimensions", [])}
    watched = (alarm.get("Namespace"), alarm.get("MetricName"), dimensions)
    for line in lines:
        if (line.namespace, line.metric, dict(line.dimensions)) == watched:
            value = float(alarm["Threshold"])
            compared = _COMPARED.get(str(alarm.get("ComparisonOperator")), "at")
            label = f"alarm {compared} {value:.10g}"
            return {"value": value, "label": label, "color": _RED, "yAxis": line.axis}
    return None


def _period(base: int, seconds: float) -> int:
    """Return a period that CloudWatch takes, long enough for a readable number of datapoints."""
    wanted = max(base, seconds / _POINTS)
    for period in _PERIODS:
        if wanted <= period:
            return period
    return int(-(-wanted // 60) * 60)


def _axes(lines: Sequence[Line]) -> dict[str, Any]:
    axes = {}
    for side in ("left", "right"):
        labels = dict.fromkeys(line.label for line in lines if line.axis == side)
        if labels:
            label = next(iter(labels)) if len(labels) == 1 else ""
            axes[side] = {"min": 0, "showUnits": False} | ({"label": label} if label else {})
    return axes


def _metric(line: Line) -> list[Any]:
    pairs = [text for pair in line.dimensions.items() for text in pair]
    shown = {"stat": line.statistic, "label": line.label, "yAxis": line.axis}
    if line.region:
        shown["region"] = line.region
    return [line.namespace, line.metric, *pairs, shown]


def _alt(
    incident: Incident, title: str, threshold: Mapping[str, Any] | None, marks: Sequence[Mark]
) -> str:
    said = [f"Graph of {title}."]
    if threshold:
        said.append(f"Threshold: {threshold['label']}.")
    said.append(f"Marked: {'; '.join(f'{mark.label} at {mark.at:%H:%M:%S}' for mark in marks)}.")
    said.append(plain(incident.summary or f"{incident.happened} {first_sentence(incident.doing)}"))
    alt = " ".join(said)
    return alt if len(alt) <= MAX_ALT else f"{alt[: MAX_ALT - 1].rstrip()}…"
