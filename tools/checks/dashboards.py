"""Rules for CloudWatch dashboards: a body that CloudWatch takes, metrics that are published.

CloudWatch draws a metric that there is not as an empty graph, which nobody can tell from a quiet
week. The structure is that of
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator

from tools.checks.finding import Finding
from tools.checks.template import Template, resources
from tools.checks.template_rules import AWS_METRICS, Dimensions

type Widget = Mapping[str, Any]

_TEXT = {"type": "string", "minLength": 1}
_PERIOD = {"type": "integer", "minimum": 1}
_RENDERING = {
    "label": {"type": "string"},
    "id": {"type": "string", "pattern": "^[a-z][A-Za-z0-9_]*$"},
    "expression": _TEXT,
    "stat": _TEXT,
    "period": _PERIOD,
    "yAxis": {"enum": ["left", "right"]},
    "color": {"type": "string", "pattern": "^#[0-9A-Fa-f]{6}$"},
    "visible": {"type": "boolean"},
    "region": _TEXT,
}
_AXIS = {
    "type": "object",
    "properties": {
        "min": {"type": "number"},
        "max": {"type": "number"},
        "label": {"type": "string"},
        "showUnits": {"type": "boolean"},
    },
    "additionalProperties": False,
}
_PROPERTIES: Mapping[str, Mapping[str, Any]] = {
    "custom": {
        "required": ["endpoint"],
        "properties": {
            "endpoint": _TEXT,
            "title": _TEXT,
            "params": {},
            "updateOn": {
                "type": "object",
                "properties": {
                    when: {"type": "boolean"} for when in ("refresh", "resize", "timeRange")
                },
                "additionalProperties": False,
            },
        },
    },
    "alarm": {
        "required": ["alarms"],
        "properties": {
            "alarms": {"type": "array", "minItems": 1, "maxItems": 100, "items": _TEXT},
            "title": _TEXT,
            "sortBy": {"enum": ["default", "stateUpdatedTimestamp", "timestamp"]},
            "states": {"type": "array", "items": {"enum": ["ALARM", "INSUFFICIENT_DATA", "OK"]}},
        },
    },
    "metric": {
        "required": ["metrics", "region"],
        "properties": {
            "metrics": {
                "type": "array",
                "minItems": 1,
                "maxItems": 500,
                "items": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "anyOf": [
                            _TEXT,
                            {
                                "type": "object",
                                "properties": _RENDERING,
                                "additionalProperties": False,
                            },
                        ]
                    },
                },
            },
            "region": _TEXT,
            "title": _TEXT,
            "view": {"enum": ["timeSeries", "singleValue", "gauge", "bar", "pie", "table"]},
            "stacked": {"type": "boolean"},
            "stat": _TEXT,
            "period": _PERIOD,
            "yAxis": {
                "type": "object",
                "properties": {"left": _AXIS, "right": _AXIS},
                "additionalProperties": False,
            },
        },
    },
    "text": {"required": ["markdown"], "properties": {"markdown": _TEXT}},
}
_GRID = 24
_BODY = {
    "type": "object",
    "required": ["widgets"],
    "additionalProperties": False,
    "properties": {
        "start": {"type": "string", "pattern": "^-P"},
        "end": _TEXT,
        "periodOverride": {"enum": ["auto", "inherit"]},
        "widgets": {
            "type": "array",
            "maxItems": 500,
            "items": {
                "type": "object",
                "required": ["type", "properties"],
                "additionalProperties": False,
                "properties": {
                    "type": {"enum": list(_PROPERTIES)},
                    "x": {"type": "integer", "minimum": 0, "maximum": _GRID - 1},
                    "y": {"type": "integer", "minimum": 0},
                    "width": {"type": "integer", "minimum": 1, "maximum": _GRID},
                    "height": {"type": "integer", "minimum": 1, "maximum": 1000},
                    "properties": {"type": "object"},
                },
            },
        },
    },
}
_SEARCH = re.compile(
    r"SEARCH\('\{(?P<names>[^}]+)\} MetricName=\"(?P<metric>\w+)\"[^']*', '\w+', \d+\)"
)
_REFERENCE = re.compile(r"\$\{([A-Za-z0-9]+)(?:\.\w+)?\}")


def check_dashboards(
    translated: Template, own_metrics: Mapping[str, Mapping[str, set[Dimensions]]]
) -> list[Finding]:
    """Check every dashboard of a template; what it refers to stays as ``${Name}`` in the body."""
    findings: list[Finding] = []
    for name, properties in resources(translated, "AWS::CloudWatch::Dashboard").items():
        body = properties["DashboardBody"]
        text = body["Fn::Sub"] if isinstance(body, Mapping) else body
        try:
            document = json.loads(text)
        except ValueError as error:
            findings.append(Finding("dashboard-json", name, str(error)))
            continue
        findings += _structure(name, document) or [
            *_places(name, document["widgets"]),
            *_metrics(name, document["widgets"], own_metrics),
            *_references(name, document["widgets"], translated),
        ]
    return sorted(findings)


def _structure(name: str, document: Any) -> list[Finding]:
    wrong = [*Draft202012Validator(_BODY).iter_errors(document)]
    for index, widget in enumerate([] if wrong else document["widgets"]):
        schema = {
            "type": "object",
            "additionalProperties": False,
            **_PROPERTIES[widget["type"]],
        }
        for error in Draft202012Validator(schema).iter_errors(widget["properties"]):
            error.path.extendleft(["properties", index, "widgets"])
            wrong.append(error)
    return [
        Finding("dashboard-schema", f"{name}: {'.'.join(map(str, one.path))}", one.message)
        for one in wrong
    ]


def _places(name: str, widgets: list[Widget]) -> Iterator[Finding]:
    taken: dict[tuple[int, int], str] = {}
    for widget in widgets:
        title = _title(widget)
        if widget.get("x", 0) + widget.get("width", 6) > _GRID:
            yield Finding("dashboard-place", name, f"{title!r} is wider than the grid")
        for x in range(widget.get("x", 0), widget.get("x", 0) + widget.get("width", 6)):
            for y in range(widget.get("y", 0), widget.get("y", 0) + widget.get("height", 6)):
                other = taken.setdefault((x, y), title)
                if other != title:
                    yield Finding("dashboard-place", name, f"{title!r} lies on {other!r}")
                    return


def _title(widget: Widget) -> str:
    return str(widget["properties"].get("title", widget["type"]))


def _metrics(
    name: str,
    widgets: list[Widget],
    own_metrics: Mapping[str, Mapping[str, set[Dimensions]]],
) -> Iterator[Finding]:
    published = {**AWS_METRICS, **own_metrics}
    for widget in widgets:
        where = f"{name}: {_title(widget)}"
        for row in widget["properties"].get("metrics", []):
            parsed = _named(row)
            if parsed is None:
                yield Finding("dashboard-metric", where, f"cannot be read: {json.dumps(row)}")
                continue
            namespace, metric, dimensions = parsed
            if dimensions not in published.get(namespace, {}).get(metric, set()):
                by = ", ".join(sorted(dimensions)) or "nothing"
                yield Finding("dashboard-metric", where, f"nobody publishes {metric} by {by}")


def _named(row: list[Any]) -> tuple[str, str, Dimensions] | None:
    """Return namespace, metric and the names of its dimensions; ``None`` for anything else."""
    words = [part for part in row if isinstance(part, str)]
    if words:
        namespace, metric, *pairs = words
        return namespace, metric, frozenset(pairs[::2])
    found = _SEARCH.fullmatch(str(row[0].get("expression", "")))
    if found is None:
        return None
    namespace, *dimensions = found["names"].split(",")
    return namespace, found["metric"], frozenset(dimensions)


def _references(name: str, widgets: list[Widget], translated: Template) -> Iterator[Finding]:
    """Find what is shown and is not there, and alarms of the stack that nobody would see."""
    known = translated["Resources"]
    shown: set[str] = set()
    for widget in widgets:
        properties = widget["properties"]
        for kind, values in (
            ("AWS::Lambda::Function", [properties["endpoint"]] if "endpoint" in properties else []),
            ("AWS::CloudWatch::Alarm", properties.get("alarms", [])),
        ):
            for value in values:
                found = _REFERENCE.fullmatch(value)
                one = found[1] if found else ""
                shown.add(one)
                if known.get(one, {}).get("Type") != kind:
                    yield Finding("dashboard-unknown", name, f"{value} is no {kind}")
    for alarm in resources(translated, "AWS::CloudWatch::Alarm").keys() - shown:
        yield Finding("dashboard-alarm", name, f"it does not show the alarm {alarm}")
