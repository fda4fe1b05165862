"""GetMetricWidgetImage: a metric widget checked, its data read, and its picture drawn.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricWidgetImage.html, and
for the widget "GetMetricWidgetImage: Metric Widget Structure and Syntax"
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Metric-Widget-Structure.html).
Known here: ``timeSeries``, metrics (with ``.`` and ``...`` for what the line before has) and
expressions, of other Regions as well; horizontal and vertical annotations, single and in bands.
Other views are refused, and ``liveData`` and ``theme`` make no difference. What is wrong is listed
by its path, as PutDashboard does (``DashboardValidationMessage``).
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from jsonschema import Draft202012Validator
from ministack.core.responses import get_account_id, get_region, request_scope

from local.aws.cloudwatch import insights, store
from local.aws.cloudwatch.chart import Chart, Curve, Level, Moment, draw
from local.aws.cloudwatch.expressions import ExpressionError
from local.aws.cloudwatch.queries import Evaluation, period_of

MAX_BYTES = 100 * 1024
"""Up to 100 KB uncompressed payload."""
_PNG = ("png", "image/png")
_BASIC = ("SampleCount", "Sum", "Average", "Minimum", "Maximum")
_PALETTE = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")
_ANNOTATION = "#d62728"
_MOMENT = r"^(-P.*|\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d))$"
_COLOUR = {"type": "string", "pattern": "^#[0-9a-fA-F]{6}$"}
_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_SIDE = {"enum": ["left", "right"]}
_PERIOD = {
    "type": "integer",
    "anyOf": [{"enum": [1, 5, 10, 30]}, {"multipleOf": 60, "minimum": 60}],
}
_AXIS = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "label": _TEXT,
        "min": {"type": "number"},
        "max": {"type": "number"},
        "showUnits": _FLAG,
    },
}


def _annotations(value: Mapping[str, Any], fills: Sequence[str], **more: Any) -> dict[str, Any]:
    """Return the schema of an annotations array: each is one line, or a pair that makes a band."""
    one = {
        "type": "object",
        "additionalProperties": False,
        "required": ["value"],
        "properties": {
            "value": value,
            "label": _TEXT,
            "color": _COLOUR,
            "fill": {"enum": [*fills, "none"]},
            "visible": _FLAG,
            **more,
        },
    }
    band = {"type": "array", "items": one, "minItems": 2, "maxItems": 2}
    return {"type": "array", "items": {"anyOf": [one, band]}}


_SCHEMA = Draft202012Validator(
    {
        "type": "object",
        "additionalProperties": False,
        "required": ["metrics"],
        "properties": {
            "metrics": {
                "type": "array",
                "minItems": 1,
                "maxItems": 100,
                "items": {"type": "array", "minItems": 1},
            },
            "annotations": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "horizontal": _annotations({"type": "number"}, ("above", "below"), yAxis=_SIDE),
                    "vertical": _annotations(
                        {"type": "string", "pattern": _MOMENT}, ("before", "after")
                    ),
                },
            },
            "end": {"type": "string", "pattern": _MOMENT},
            "height": {"type": "integer", "minimum": 1, "maximum": 2000},
            "legend": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"position": {"enum": ["bottom", "right", "hidden"]}},
            },
            "liveData": _FLAG,
            "period": _PERIOD,
            "region": _TEXT,
            "stacked": _FLAG,
            "start": {"type": "string", "pattern": _MOMENT},
            "stat": _TEXT,
            "theme": {"enum": ["light", "dark"]},
            "timezone": {"type": "string", "pattern": r"^[+-]\d{4}$"},
            "title": _TEXT,
            "view": {"enum": ["timeSeries"]},
            "width": {"type": "integer", "minimum": 1, "maximum": 2000},
            "yAxis": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"left": _AXIS, "right": _AXIS},
            },
        },
    }
)
_RENDERING = Draft202012Validator(
    {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "accountId": {"type": "string", "pattern": r"^\d{12}$"},
            "color": _COLOUR,
            "expression": _TEXT,
            "id": {"type": "string", "pattern": "^[a-z][a-zA-Z0-9_]*$"},
            "label": _TEXT,
            "period": _PERIOD,
            "region": _TEXT,
            "stacked": _FLAG,
            "stat": _TEXT,
            "visible": _FLAG,
            "yAxis": _SIDE,
        },
    }
)
_DURATION = re.compile(
    r"-P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?"
)

type Json = Mapping[str, Any]


class WidgetError(ValueError):
    """The request is refused with 400 ValidationError."""


def image(request: Json) -> bytes:
    """Return the PNG that GetMetricWidgetImage asks for. Raises WidgetError."""
    if request.get("OutputFormat", "png") not in _PNG:
        raise WidgetError("OutputFormat must be png.")
    widget = _read(str(request.get("MetricWidget") or ""))
    metrics = _metrics(widget["metrics"])
    now = datetime.fromtimestamp(store.now(), tz=UTC)
    start, end = (
        _moment(widget.get("start", "-PT3H"), now),
        _moment(widget.get("end", "-PT0H"), now),
    )
    if start >= end:
        raise WidgetError("start must be before end.")
    period = int(widget.get("period", 300))
    first, last = start.timestamp(), end.timestamp()
    curves = list(_curves(widget, metrics, math.ceil(first), math.ceil(last), period))
    annotations = widget.get("annotations", {})
    axes = widget.get("yAxis", {})
    return draw(
        Chart(
            title=widget.get("title", ""),
            width=widget.get("width", 600),
            height=widget.get("height", 400),
            start=first,
            end=last,
            period=period,
            zone=datetime.strptime(widget.get("timezone", "+0000"), "%z").tzinfo or UTC,
            curves=curves,
            levels=[_level(one) for one in _flat(annotations.get("horizontal", []))],
            moments=[_mark(one, now) for one in _flat(annotations.get("vertical", []))],
            axes={side: axes.get(side, {}) for side in ("left", "right")},
            stacked=widget.get("stacked", False),
            legend=widget.get("legend", {}).get("position", "bottom"),
        )
    )


def _read(text: str) -> Json:
    """Return the widget, checked. Raises WidgetError."""
    if len(text.encode()) > MAX_BYTES:
        raise WidgetError(f"MetricWidget is larger than {MAX_BYTES // 1024} KB.")
    try:
        widget = json.loads(text)
    except ValueError as error:
        raise WidgetError(f"MetricWidget is not valid JSON: {error}.") from error
    _refuse(_SCHEMA, widget, "")
    found: Json = widget
    return found


def _refuse(schema: Draft202012Validator, value: Any, where: str) -> None:
    wrong = [
        {"dataPath": "/".join([where, *map(str, error.absolute_path)]), "message": error.message}
        for error in sorted(schema.iter_errors(value), key=lambda error: error.json_path)
    ]
    if wrong:
        raise WidgetError(f"The metric widget is invalid: {json.dumps(wrong)}")


def _metrics(listed: Sequence[Sequence[Any]]) -> list[tuple[list[str], Json]]:
    """Return names and rendering of each metric; ``.`` and ``...`` are filled in."""
    found: list[tuple[list[str], Json]] = []
    before: list[str] = []
    for number, one in enumerate(listed):
        where = f"/metrics/{number}"
        rendering = one[-1] if isinstance(one[-1], dict) else {}
        names = list(one[:-1] if rendering or isinstance(one[-1], dict) else one)
        _refuse(_RENDERING, rendering, where)
        if not all(isinstance(name, str) for name in names):
            raise WidgetError(f"{where}: each name must be a string.")
        if names and names[0] == "...":
            names = [*before[: len(before) - len(names) + 1], *names[1:]]
        for place, name in enumerate(names):
            if name == "." and place < len(before):
                names[place] = before[place]
        if not names and "expression" not in rendering:
            raise WidgetError(f"{where}: it has neither a metric nor an expression.")
        if names and (len(names) < 2 or len(names) % 2):  # noqa: PLR2004 -- namespace, name, pairs
            raise WidgetError(f"{where}: it must be a namespace, a metric and pairs of dimensions.")
        before = names or before
        found.append((names, rendering))
    return found


def _curves(
    widget: Json, metrics: Sequence[tuple[list[str], Json]], start: int, end: int, period: int
) -> Iterator[Curve]:
    """Read each visible metric in its Region."""
    queries = {
        str(rendering.get("id") or f"line{number}"): _query(names, rendering, widget, period)
        for number, (names, rendering) in enumerate(metrics)
    }
    evaluation = Evaluation(queries, start, end, period_of(list(queries.values())))
    for number, (query, (names, rendering)) in enumerate(zip(queries, metrics, strict=True)):
        if not rendering.get("visible", True):
            continue
        region = rendering.get("region") or widget.get("region") or get_region()
        try:
            with request_scope(get_account_id(), region):
                one = Evaluation({query: queries[query]}, start, end, period)
                series = (one if names else evaluation).series(query)
        except (ExpressionError, store.UnsupportedStatisticError) as problem:
            raise WidgetError(f"/metrics/{number}: {problem}") from problem
        yield Curve(
            label=rendering.get("label") or (names[1] if names else query),
            colour=rendering.get("color", _PALETTE[number % len(_PALETTE)]),
            side=rendering.get("yAxis", "left"),
            period=int(rendering.get("period", period)),
            points=sorted((at, value) for at, value in series.items() if at >= start),
        )


def _query(names: Sequence[str], rendering: Json, widget: Json, period: int) -> dict[str, Any]:
    period = int(rendering.get("period", period))
    if not names:
        if insights.is_query(rendering["expression"]):
            raise WidgetError("Metrics Insights queries are not drawn here.")
        return {"Expression": rendering["expression"], "Period": period}
    pairs = zip(names[2::2], names[3::2], strict=True)
    stat = rendering.get("stat") or widget.get("stat", "Average")
    if stat not in _BASIC:
        store.percentile_rank(stat)  # raises where it is none
    return {
        "MetricStat": {
            "Metric": {
                "Namespace": names[0],
                "MetricName": names[1],
                "Dimensions": [{"Name": name, "Value": value} for name, value in pairs],
            },
            "Period": period,
            "Stat": stat,
        }
    }


def _flat(annotations: Sequence[Any]) -> Iterator[Json]:
    """Return the lines of all visible annotations; a band is drawn as its two edges."""
    for one in annotations:
        for line in one if isinstance(one, list) else [one]:
            if line.get("visible", True):
                yield line


def _level(one: Json) -> Level:
    colour = one.get("color", _ANNOTATION)
    return Level(float(one["value"]), one.get("label", ""), colour, one.get("yAxis", "left"))


def _mark(one: Json, now: datetime) -> Moment:
    at = _moment(one["value"], now).timestamp()
    return Moment(at, one.get("label", ""), one.get("color", _ANNOTATION))


def _moment(text: str, now: datetime) -> datetime:
    """Read an absolute time, or one before now as ``-PT3H``."""
    if not text.startswith("-P"):
        return datetime.fromisoformat(text)
    match = _DURATION.fullmatch(text)
    if not match:
        raise WidgetError(f"{text!r} is no duration, use for example -PT3H.")
    return now - timedelta(**{unit: int(count or 0) for unit, count in match.groupdict().items()})
