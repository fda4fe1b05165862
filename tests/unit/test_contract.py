"""The input of a run: what works, and one sentence with an example for all that does not."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncall import contract as contracts
from oncall.contract import parse_input, target_of_alarm
from oncall.errors import BadInput
from tests.unit.world import CONTRACT, QUEUE

ALARM = {
    "name": "orders-backlog",
    "arn": "arn:aws:cloudwatch:us-east-1:123456789012:alarm:orders-backlog",
    "changed_at": "2026-11-23T02:54:00.000Z",
}


def metric(queue: str, **more: Any) -> dict[str, Any]:
    return {"metricStat": {"metric": {"dimensions": {"QueueName": queue}}}, **more}


def event(*metrics: Any, **detail: Any) -> dict[str, Any]:
    return {
        "detail-type": "CloudWatch Alarm State Change",
        "resources": [ALARM["arn"]],
        "detail": {
            "alarmName": ALARM["name"],
            "state": {"value": "ALARM", "timestamp": ALARM["changed_at"]},
            "configuration": {"metrics": list(metrics)},
            **detail,
        },
    }


def parse(raw: Any) -> contracts.Request:
    return parse_input(CONTRACT, raw)


@pytest.mark.parametrize(
    "queue",
    [
        "orders",
        "orders.fifo",
        "Orders_2-x",
        "q" * 80,
        QUEUE,
        f"{QUEUE}.fifo",
        "https://sqs.us-east-1.amazonaws.com/123456789012/orders",
    ],
)
def test_a_queue_alone_is_enough_by_name_arn_or_url(queue: str) -> None:
    request = parse({"queue": queue})
    assert request == contracts.Request(
        target=queue,
        mode=CONTRACT.modes["hand"],
        trigger={"kind": "hand", "by": "", "reason": "", "alarm": {}},
    )


def test_a_person_may_give_mode_reason_and_name() -> None:
    request = parse({"queue": "orders", "mode": "observe", "reason": "a look", "by": "Alice"})
    assert request.mode == "observe"
    assert request.trigger == {"kind": "hand", "by": "Alice", "reason": "a look", "alarm": {}}


def test_an_alarm_starts_in_its_own_mode() -> None:
    contract = contracts.Contract(
        **{
            name: getattr(CONTRACT, name)
            for name in contracts.Contract.__dataclass_fields__
            if name != "modes"
        },
        modes={"alarm": "ask", "hand": "observe"},
    )
    request = parse_input(contract, {"queue": "orders", "alarm": ALARM, "reason": "382"})
    assert (request.mode, request.trigger["kind"]) == ("ask", "alarm")
    assert request.trigger["alarm"] == ALARM
    assert request.trigger["reason"] == "382"
    assert parse_input(contract, {"queue": "orders"}).mode == "observe"
    assert parse_input(contract, event(metric("orders"))).mode == "observe"


@pytest.mark.parametrize(
    ("mode", "then", "noted"),
    [
        ("auto", "ask", True),
        (None, "ask", True),
        ("ask", "ask", False),
        ("observe",) * 2 + (False,),
    ],
)
def test_a_storm_turns_auto_into_ask_and_leaves_the_rest(
    mode: str | None,
    then: str,
    noted: bool,  # noqa: FBT001 -- drawn from a table
) -> None:
    raw = {"queue": "orders", "alarm": ALARM, "storm": "storm-1"}
    request = parse(raw | ({"mode": mode} if mode else {}))
    assert (request.mode, request.parent) == (then, "storm-1")
    assert bool(request.mode_note) is noted
    assert not noted or "too many incidents at once" in request.mode_note


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (None, "input: it must be a JSON object."),
        ([], "input: it must be a JSON object."),
        ("orders", "input: it must be a JSON object."),
        ({}, "queue: it is missing."),
        ({"Queue": "orders", "mode": "ask"}, "queue: it is missing; you gave Queue, mode."),
        ({"queue": ""}, "queue: '' "),
        ({"queue": 5}, "queue: 5 is not of type 'string'."),
        ({"queue": None}, "queue: None is not of type 'string'."),
        (
            {"queue": "two words"},
            "queue: 'two words' cannot be the saturated queue, by name, URL or ARN",
        ),
        ({"queue": "q" * 81}, "queue: "),
        ({"queue": "arn:aws:sns:us-east-1:123456789012:orders"}, "queue: 'arn:aws:sns"),
        ({"queue": "orders", "mode": "fast"}, "mode: 'fast' is not one of"),
        ({"queue": "orders", "mode": ""}, "mode: '' is not one of"),
        ({"queue": "orders", "mode": None}, "mode: None is not one of"),
        ({"queue": "orders", "reason": "x" * 501}, "reason: "),
        ({"queue": "orders", "by": ["x"]}, "by: ['x'] is not of type 'string'."),
        ({"queue": "orders", "colour": "red"}, "input: Additional properties"),
        (event(), "detail.configuration.metrics: the alarm names no single QueueName."),
        (event(metric("a"), metric("b")), "detail.configuration.metrics: the alarm names no"),
        (
            event(metric("two words")),
            "queue: 'two words' cannot be the saturated queue, by name, URL or ARN",
        ),
    ],
)
def test_bad_input_is_told_in_one_sentence_with_an_example_that_works(raw: Any, says: str) -> None:
    with pytest.raises(BadInput) as bad:
        parse(raw)
    text = str(bad.value)
    assert text.startswith(says)
    assert "\n" not in text
    example = re.search(r"Give (\{.*\})\.$", text)
    assert example
    assert parse(json.loads(example[1])).target == "orders"


def test_an_example_is_the_smallest_input_that_works() -> None:
    assert json.loads(CONTRACT.example()) == {"queue": "orders"}


@pytest.mark.parametrize(
    ("detail", "target"),
    [
        (event(metric("orders"))["detail"], "orders"),
        (event(metric("orders"), metric("orders"))["detail"], "orders"),
        (event(metric("orders"), {"expression": "a / b", "id": "e"})["detail"], "orders"),
        (event(metric("orders"), metric("others"))["detail"], ""),
        (event({"metricStat": {"metric": {"dimensions": {"Other": "x"}}}})["detail"], ""),
        (event({"metricStat": {"metric": {}}})["detail"], ""),
        # A composite alarm.
        ({"configuration": {"alarmRule": "ALARM(a)"}}, ""),
        ({}, ""),
    ],
)
def test_an_alarm_names_its_target_when_it_names_one(detail: dict[str, Any], target: str) -> None:
    assert target_of_alarm(CONTRACT, detail) == target
    assert target_of_alarm(CONTRACT, detail, tagged="tagged") == "tagged"


def test_an_alarm_event_may_be_pasted() -> None:
    request = parse(event(metric("orders")))
    assert request.target == "orders"
    assert request.trigger == {
        "kind": "hand",
        "by": "",
        "reason": "pasted alarm event",
        "alarm": ALARM,
    }
    bare = parse({**event(metric("orders")), "resources": []})
    assert bare.trigger["alarm"]["arn"] == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
field_names = st.sampled_from(
    ["queue", "mode", "reason", "by", "alarm", "storm", "detail-type", "detail", "resources", "x"]
)
plausible = st.sampled_from(["orders", "auto", "CloudWatch Alarm State Change", ALARM])
inputs = json_values | st.dictionaries(field_names, plausible | json_values, max_size=6)


def check_junk(raw: Any) -> None:
    try:
        request = parse(raw)
    except BadInput as bad:
        assert re.match(r"[\w.]+: ", str(bad))  # noqa: PT017 -- either is right, nothing else is
        return
    assert re.fullmatch(r"[\w.:/-]+", request.target)
    assert request.mode in contracts.MODES
    alarm = request.trigger["alarm"]
    assert (request.trigger["kind"] == "alarm") <= isinstance(alarm.get("name"), str)
    assert isinstance(request.parent, str)


@given(raw=inputs)
def test_junk_is_bad_input_and_nothing_else(raw: Any) -> None:
    check_junk(raw)


@given(data=st.data())
def test_a_damaged_event_is_bad_input_and_nothing_else(data: st.DataObject) -> None:
    raw = json.loads(json.dumps(event(metric("orders"))))
    place: Any = raw
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else [0]))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            place[key] = data.draw(json_values)
            break
        place = inner
    check_junk(raw)


@pytest.mark.parametrize("name", ["queue-saturatoin", "", "../runbooks/queue-saturation"])
def test_a_runbook_that_there_is_not_is_told_with_those_there_are(name: str) -> None:
    with pytest.raises(BadInput) as bad:
        contracts.load(name)
    assert str(bad.value).startswith(f"runbook: there is no runbook {name!r}; there are ")
    assert "queue-saturation" in str(bad.value)


def test_a_contract_is_read_as_it_is_written() -> None:
    assert CONTRACT.id == "queue-saturation"
    assert CONTRACT.target_input == "queue"
    assert list(CONTRACT.two_people) == CONTRACT.text["approval"]["two_people"]
    assert CONTRACT.limits == CONTRACT.text["limits"]
    assert CONTRACT.verification["calm_periods"] == 3
    assert set(map(type, CONTRACT.verification.values())) <= {int, float}


def test_an_optional_input_left_empty_is_not_given() -> None:
    replay = contracts.load("dlq-replay")
    typed = {"dlq": "orders-dlq", "source": "", "deliver_to": "checkout", "reason": ""}
    assert parse_input(replay, typed).options == {"deliver_to": "checkout"}
    with pytest.raises(BadInput, match="dlq: ''"):
        parse_input(replay, {"dlq": "", "source": ""})
