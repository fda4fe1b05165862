"""CloudWatch API operations that MiniStack lacks or answers wrongly.

Operations are written once over plain dictionaries; ``operation`` speaks the three protocols that
AWS SDKs and CLIs use for CloudWatch (CBOR, JSON, Query).
"""

import asyncio
import base64
import contextvars
import functools
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import cbor2
from ministack.services import cloudwatch

from local.aws.cloudwatch import insights, store, widgets
from local.aws.cloudwatch.alarms import Alarm, PreviousStates, announce
from local.aws.cloudwatch.expressions import ExpressionError
from local.aws.cloudwatch.patching import Patches
from local.aws.cloudwatch.queries import Evaluation, dimensions_of, period_of

type Response = tuple[int, dict[str, str], bytes]
type Handler = Callable[..., Response]

# GetMetricData: "The maximum number of data points the request should return before paginating",
# default 100,800.
MAX_DATAPOINTS = 100_800


class ValidationError(ValueError):
    """The request is refused with 400 ValidationError."""


def install(patches: Patches, previous_states: PreviousStates) -> None:
    """Replace MiniStack's evaluation and the operations listed here."""
    patches.replace(cloudwatch, "_metric_bucket", lambda _original: store.bucket)
    # It copies every datapoint on each request; Publisher ticks apply the retention instead.
    patches.replace(cloudwatch, "_evict_old_metrics", lambda _original: lambda: None)
    patches.replace(cloudwatch, "_evaluate_alarm", lambda _original: lambda _alarm: None)
    patches.replace(cloudwatch, "_record_history", _around_record_history)
    patches.replace(cloudwatch, "_put_metric_alarm", _around_put_metric_alarm)
    patches.replace(cloudwatch, "_set_alarm_state", _around_set_alarm_state)
    patches.replace(cloudwatch, "_delete_alarms", _around_delete_alarms(previous_states))
    patches.replace(
        cloudwatch,
        "_get_metric_data",
        lambda _original: operation("GetMetricData", get_metric_data),
    )
    patches.replace(
        cloudwatch,
        "_get_metric_statistics",
        lambda _original: operation("GetMetricStatistics", get_metric_statistics),
    )
    patches.replace(cloudwatch, "handle_request", _around_handle_request)
    for name in ("DescribeAlarms", "DescribeAlarmHistory", "DescribeAlarmsForMetric"):
        attribute = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        patches.replace(cloudwatch, f"_{attribute}", _whole_xml(name))

    def dispatching(_original: Any) -> Callable[..., None]:
        def dispatch(alarm: Alarm, old_state: str, _new_state: str, _reason: str) -> None:
            announce(alarm, old_state, previous_states)

        return dispatch

    patches.replace(cloudwatch, "_dispatch_alarm_actions", dispatching)


# Alarms


def _around_record_history(original: Callable[..., None]) -> Callable[..., None]:
    def record(  # noqa: PLR0917 -- MiniStack's signature
        name: str,
        old: str,
        new: str,
        reason: str,
        alarm_type: str = "MetricAlarm",
        reason_data: Any = None,
    ) -> None:
        original(name, old, new, reason, alarm_type, reason_data)
        if old == new:
            # A new alarm is a ConfigurationUpdate on AWS, not a StateUpdate.
            entry = cloudwatch._history_entries()[-1]  # noqa: SLF001 -- the entry just made
            entry["HistoryItemType"] = "ConfigurationUpdate"
            entry["HistorySummary"] = f'Alarm "{name}" created'
            entry["HistoryData"] = json.dumps({"version": "1.0", "type": "Create"})

    return record


def _around_put_metric_alarm(original: Handler) -> Handler:
    def put(params: Any, data: Any, is_cbor: bool, is_json: bool = False) -> Response:  # noqa: FBT001, FBT002 -- MiniStack's signature
        request = data if is_cbor or is_json else nested(params)
        refusal = _refusal(request)
        if refusal:
            return error(refusal, is_cbor=is_cbor, is_json=is_json)
        before = cloudwatch._alarms.get(request["AlarmName"])  # noqa: SLF001 -- its store
        response = original(params, data, is_cbor, is_json)
        after = cloudwatch._alarms.get(request["AlarmName"])  # noqa: SLF001 -- its store
        if response[0] == 200 and after is not None:  # noqa: PLR2004 -- HTTP OK
            complete(after, request, before)
        return response

    return put


