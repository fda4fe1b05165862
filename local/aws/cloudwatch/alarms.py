"""Evaluating the alarms that MiniStack stores, and acting on their transitions.

MiniStack evaluates only inside PutMetricData, ignores Dimensions, DatapointsToAlarm and
TreatMissingData, and publishes no event. Here every alarm is evaluated at each tick over windows
that end at that tick ("for a period of five minutes the alarm is evaluated every minute over the
last five", alarm-evaluation.html), and every transition, SetAlarmState's and a composite alarm's
too, sends the EventBridge event and runs the SNS and Lambda actions.
"""

import json
import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import cloudwatch, eventbridge, lambda_svc, sns

from local.aws.cloudwatch import store
from local.aws.cloudwatch.evaluation import (
    COMPARISONS,
    EXTRA_PERIODS,
    Datapoint,
    Rule,
    State,
    Verdict,
    decide,
    reason_data,
)
from local.aws.cloudwatch.expressions import ExpressionError
from local.aws.cloudwatch.queries import Evaluation, dimensions_of, period_of

logger = logging.getLogger(__name__)

type Alarm = dict[str, Any]

ACTIONS_BY_STATE = {
    State.ALARM: "AlarmActions",
    State.OK: "OKActions",
    State.INSUFFICIENT_DATA: "InsufficientDataActions",
}
CREATED = "Unchecked: Initial alarm creation"


@dataclass(frozen=True, slots=True)
class _Unable:
    """Why an alarm cannot be evaluated."""

    reason: str


class PreviousStates:
    """Remembers each alarm's last state, which MiniStack has overwritten when it tells us."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._lock = threading.Lock()

    def swap(self, alarm: Alarm, old_value: str) -> dict[str, Any]:
        """Store the alarm's state of now and return the one before."""
        key = (get_account_id(), get_region(), alarm["AlarmName"])
        with self._lock:
            previous = self._states.get(key)
            self._states[key] = state_of(alarm)
        if previous is None or previous["value"] != old_value:
            created = float(alarm.get("AlarmConfigurationUpdatedTimestamp") or store.now())
            return {"value": old_value, "reason": CREATED, "timestamp": store.iso(created)}
        return previous

    def forget(self, name: str) -> None:
        """Drop a deleted alarm."""
        with self._lock:
            self._states.pop((get_account_id(), get_region(), name), None)


def state_of(alarm: Alarm) -> dict[str, Any]:
    """Return an alarm's state as the events carry it."""
    state = {
        "value": alarm["StateValue"],
        "reason": alarm.get("StateReason", ""),
        "timestamp": store.iso(float(alarm["StateUpdatedTimestamp"])),
    }
    if alarm.get("StateReasonData"):
        state["reasonData"] = alarm["StateReasonData"]
    return state


# Evaluation


def evaluate_all(now: int) -> None:
    """Evaluate every metric alarm of every account and region at the tick ``now``."""
    for (account, region, name), alarm in cloudwatch._alarms.all_items():  # noqa: SLF001 -- its store
        with request_scope(account, region):
            try:
                _evaluate(name, alarm, now)
            except Exception:
                # One alarm that cannot be read must not stop the others.
                logger.exception("Alarm %s in %s %s was not evaluated", name, account, region)


