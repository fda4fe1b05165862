"""When an incident's graph is due, and what it shows and marks."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from oncall import contract, graphs
from oncall.graphs import END, PLAN, Line, due, make
from oncall.incident import Incident
from oncall.service import RequestMetrics, load
from oncall.times import iso
from tests.unit.incidents import AT, a_change, an_entry, an_incident

STARTED = datetime.fromisoformat(AT)
NOW = STARTED + timedelta(minutes=30)
DEPTH = Line("AWS/SQS", "Depth", "Maximum", {"QueueName": "orders"}, "messages waiting")
AGE = Line("AWS/SQS", "Age", "Maximum", {"QueueName": "orders"}, "age in seconds", "right")
PLANNED = {"plan": {"hash": "c0ffee"}, "phase": "waiting"}
ALARM: dict[str, Any] = {
    "Namespace": "AWS/SQS",
    "MetricName": "Depth",
    "Dimensions": [{"Name": "QueueName", "Value": "orders"}],
    "Threshold": 5000.0,
    "ComparisonOperator": "GreaterThanOrEqualToThreshold",
}


def at(minutes: float) -> str:
    return iso(STARTED + timedelta(minutes=minutes))


def fired(minutes: float) -> dict[str, Any]:
    alarm = {"name": "deep", "arn": "arn:alarm", "changed_at": at(minutes)}
    return {"trigger": {"kind": "alarm", "alarm": alarm}}


def drawn(incident: Incident, alarm: dict[str, Any] | None = None, **more: Any) -> graphs.Graph:
    given = {"period_seconds": 60, "now": NOW, **more}
    return make(incident, [DEPTH, AGE], alarm, **given)


def marks(graph: graphs.Graph) -> list[tuple[str, str]]:
    return [(one["value"], one["label"]) for one in graph.widget["annotations"]["vertical"]]


def closed(**fields: Any) -> Incident:
    return an_incident(
        **{
            "status": "closed",
            "outcome": "resolved",
            "summary": "orders: drained.",
            "closed_at": at(30),
            **PLANNED,
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("incident", "shown", "wanted"),
    [
        (an_incident(), [], ""),
        (an_incident(**PLANNED), [], PLAN),
        (an_incident(**{**PLANNED, "phase": "investigating"}), [], ""),
        (an_incident(**{**PLANNED, "phase": "acting"}), [], PLAN),
        (an_incident(**PLANNED), [PLAN], ""),
        (an_incident(**PLANNED, parent="storm-1"), [], ""),
        (closed(plan={}), [], ""),
        (closed(execution=""), [], ""),
        (closed(), [], END),
        (closed(), [PLAN], ""),
        (closed(entries=(an_entry(kind="verified"),)), [PLAN], END),
        (closed(entries=(an_entry(kind="changed"),)), [PLAN], END),
        (closed(entries=(an_entry(kind="changed"),)), [PLAN, END], ""),
        (closed(entries=(an_entry(kind="changed"),), parent="storm-1"), [PLAN], ""),
    ],
)
def test_a_graph_is_due_where_a_plan_is_told_and_where_there_is_news_at_the_end(
    incident: Incident, shown: list[str], wanted: str
) -> None:
    assert due(incident, shown) == wanted


def test_a_whole_run_is_marked_in_order() -> None:
    incident = closed(
        **fired(-8),
        changes=(
            a_change(lever="mapping-concurrency", before=2, after=5, recorded_at=at(4)),
            a_change(state="not_made", recorded_at=at(5)),
        ),
        entries=(
            an_entry(1, "decided", at=at(1), data={"decision": "approve", "by": "U0ALICE"}),
            an_entry(2, "verified", at=at(8)),
            an_entry(3, "verified", at=at(16)),
            an_entry(4, "put_back", at=at(20), data={"state": "put_back"}),
            an_entry(5, "verified", at=at(29)),
        ),
    )
    assert marks(drawn(incident)) == [
        (at(-8), "alarm"),
        (at(1), "approved"),
        (at(4), "mapping-concurrency 2 to 5"),
        (at(16), "relief verified"),
        (at(20), "put back"),
    ]


def test_a_run_by_hand_that_did_not_help_says_so_by_its_marks() -> None:
    incident = closed(
        trigger={"kind": "hand"},
        outcome="ineffective",
        entries=(an_entry(1, "verified", at=at(10)), an_entry(2, "paged", at=at(20))),
    )
    assert marks(drawn(incident)) == [(AT, "run started"), (at(20), "person called")]


def test_steps_of_a_failover_are_marked() -> None:
    step = {"sentence": "send all traffic to eu-west-1 by routing control"}
    entry = an_entry(1, "changed", at=at(3), data={"step": step})
    assert (at(3), step["sentence"]) in marks(drawn(closed(entries=(entry,))))


def test_marks_that_would_lie_on_each_other_are_one() -> None:
    steps = [
        an_entry(n, "changed", at=at(3 + n / 60), data={"step": {"sentence": f"raise step {n}"}})
        for n in range(9)
    ]
    graph = drawn(closed(entries=tuple(steps)))
    one, *rest = [mark for mark in marks(graph) if "raise" in mark[1]]
    assert one == (at(3), "raise step 0, raise step 1, raise step 2, raise step 3, rai…")
    assert rest == []
    # Who does not see the picture is told each.
    assert all(f"raise step {n} at " in graph.alt for n in range(9))


def test_it_begins_before_the_trouble_and_ends_with_the_run() -> None:
    widget = drawn(closed(**fired(-8))).widget
    assert (widget["start"], widget["end"]) == (at(-38), at(30))
    widget = drawn(an_incident(**fired(-8), **PLANNED)).widget
    assert (widget["start"], widget["end"]) == (at(-38), iso(NOW))


def test_an_alarm_of_last_week_does_not_squeeze_the_night() -> None:
    graph = drawn(closed(**fired(-7 * 24 * 60)))
    assert graph.widget["start"] == at(-180)
    assert marks(graph) == []


@pytest.mark.parametrize("changed_at", ["", "yesterday", None])
def test_a_pasted_event_without_a_time_is_as_by_hand(changed_at: str | None) -> None:
    trigger = {"kind": "hand", "alarm": {"name": "deep", "arn": "a", "changed_at": changed_at}}
    assert marks(drawn(closed(trigger=trigger))) == [(AT, "run started")]


@pytest.mark.parametrize(
    ("period", "minutes", "wanted"),
    [(1, 1, 1), (5, 1, 5), (60, 30, 60), (60, 24 * 60, 180), (300, 30, 300), (1, 20, 5)],
)
def test_the_period_is_one_that_cloudwatch_takes(period: int, minutes: int, wanted: int) -> None:
    incident = closed(trigger={"kind": "hand"}, closed_at=at(minutes))
    assert drawn(incident, period_seconds=period).widget["period"] == wanted


def test_the_threshold_stands_on_its_metrics_axis() -> None:
    (line,) = drawn(closed(), ALARM).widget["annotations"]["horizontal"]
    assert (line["value"], line["label"], line["yAxis"]) == (5000.0, "alarm from 5000", "left")
    (line,) = drawn(closed(), ALARM | {"MetricName": "Age"}).widget["annotations"]["horizontal"]
    assert line["yAxis"] == "right"


@pytest.mark.parametrize(
    "alarm",
    [
        None,
        ALARM | {"MetricName": "Sent"},
        ALARM | {"Dimensions": [{"Name": "QueueName", "Value": "other"}]},
        {"Metrics": [{"Id": "e1", "Expression": "a/b"}], "Threshold": 1.0},
        {key: value for key, value in ALARM.items() if key != "Threshold"},
    ],
)
def test_a_threshold_of_what_is_not_shown_is_not_drawn(alarm: dict[str, Any] | None) -> None:
    assert drawn(closed(), alarm).widget["annotations"]["horizontal"] == []


def test_title_and_alt_text_stand_alone() -> None:
    graph = drawn(closed(**fired(-8)), ALARM)
    assert graph.title == "orders: messages waiting and age in seconds, 02:24 to 03:32 UTC"
    assert graph.alt == (
        f"Graph of {graph.title}. Threshold: alarm from 5000. Marked: alarm at 02:54:00. "
        "orders: drained."
    )


def test_alt_text_keeps_slacks_limit() -> None:
    graph = drawn(closed(summary="long " * 400, target_name="q" * 200))
    assert len(graph.alt) <= graphs.MAX_ALT
    assert graph.title.startswith("q" * 30)


def test_text_from_outside_is_cleaned() -> None:
    change = a_change(lever="x\u202ey\n" * 40, recorded_at=at(3))
    (_, _), (_, label) = marks(drawn(closed(**fired(-8), changes=(change,))))
    assert "\u202e" not in label
    assert "\n" not in label
    assert len(label) <= 60


def test_a_contract_declares_its_lines() -> None:
    about = contract.load("queue-saturation")
    first, second = graphs.lines_of(about.text["graph"], about.trigger, "orders")
    assert (first.metric, first.axis) == ("ApproximateNumberOfMessagesVisible", "left")
    assert (second.metric, second.axis) == ("ApproximateAgeOfOldestMessage", "right")
    assert first.dimensions == {"QueueName": "orders"}
    widget = make(closed(), [first, second], None, period_seconds=60, now=NOW).widget
    assert widget["metrics"][0] == [
        "AWS/SQS",
        "ApproximateNumberOfMessagesVisible",
        "QueueName",
        "orders",
        {"stat": "Maximum", "label": "messages waiting", "yAxis": "left"},
    ]
    assert widget["yAxis"]["right"]["label"] == "age of the oldest in seconds"


def test_a_service_shows_its_requests_by_region() -> None:
    shop = load("shop", Path("runbooks/sample"))
    shown = [(line.label, line.region) for line in graphs.lines_of_service(shop)]
    assert shown == [
        ("requests in us-east-1", "us-east-1"),
        ("requests in eu-west-1", "eu-west-1"),
        ("errors in us-east-1", "us-east-1"),
        ("errors in eu-west-1", "eu-west-1"),
    ]
    assert isinstance(shop.requests, RequestMetrics)
    widget = make(closed(), graphs.lines_of_service(shop), None, period_seconds=60, now=NOW).widget
    assert {metric[-1]["region"] for metric in widget["metrics"]} == {"us-east-1", "eu-west-1"}


def test_a_service_without_requests_shows_its_health_checks() -> None:
    shop = replace(load("shop", Path("runbooks/sample")), requests=None)
    shown = [(line.label, line.region) for line in graphs.lines_of_service(shop)]
    assert shown == [("health of the primary", "us-east-1"), ("health of the standby", "us-east-1")]


def test_times_are_utc() -> None:
    assert drawn(closed()).widget["timezone"] == "+0000"
    assert NOW.tzinfo == UTC
