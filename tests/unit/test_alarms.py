"""Reading alarms, naming runs, deciding: nothing starts while the live state is not ALARM."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncall import alarms
from oncall.alarms import Alarm, Ignore, Misconfigured, ReadTooEarly, Start, StateChange
from oncall.contract import load, parse_input
from oncall.errors import BadInput

ARN = "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:orders-backlog"
T0 = datetime(2026, 11, 23, 3, 2, 11, 123000, tzinfo=UTC)
CONTRACT = load("queue-saturation")


def event(
    state: str = "ALARM", previous: str = "OK", at: str = "2026-11-23T03:02:11.123+0000"
) -> dict[str, Any]:
    return {
        "source": "aws.cloudwatch",
        "detail-type": "CloudWatch Alarm State Change",
        "resources": [ARN],
        "detail": {
            "alarmName": "orders-backlog",
            "state": {"value": state, "timestamp": at, "reason": "Threshold Crossed"},
            "previousState": {"value": previous},
        },
    }


def described(**changed: Any) -> dict[str, Any]:
    return {
        "AlarmName": "orders-backlog",
        "AlarmArn": ARN,
        "StateValue": "ALARM",
        "StateReason": "Threshold Crossed: 900 > 100",
        "StateUpdatedTimestamp": T0 + timedelta(minutes=3),
        "StateTransitionedTimestamp": T0,
        "ActionsEnabled": True,
        "MetricName": "ApproximateNumberOfMessagesVisible",
        "Namespace": "AWS/SQS",
        "Dimensions": [{"Name": "QueueName", "Value": "orders"}],
    } | changed


def math_metrics(*queues: str, account: str = "") -> list[dict[str, Any]]:
    metrics: list[dict[str, Any]] = [
        {
            "Id": f"m{n}",
            "MetricStat": {
                "Metric": {"Dimensions": [{"Name": "QueueName", "Value": queue}]},
                "Period": 60,
                "Stat": "Sum",
            },
            **({"AccountId": account} if account else {}),
        }
        for n, queue in enumerate(queues)
    ]
    return [*metrics, {"Id": "e1", "Expression": "m0 * 2"}]


def without_metric(**changed: Any) -> dict[str, Any]:
    composite = described(**changed)
    for name in ("MetricName", "Namespace", "Dimensions"):
        del composite[name]
    return composite


def decision(raw: Mapping[str, Any], **tags: str) -> Start | Ignore:
    given = {name.replace("_", ":"): value for name, value in tags.items()}
    return alarms.decide(alarms.read_alarm(raw), {"runbook": "queue-saturation", **given}, CONTRACT)


def test_an_event_is_read() -> None:
    assert alarms.read_event(event()) == StateChange("orders-backlog", ARN, "ALARM", "OK", T0)


@pytest.mark.parametrize("broken", ["resources", "detail"])
def test_what_is_no_alarm_event_is_refused_with_an_example_that_works(broken: str) -> None:
    raw = event()
    del raw[broken]
    with pytest.raises(BadInput) as refused:
        alarms.read_event(raw)
    assert broken in str(refused.value)
    example = str(refused.value).split("Give for example ", 1)[1].removesuffix(".")
    assert alarms.read_event(json.loads(example)).state == "ALARM"


@pytest.mark.parametrize("state", ["OK", "ALARM", "INSUFFICIENT_DATA"])
@pytest.mark.parametrize("previous", ["OK", "ALARM", "INSUFFICIENT_DATA"])
def test_only_a_change_to_alarm_that_does_not_come_from_missing_data_is_worth_a_look(
    state: str, previous: str
) -> None:
    ignored = alarms.unworthy(alarms.read_event(event(state, previous)))
    if state != "ALARM":
        assert ignored is not None
        assert ignored.reason == "not_alarm"
    elif previous == "INSUFFICIENT_DATA":
        assert ignored is not None
        assert ignored.reason == "from_insufficient_data"
    else:
        assert ignored is None


def test_a_metric_alarm_names_its_queue_by_dimension() -> None:
    start = decision(described())
    assert isinstance(start, Start)
    assert start.target == "orders"
    assert start.target_arn == "arn:aws:sqs:eu-west-1:123456789012:orders"
    assert start.mode == ""


def test_a_metric_math_alarm_on_one_queue_names_it() -> None:
    start = decision(without_metric(Metrics=math_metrics("orders", "orders")))
    assert isinstance(start, Start)
    assert start.target == "orders"


def test_a_metric_math_alarm_on_two_queues_needs_the_tag() -> None:
    raw = without_metric(Metrics=math_metrics("orders", "returns"))
    with pytest.raises(Misconfigured, match=r"runbook:target=orders"):
        decision(raw)
    start = decision(raw, runbook_target="returns")
    assert isinstance(start, Start)
    assert start.target == "returns"


def test_a_composite_alarm_takes_target_and_mode_from_its_tags() -> None:
    raw = without_metric(AlarmRule='ALARM("a")')
    with pytest.raises(Misconfigured, match="QueueName"):
        decision(raw)
    arn = "arn:aws-cn:sqs:cn-north-1:123456789012:orders"
    start = decision(raw, runbook_target=arn, runbook_mode="observe")
    assert isinstance(start, Start)
    assert (start.target, start.target_arn, start.mode) == (arn, arn, "observe")


def test_a_mode_that_there_is_not_is_told_with_those_there_are() -> None:
    with pytest.raises(Misconfigured, match="observe, ask, auto"):
        decision(described(), runbook_mode="yolo")


def test_a_metric_of_another_account_is_not_taken_for_this_accounts_queue_of_that_name() -> None:
    raw = without_metric(Metrics=math_metrics("orders", account="999999999999"))
    with pytest.raises(Misconfigured, match="999999999999"):
        decision(raw)


@pytest.mark.parametrize(
    "silence",
    [
        {"ActionsEnabled": False},
        {"ActionsSuppressedBy": "Alarm", "ActionsSuppressedReason": "deployment"},
    ],
)
def test_an_alarm_whose_actions_are_off_starts_nothing(silence: dict[str, Any]) -> None:
    ignored = decision(described(**silence))
    assert isinstance(ignored, Ignore)
    assert ignored.reason == "silenced"


def test_the_machine_accepts_what_is_made_for_it_and_cuts_what_is_long() -> None:
    live = alarms.read_alarm(described(StateReason="x" * 1023, AlarmDescription="d" * 1024))
    start = alarms.decide(live, {"runbook:mode": "auto"}, CONTRACT)
    assert isinstance(start, Start)
    given = alarms.machine_input(CONTRACT, start, live, storm="storm-1", request="r1")
    request = parse_input(CONTRACT, given)
    assert request.target == "orders"
    assert request.mode == "ask"  # a storm asks
    assert request.parent == "storm-1"
    assert request.trigger["alarm"]["changed_at"] == "2026-11-23T03:02:11.123Z"
    assert len(request.trigger["reason"]) <= 300
    assert len(request.trigger["alarm"]["description"]) <= 500


CROSSED = (
    "Threshold Crossed: 2 out of the last 3 datapoints [388.0 (23/11/26 03:01:00), "
    "310.5 (23/11/26 03:00:00)] were greater than the threshold (200.0) (minimum 2 datapoints "
    "for OK -> ALARM transition)."
)


def reason(raw: Mapping[str, Any]) -> str:
    live = alarms.read_alarm(raw)
    start = alarms.decide(live, {"runbook:target": "orders"}, CONTRACT)
    assert isinstance(start, Start)
    return str(alarms.machine_input(CONTRACT, start, live, request="r1")["reason"])


def named(*names: str) -> list[dict[str, Any]]:
    metrics = math_metrics(*["orders"] * len(names))
    for metric, name in zip(metrics, names, strict=False):
        metric["MetricStat"]["Metric"]["MetricName"] = name
    return metrics


def test_the_reason_in_brief_names_the_one_metric_that_an_alarm_watches() -> None:
    told = "ApproximateNumberOfMessagesVisible 388, threshold 200"
    assert reason(described(StateReason=CROSSED)) == told
    one = named("NumberOfMessagesSent")[:1]
    sent = "NumberOfMessagesSent 388, threshold 200"
    assert reason(without_metric(StateReason=CROSSED, Metrics=one)) == sent


@pytest.mark.parametrize(
    "metrics", [("NumberOfMessagesSent", "NumberOfMessagesDeleted"), ("NumberOfMessagesSent",)]
)
def test_the_value_of_an_expression_is_not_told_as_a_metrics(metrics: tuple[str, ...]) -> None:
    raw = without_metric(StateReason=CROSSED, Metrics=named(*metrics))
    assert reason(raw) == "388, threshold 200"
    assert alarms.brief(CROSSED) == "388, threshold 200"


def test_a_composite_alarms_reason_names_no_metric() -> None:
    raw = without_metric(StateReason=CROSSED, AlarmRule='ALARM("a")')
    assert reason(raw) == "388, threshold 200"


def test_a_reason_of_any_other_wording_stays_as_it_is() -> None:
    words = "Unchecked: Initial alarm creation"
    assert reason(described(StateReason=words)) == words


# Names


@given(st.text(min_size=1, max_size=255), st.datetimes(timezones=st.just(UTC)))
def test_a_name_is_one_that_step_functions_takes(alarm: str, at: datetime) -> None:
    name = alarms.execution_name(f"arn:aws:cloudwatch:eu-west-1:123456789012:alarm:{alarm}", at)
    assert re.fullmatch(r"[0-9A-Za-z_-]{1,62}", name)


@given(st.datetimes(timezones=st.just(UTC)), st.integers(0, 999_999))
def test_a_name_is_the_same_within_a_second(at: datetime, microsecond: int) -> None:
    assert alarms.execution_name(ARN, at) == alarms.execution_name(
        ARN, at.replace(microsecond=microsecond)
    )


def test_alarms_that_look_alike_in_a_name_have_names_of_their_own() -> None:
    names = {
        alarms.execution_name(f"{ARN}{ending}", T0) for ending in ("/a", ":a", "-a", "é", "x" * 99)
    }
    assert len(names) == 5


@given(st.from_regex(r"[0-9A-Za-z_-]{1,80}", fullmatch=True), st.integers(1, 8))
def test_a_derived_name_fits_and_tells_apart(name: str, attempt: int) -> None:
    derived = alarms.derived_name(name, f"wind-down-{attempt}")
    assert len(derived) <= 80
    assert derived.endswith(f"-wind-down-{attempt}")
    assert derived != alarms.derived_name(f"{name[:-1]}.", f"wind-down-{attempt}")


def test_an_executions_arn_is_found_also_from_an_alias() -> None:
    machine = "arn:aws:states:eu-west-1:123456789012:stateMachine:queue-saturation"
    expected = "arn:aws:states:eu-west-1:123456789012:execution:queue-saturation:x"
    assert alarms.execution_arn(machine, "x") == expected
    assert alarms.execution_arn(f"{machine}:live", "x") == expected


# Traces


STATES = ("OK", "ALARM", "INSUFFICIENT_DATA")
gaps = st.integers(10, 3600)  # CloudWatch evaluates every 10 seconds at the most often
traces = st.lists(st.tuples(st.sampled_from(STATES), gaps), min_size=1, max_size=8)


def periods(trace: list[tuple[str, int]]) -> list[tuple[datetime, str]]:
    """Return when the alarm went into which state; only changes are transitions."""
    found: list[tuple[datetime, str]] = []
    moment = T0
    for state, gap in trace:
        moment += timedelta(seconds=gap)
        if not found or found[-1][1] != state:
            found.append((moment, state))
    return found


def live_at(history: list[tuple[datetime, str]], moment: datetime) -> Alarm | None:
    seen = [entry for entry in history if entry[0] <= moment]
    if not seen:
        return None
    since, state = seen[-1]
    return alarms.read_alarm(described(StateValue=state, StateTransitionedTimestamp=since))


@given(
    trace=traces,
    deliveries=st.lists(
        st.tuples(st.integers(0, 7), st.integers(0, 7200), st.integers(-2000, 2000)), max_size=24
    ),
    read_behind=st.integers(0, 30),
)
def test_whatever_is_delivered_when_nothing_starts_but_the_period_that_the_alarm_is_in(
    trace: list[tuple[str, int]], deliveries: list[tuple[int, int, int]], read_behind: int
) -> None:
    """Events come late, twice, out of order, skewed by 2 s; readings lag by up to 30 s."""
    history = periods(trace)
    names: dict[datetime, set[str]] = {}
    for index, delay, skew in deliveries:
        at, state = history[index % len(history)]
        previous = history[index % len(history) - 1][1] if index % len(history) else "OK"
        change = StateChange(
            "orders-backlog", ARN, state, previous, at + timedelta(milliseconds=skew)
        )
        read_at = at + timedelta(seconds=delay - read_behind)
        live = live_at(history, read_at)
        if alarms.unworthy(change):
            continue
        try:
            ignored = alarms.outdated(change, live)
        except ReadTooEarly:
            assert read_at < at  # raised only when the reading is older than the event
            continue
        if ignored or live is None:
            continue
        start = alarms.decide(live, {}, CONTRACT)
        assert isinstance(start, Start)
        assert live.state == "ALARM"
        assert live.changed_at == at  # the event's own period, not a later one
        names.setdefault(at, set()).add(start.name)
    assert all(len(of_period) == 1 for of_period in names.values())


@given(traces, st.integers(0, 40_000))
def test_the_sweep_starts_nothing_for_an_alarm_that_is_not_in_alarm(
    trace: list[tuple[str, int]], seconds: int
) -> None:
    live = live_at(periods(trace), T0 + timedelta(seconds=seconds))
    if live is None:
        return
    started = alarms.decide(live, {}, CONTRACT)
    assert isinstance(started, Start) == (live.state == "ALARM")


def test_an_event_and_the_sweep_give_one_name() -> None:
    change = alarms.read_event(event())
    live = alarms.read_alarm(described(StateTransitionedTimestamp=T0 + timedelta(seconds=1)))
    assert alarms.outdated(change, live) is None
    started = alarms.decide(live, {}, CONTRACT)
    assert isinstance(started, Start)
    assert started.name == alarms.execution_name(ARN, T0 + timedelta(seconds=1))


def test_an_event_whose_alarm_is_in_a_later_period_is_late() -> None:
    change = alarms.read_event(event())
    live = alarms.read_alarm(described(StateTransitionedTimestamp=T0 + timedelta(minutes=2)))
    late = alarms.outdated(change, live)
    assert late is not None
    assert late.reason == "late"


def test_a_reading_older_than_the_event_is_raised_to_be_tried_again() -> None:
    live = alarms.read_alarm(
        described(StateValue="OK", StateTransitionedTimestamp=T0 - timedelta(minutes=2))
    )
    with pytest.raises(ReadTooEarly):
        alarms.outdated(alarms.read_event(event()), live)