def _evaluate(name: str, alarm: Alarm, now: int) -> None:
    outcome = assess(alarm, now)
    if isinstance(outcome, _Unable):
        if alarm["StateReason"] != outcome.reason:
            logger.warning("Alarm %s cannot be evaluated: %s", name, outcome.reason)
        verdict = Verdict(State.INSUFFICIENT_DATA, outcome.reason, ())
    elif outcome is None:
        return
    else:
        verdict = outcome
    if cloudwatch._alarms.get(name) is not alarm:  # noqa: SLF001 -- deleted or replaced meanwhile
        return
    if verdict.state == alarm["StateValue"]:
        if isinstance(outcome, _Unable):
            alarm["StateReason"] = outcome.reason
        return
    data = _reason_data(alarm, verdict)
    old = alarm["StateValue"]
    alarm["StateValue"] = str(verdict.state)
    alarm["StateReason"] = verdict.reason
    alarm["StateReasonData"] = json.dumps(data, separators=(",", ":"))
    alarm["StateUpdatedTimestamp"] = store.now()
    cloudwatch._record_history(  # noqa: SLF001 -- DescribeAlarmHistory lists these
        name, old, alarm["StateValue"], verdict.reason, reason_data=data
    )
    cloudwatch._dispatch_alarm_actions(alarm, old, alarm["StateValue"], verdict.reason)  # noqa: SLF001 -- the one hook of all transitions
    cloudwatch._evaluate_parent_alarms(alarm)  # noqa: SLF001 -- composite alarms follow


def assess(alarm: Alarm, now: int) -> Verdict | _Unable | None:
    """Judge an alarm from the store, in the current account and region; None keeps its state."""
    comparison = alarm.get("ComparisonOperator") or ""
    if comparison not in COMPARISONS:
        return _Unable(f"Comparison operator {comparison!r} is not supported by this emulator")
    periods = int(alarm.get("EvaluationPeriods") or 1)
    treatment = alarm.get("TreatMissingData") or "missing"
    if alarm.get("Namespace") == "AWS/DynamoDB":
        # "Alarms that evaluate metrics in the AWS/DynamoDB namespace always ignore missing data"
        treatment = "ignore"
    rule = Rule(
        evaluation_periods=periods,
        datapoints_to_alarm=int(alarm.get("DatapointsToAlarm") or periods),
        comparison=comparison,
        threshold=float(alarm.get("Threshold") or 0.0),
        treat_missing_data=treatment,
    )
    try:
        return decide(rule, _datapoints(alarm, now, periods + EXTRA_PERIODS))
    except (ExpressionError, store.UnsupportedStatisticError) as error:
        return _Unable(f"The alarm's metric cannot be evaluated: {error}")


def _datapoints(alarm: Alarm, now: int, count: int) -> list[Datapoint | None]:
    """Return the last ``count`` windows, newest first."""
    period = period_of_alarm(alarm)
    if alarm.get("Metrics"):
        queries = {query["Id"]: query for query in alarm["Metrics"]}
        evaluation = Evaluation(queries, now - count * period, now, period, aligned=False)
        found = evaluation.series(watched(alarm["Metrics"]))
        starts = [now - (index + 1) * period for index in range(count)]
        return [Datapoint(at, found[at]) if at in found else None for at in starts]
    metric = store.find(
        alarm["Namespace"], alarm["MetricName"], dimensions_of(alarm.get("Dimensions"))
    )
    points: list[Datapoint | None] = []
    statistic = statistic_of(alarm)
    for index in range(count):
        start = now - (index + 1) * period
        stats = metric.statistics(start, start + period, alarm.get("Unit")) if metric else None
        value = stats.get(statistic) if stats else None
        points.append(Datapoint(start, value, stats.count) if stats and value is not None else None)
    return points


def watched(queries: Sequence[Mapping[str, Any]]) -> str:
    """Return the id of the query that an alarm watches: the one with ReturnData."""
    returning = [query["Id"] for query in queries if query.get("ReturnData", True)]
    if len(returning) != 1:
        raise ExpressionError("exactly one of the alarm's metrics needs ReturnData true")
    return str(returning[0])


def statistic_of(alarm: Alarm) -> str:
    """Return Statistic or ExtendedStatistic, whichever is set."""
    return str(alarm.get("ExtendedStatistic") or alarm.get("Statistic") or "Average")


def period_of_alarm(alarm: Alarm) -> int:
    """Return the alarm's period in seconds."""
    return period_of(alarm["Metrics"]) if alarm.get("Metrics") else int(alarm.get("Period") or 60)