def _refusal(request: Mapping[str, Any]) -> str:
    """Return why PutMetricAlarm refuses this alarm, or nothing."""
    periods = int(request.get("EvaluationPeriods") or 0)
    metric = request.get("MetricName") and request.get("Namespace")
    refusals = {
        "AlarmName must be set, for example 'orders-age'.": not request.get("AlarmName"),
        "Metrics must not be combined with MetricName and Namespace.": request.get("Metrics")
        and (request.get("MetricName") or request.get("Namespace")),
        "MetricName and Namespace, or Metrics, must be set.": not request.get("Metrics")
        and not metric,
        "Only one of Statistic and ExtendedStatistic may be set.": request.get("Statistic")
        and request.get("ExtendedStatistic"),
        "EvaluationPeriods must be at least 1, for example 3.": periods < 1,
        "DatapointsToAlarm must not be greater than EvaluationPeriods.": int(
            request.get("DatapointsToAlarm") or 1
        )
        > periods,
    }
    return next((sentence for sentence, refused in refusals.items() if refused), "")


def complete(alarm: Alarm, request: Mapping[str, Any], before: Alarm | None) -> None:
    """Add what MiniStack leaves out of an alarm: Metrics, and the state's reason data and times."""
    for name in ("StateReasonData", "StateTransitionedTimestamp"):
        if before and name in before:
            alarm[name] = before[name]
    alarm["AlarmConfigurationUpdatedTimestamp"] = store.now()
    if before is None:
        alarm["StateUpdatedTimestamp"] = alarm["StateTransitionedTimestamp"] = store.now()
    if request.get("Metrics"):
        alarm["Metrics"] = list(request["Metrics"])
        for name in ("MetricName", "Namespace", "Statistic", "Period", "Dimensions", "Unit"):
            alarm.pop(name, None)
    if alarm.get("ExtendedStatistic"):
        alarm.pop("Statistic", None)
    for name in [name for name, value in alarm.items() if value is None]:
        del alarm[name]


def _around_set_alarm_state(original: Handler) -> Handler:
    def set_state(params: Any, data: Any, is_cbor: bool, is_json: bool = False) -> Response:  # noqa: FBT001, FBT002 -- MiniStack's signature
        request = data if is_cbor or is_json else nested(params)
        if request.get("StateValue") not in ("OK", "ALARM", "INSUFFICIENT_DATA"):
            return error(
                "StateValue must be OK, ALARM or INSUFFICIENT_DATA.",
                is_cbor=is_cbor,
                is_json=is_json,
            )
        alarm = cloudwatch._alarms.get(request.get("AlarmName"))  # noqa: SLF001 -- its store
        if alarm and not request.get("StateReasonData"):
            alarm.pop("StateReasonData", None)  # it described the state that ends here
        return original(params, data, is_cbor, is_json)

    return set_state


def _around_delete_alarms(previous_states: PreviousStates) -> Callable[[Handler], Handler]:
    def wrap(original: Handler) -> Handler:
        def delete(params: Any, data: Any, is_cbor: bool, is_json: bool = False) -> Response:  # noqa: FBT001, FBT002 -- MiniStack's signature
            response = original(params, data, is_cbor, is_json)
            request = data if is_cbor or is_json else nested(params)
            if response[0] == 200:  # noqa: PLR2004 -- HTTP OK
                for name in request.get("AlarmNames", []):
                    previous_states.forget(name)
            return response

        return delete

    return wrap


def _whole_xml(name: str) -> Callable[[Handler], Handler]:
    """Answer the Query protocol with every member; MiniStack's XML leaves most of them out."""

    def wrap(original: Handler) -> Handler:
        def describe(params: Any, data: Any, is_cbor: bool, is_json: bool = False) -> Response:  # noqa: FBT001, FBT002 -- MiniStack's signature
            if is_cbor or is_json:
                return original(params, data, is_cbor, is_json)
            status, headers, body = original(params, nested(params), False, True)  # noqa: FBT003 -- its signature
            answer = json.loads(body)
            if status != 200:  # noqa: PLR2004 -- HTTP OK
                return error(answer.get("message", ""), is_cbor=False, is_json=False)
            del headers
            return respond(name, _dated(answer), is_cbor=False, is_json=False)

        return describe

    return wrap