def _reason_data(alarm: Alarm, verdict: Verdict) -> dict[str, Any]:
    periods = int(alarm.get("EvaluationPeriods") or 1)
    rule = Rule(periods, 1, alarm["ComparisonOperator"], float(alarm.get("Threshold") or 0.0))
    return reason_data(
        rule,
        verdict,
        now=store.iso(store.now()),
        period=period_of_alarm(alarm),
        statistic=None if alarm.get("Metrics") else statistic_of(alarm),
        unit=alarm.get("Unit"),
        iso=store.iso,
    )


# Transitions


def announce(alarm: Alarm, old_value: str, previous_states: PreviousStates) -> None:
    """Send the event and run the actions of a transition that has just been stored.

    The caller is in the alarm's account and region. A failed delivery is logged: on AWS, too, the
    alarm keeps its state.
    """
    moment = store.now()
    alarm["StateUpdatedTimestamp"] = alarm["StateTransitionedTimestamp"] = moment
    previous = previous_states.swap(alarm, old_value)
    deliveries: list[Callable[[], None]] = [partial(publish_event, alarm, previous)]
    if alarm.get("ActionsEnabled", True):
        actions = alarm.get(ACTIONS_BY_STATE[State(alarm["StateValue"])]) or []
        deliveries += [partial(run_action, alarm, previous, action) for action in actions]
    for deliver in deliveries:
        try:
            deliver()
        except Exception:
            logger.exception("Alarm %s: a delivery failed", alarm["AlarmName"])


def publish_event(alarm: Alarm, previous: Mapping[str, Any]) -> None:
    """Put ``CloudWatch Alarm State Change`` on the default bus.

    Shape: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html
    """
    eventbridge._put_events(  # noqa: SLF001 -- PutEvents refuses aws.* sources from outside, as AWS does
        {
            "Entries": [
                {
                    "Source": "aws.cloudwatch",
                    "DetailType": "CloudWatch Alarm State Change",
                    "Resources": [alarm["AlarmArn"]],
                    "Detail": json.dumps(_detail(alarm, previous)),
                }
            ]
        },
        allow_aws_source=True,
    )


def _detail(alarm: Alarm, previous: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "alarmName": alarm["AlarmName"],
        "state": state_of(alarm),
        "previousState": dict(previous),
        "configuration": configuration(alarm),
    }


def configuration(alarm: Alarm) -> dict[str, Any]:
    """Return ``detail.configuration``: metrics for a metric alarm, alarmRule for a composite."""
    described = {"description": alarm["AlarmDescription"]} if alarm.get("AlarmDescription") else {}
    if "AlarmRule" in alarm:
        return described | {"alarmRule": alarm["AlarmRule"]}
    if alarm.get("Metrics"):
        return described | {"metrics": [_query(query) for query in alarm["Metrics"]]}
    stat = {
        "metric": {
            "namespace": alarm["Namespace"],
            "name": alarm["MetricName"],
            "dimensions": dimensions_of(alarm.get("Dimensions")),
        },
        "period": int(alarm["Period"]),
        "stat": statistic_of(alarm),
    }
    if alarm.get("Unit"):
        stat["unit"] = alarm["Unit"]
    query_id = str(uuid.uuid5(uuid.NAMESPACE_URL, alarm["AlarmArn"]))
    return described | {"metrics": [{"id": query_id, "metricStat": stat, "returnData": True}]}


def _query(query: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": query["Id"]}
    if "MetricStat" in query:
        stat = query["MetricStat"]
        shown["metricStat"] = {
            "metric": {
                "namespace": stat["Metric"]["Namespace"],
                "name": stat["Metric"]["MetricName"],
                "dimensions": dimensions_of(stat["Metric"].get("Dimensions")),
            },
            "period": int(stat["Period"]),
            "stat": stat["Stat"],
        }
        if stat.get("Unit"):
            shown["metricStat"]["unit"] = stat["Unit"]
    else:
        shown["expression"] = query["Expression"]
    if query.get("Label"):
        shown["label"] = query["Label"]
    return shown | {"returnData": bool(query.get("ReturnData", True))}


def run_action(alarm: Alarm, previous: Mapping[str, Any], action: str) -> None:
    """Run one alarm action: an SNS topic or a Lambda function; others only exist on AWS."""
    service = [*action.split(":"), "", "", ""][2]
    if service == "sns":
        subject = f'{alarm["StateValue"]}: "{alarm["AlarmName"]}" in {get_region()}'
        message = json.dumps(_sns_message(alarm, previous))
        sns._fanout(action, str(uuid.uuid4()), message, subject[:100])  # noqa: SLF001 -- what Publish does after its checks
    elif service == "lambda":
        _invoke(action, alarm, previous)
    else:
        logger.info("Alarm %s: action %s does nothing here", alarm["AlarmName"], action)


def _invoke(function_arn: str, alarm: Alarm, previous: Mapping[str, Any]) -> None:
    """Invoke asynchronously with the documented payload.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-actions-Lambda.html
    """
    record, config, name = lambda_svc._get_func_record_for_ref(function_arn)  # noqa: SLF001 -- resolves aliases
    if not record or not config:
        logger.warning("Alarm %s: function %s does not exist", alarm["AlarmName"], name)
        return
    event = {
        "source": "aws.cloudwatch",
        "alarmArn": alarm["AlarmArn"],
        "accountId": get_account_id(),
        "time": store.iso(float(alarm["StateUpdatedTimestamp"])),
        "region": get_region(),
        "alarmData": _detail(alarm, previous),
    }
    execution = lambda_svc._execution_record_for_config(record, config)  # noqa: SLF001 -- as for its rules
    lambda_svc.invoke_async_with_retry(execution, event)


def _sns_message(alarm: Alarm, previous: Mapping[str, Any]) -> dict[str, Any]:
    """Build the JSON that CloudWatch sends to a topic.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html
    """
    message: dict[str, Any] = {
        "AlarmName": alarm["AlarmName"],
        "AlarmDescription": alarm.get("AlarmDescription") or None,
        "AWSAccountId": get_account_id(),
        "AlarmConfigurationUpdatedTimestamp": store.iso(
            float(alarm["AlarmConfigurationUpdatedTimestamp"])
        ),
        "NewStateValue": alarm["StateValue"],
        "NewStateReason": alarm["StateReason"],
        "StateChangeTime": store.iso(float(alarm["StateUpdatedTimestamp"])),
        "Region": get_region(),
        "AlarmArn": alarm["AlarmArn"],
        "OldStateValue": previous["value"],
        "OKActions": alarm.get("OKActions") or [],
        "AlarmActions": alarm.get("AlarmActions") or [],
        "InsufficientDataActions": alarm.get("InsufficientDataActions") or [],
    }
    if "AlarmRule" in alarm:
        return message | {"AlarmRule": alarm["AlarmRule"]}
    trigger: dict[str, Any] = {
        "Period": period_of_alarm(alarm),
        "EvaluationPeriods": alarm["EvaluationPeriods"],
        "ComparisonOperator": alarm["ComparisonOperator"],
        "Threshold": alarm["Threshold"],
        "TreatMissingData": alarm.get("TreatMissingData") or "missing",
        "EvaluateLowSampleCountPercentile": "",
    }
    if alarm.get("DatapointsToAlarm"):
        trigger["DatapointsToAlarm"] = alarm["DatapointsToAlarm"]
    if alarm.get("Metrics"):
        trigger["Metrics"] = alarm["Metrics"]
    else:
        extended = alarm.get("ExtendedStatistic")
        trigger |= {
            "MetricName": alarm["MetricName"],
            "Namespace": alarm["Namespace"],
            "StatisticType": "ExtendedStatistic" if extended else "Statistic",
            "ExtendedStatistic" if extended else "Statistic": extended
            or statistic_of(alarm).upper(),
            "Unit": alarm.get("Unit"),
            "Dimensions": [
                {"name": name, "value": value}
                for name, value in dimensions_of(alarm.get("Dimensions")).items()
            ],
        }
    return message | {"Trigger": trigger}