def _dated(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _dated(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_dated(each, name) for each in value]
    if name.endswith("Timestamp") and isinstance(value, int | float):
        return datetime.fromtimestamp(value, tz=UTC)
    return value


# Pictures


def _around_handle_request(original: Callable[..., Any]) -> Callable[..., Any]:
    """Answer GetMetricWidgetImage, which MiniStack does not know."""

    async def handle(method: str, path: str, headers: Any, body: bytes, query: Any) -> Response:
        is_cbor = "cbor" in headers.get("content-type", "") + headers.get("smithy-protocol", "")
        target = headers.get("x-amz-target", "") or path
        form = {} if is_cbor or body.startswith(b"{") else parse_qs(body.decode())
        named = next(iter(form.get("Action", [])), "") or re.split(r"[./]", target)[-1]
        if named != "GetMetricWidgetImage":
            response: Response = await original(method, path, headers, body, query)
            return response
        data = cbor2.loads(body) if is_cbor else {} if form else json.loads(body)
        answer = operation(named, get_metric_widget_image)
        # Drawing takes a tenth of a second, in which the emulator has other things to do.
        draw = functools.partial(answer, form, data, is_cbor, not is_cbor and not form)
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, context.run, draw)

    return handle


def get_metric_widget_image(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer GetMetricWidgetImage; ``OutputFormat`` image/png is answered as png is."""
    try:
        return {"MetricWidgetImage": widgets.image(request)}
    except widgets.WidgetError as error:
        raise ValidationError(str(error)) from error


# Metric data


def get_metric_data(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer GetMetricData: queries and expressions, ScanBy, MaxDatapoints, NextToken.

    Newest first unless ScanBy says TimestampAscending; a period without data gives no datapoint.
    "If you include a Metrics Insights query, each GetMetricData operation can include only one."
    """
    queries = {query["Id"]: query for query in request.get("MetricDataQueries", [])}
    start, end = _moment(request, "StartTime"), _moment(request, "EndTime")
    if start >= end:
        raise ValidationError("The parameter StartTime must be less than the parameter EndTime.")
    if sum(insights.is_query(query.get("Expression", "")) for query in queries.values()) > 1:
        raise ValidationError("Only one Metrics Insights query is allowed in a request.")
    evaluation = Evaluation(queries, int(start), _ceiling(end), period_of(list(queries.values())))
    newest_first = request.get("ScanBy", "TimestampDescending") != "TimestampAscending"
    results: list[dict[str, Any]] = []
    for name, query in queries.items():
        try:
            if not _true(query.get("ReturnData", True)):
                continue
            value = evaluation.value(name)
            many = value if isinstance(value, list) else [evaluation.series(name)]
        except (ExpressionError, store.UnsupportedStatisticError) as problem:
            raise ValidationError(f"Error in expression '{name}' [{problem}]") from problem
        labels = evaluation.labels.get(name) or [query.get("Label") or _label(query, name)] * len(
            many
        )
        for series, label in zip(many, labels, strict=True):
            pairs = sorted(series.items(), reverse=newest_first)
            results.append(
                {
                    "Id": name,
                    "Label": label,
                    "StatusCode": "Complete",
                    "Timestamps": [datetime.fromtimestamp(at, tz=UTC) for at, _ in pairs],
                    "Values": [value for _, value in pairs],
                }
            )
    return _page(results, request)


def _label(query: Mapping[str, Any], name: str) -> str:
    return str(query["MetricStat"]["Metric"]["MetricName"]) if "MetricStat" in query else name


def _page(results: list[dict[str, Any]], request: Mapping[str, Any]) -> dict[str, Any]:
    """Cut to MaxDatapoints over all results; the token is the offset of the next page."""
    limit = int(request.get("MaxDatapoints") or MAX_DATAPOINTS)
    token = request.get("NextToken")
    try:
        skip = int(base64.b64decode(token)) if token else 0
    except ValueError as problem:
        raise ValidationError("The parameter NextToken is not valid.") from problem
    left, more = limit, False
    for result in results:
        total = len(result["Values"])
        first = min(skip, total)
        skip -= first
        last = min(first + left, total)
        left -= last - first
        more = more or last < total
        result["StatusCode"] = "PartialData" if last < total else "Complete"
        for key in ("Timestamps", "Values"):
            result[key] = result[key][first:last]
    answer: dict[str, Any] = {"MetricDataResults": results, "Messages": []}
    if more:
        offset = (int(base64.b64decode(token)) if token else 0) + limit
        answer["NextToken"] = base64.b64encode(str(offset).encode()).decode()
    return answer


def get_metric_statistics(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer GetMetricStatistics: exact dimensions, Unit, periods aligned to the epoch.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricStatistics.html
    """
    period = int(request.get("Period") or 0)
    if period < 1:
        raise ValidationError("The parameter Period must be greater than or equal to 1.")
    start, end = int(_moment(request, "StartTime")), _ceiling(_moment(request, "EndTime"))
    if start >= end:
        raise ValidationError("The parameter StartTime must be less than the parameter EndTime.")
    basic = request.get("Statistics") or []
    extended = request.get("ExtendedStatistics") or []
    if not basic and not extended:
        raise ValidationError("Must specify either Statistics or ExtendedStatistics.")
    name = request["MetricName"]
    metric = store.find(request["Namespace"], name, dimensions_of(request.get("Dimensions")))
    points = []
    wanted = request.get("Unit")
    for unit in (metric.units() if metric else []) if wanted is None else [wanted]:
        found = metric.by_period(start - start % period, end, period, unit) if metric else {}
        for at, stats in found.items():
            point: dict[str, Any] = {"Timestamp": datetime.fromtimestamp(at, tz=UTC), "Unit": unit}
            point |= {statistic: stats.get(statistic) for statistic in basic}
            ranks = {statistic: stats.get(statistic) for statistic in extended}
            if known := {key: value for key, value in ranks.items() if value is not None}:
                point["ExtendedStatistics"] = known
            points.append(point)
    return {"Label": name, "Datapoints": points}


def _moment(request: Mapping[str, Any], name: str) -> float:
    moment = cloudwatch._parse_ts(request.get(name))  # noqa: SLF001 -- reads all three protocols' forms
    if moment is None:
        raise ValidationError(f"The parameter {name} is required, such as '2026-03-01T03:00:00Z'.")
    return float(moment)


def _ceiling(moment: float) -> int:
    return -int(-moment // 1)


def _true(value: Any) -> bool:
    return value not in (False, "false")


# Protocols


def operation(name: str, answer: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Handler:
    """Make a handler with MiniStack's signature out of a function over dictionaries."""

    def handle(params: Any, data: Any, is_cbor: bool, is_json: bool = False) -> Response:  # noqa: FBT001, FBT002 -- MiniStack's signature
        request = data if is_cbor or is_json else nested(params)
        try:
            return respond(name, answer(request), is_cbor=is_cbor, is_json=is_json)
        except (ValidationError, store.UnsupportedStatisticError) as problem:
            return error(str(problem), is_cbor=is_cbor, is_json=is_json)

    return handle


def nested(params: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``A.member.1.B`` parameters of the Query protocol into dictionaries and lists."""
    tree: dict[str, Any] = {}
    for name, value in params.items():
        node = tree
        *parents, last = name.split(".")
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value[0] if isinstance(value, list) else value
    untangled: dict[str, Any] = _untangle(tree)
    return untangled


def _untangle(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if set(node) == {"member"} and isinstance(node["member"], dict):
        members = node["member"]
        return [_untangle(members[index]) for index in sorted(members, key=int)]
    return {key: _untangle(value) for key, value in node.items()}


def respond(name: str, result: dict[str, Any], *, is_cbor: bool, is_json: bool) -> Response:
    """Encode a result; moments are aware datetimes."""
    if not is_cbor:
        result = _in_base64(result)
    if is_cbor:
        body = cbor2.dumps(_encoded(result, lambda moment: cbor2.CBORTag(1, moment.timestamp())))
        return 200, {"Content-Type": "application/cbor", "smithy-protocol": "rpc-v2-cbor"}, body
    if is_json:
        body = json.dumps(_encoded(result, lambda moment: moment.timestamp())).encode()
        return 200, {"Content-Type": "application/x-amz-json-1.0"}, body
    written = _xml_of(_encoded(result, lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ")))
    response: Response = cloudwatch._xml(  # noqa: SLF001 -- its envelope
        200, f"{name}Response", f"<{name}Result>{written}</{name}Result>"
    )
    return response


def error(message: str, *, is_cbor: bool, is_json: bool) -> Response:
    """Encode a 400 ValidationError."""
    response: Response = cloudwatch._error(  # noqa: SLF001 -- its envelope
        "ValidationError", message, 400, use_json=is_json, use_cbor=is_cbor
    )
    return response


def _in_base64(result: dict[str, Any]) -> dict[str, Any]:
    """Write blobs as the text protocols do."""
    return {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in result.items()
    }


def _encoded(value: Any, moment: Callable[[datetime], Any]) -> Any:
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, dict):
        return {key: _encoded(each, moment) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_encoded(each, moment) for each in value]
    return value


def _xml_of(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(f"<{key}>{_xml_of(each)}</{key}>" for key, each in value.items())
    if isinstance(value, list):
        return "".join(f"<member>{_xml_of(each)}</member>" for each in value)
    if isinstance(value, bool):
        return str(value).lower()
    return escape(str(value))
