from datetime import UTC, datetime, timedelta

import pytest

from local.page import view
from local.pagerduty import FakePagerDuty
from local.slack import Ephemeral, FakeSlack, Version
from local.stories import Plotted, Row
from local.watch import Glance
from oncall.incident import Incident
from tests.unit.incidents import an_incident, asking
from tests.unit.pictures import parsed

NOW = datetime(2026, 11, 23, 3, 2, tzinfo=UTC)
DEPTH = Plotted("Orders that wait", "messages", alarmed=True)
CAP = Plotted("The cap", "at once", setting=True)


def a_version(text: str) -> Version:
    return Version(0, text, [], [], {})


def ended(outcome: str) -> Incident:
    return an_incident(status="closed", outcome=outcome, summary="orders is drained.")


@pytest.mark.parametrize(
    ("glance", "kind", "word"),
    [
        (None, "calm", "Starting"),
        (Glance("Steady load", alarm="OK"), "calm", "Calm"),
        (Glance("The alarm fired", alarm="ALARM"), "bad", "Alarm"),
        (Glance("x", state="Plan", incident=an_incident()), "run", "Running"),
        (Glance("x", state="Ask on-call", incident=asking()), "ask", "Waits for you"),
        (Glance("x", state="Done", over=True, incident=ended("resolved")), "good", "Resolved"),
        (Glance("x", state="F", over=True, incident=ended("handed_over")), "bad", "Handed over"),
    ],
)
def test_the_line_at_the_top_tells_how_it_stands(
    glance: Glance | None, kind: str, word: str
) -> None:
    found = view.status(glance, "")
    assert (found["kind"], found["word"]) == (kind, word)
    assert found["text"]


def test_after_the_story_another_run_is_told_as_the_first_was() -> None:
    again = Glance("x", state="Plan", incident=an_incident(), alarm="ALARM")
    assert view.status(again, "The story is over.")["word"] == "Running"
    assert view.status(Glance("x", alarm="ALARM"), "The story is over.")["word"] == "Alarm"
    assert view.status(Glance("x", alarm="OK"), "The story is over.")["word"] == "Ended"


def test_each_level_is_plotted_with_the_alarm_on_its_own_and_settings_with_their_changes() -> None:
    levels = view.Levels()
    for second in range(10):
        rows = (Row("queue", "x", 100 + second, DEPTH), Row("worker", "y", 2, CAP), Row("z", "z"))
        levels.add(Glance("x", rows), NOW + timedelta(seconds=second))
    levels.troubles.append(view.trouble_mark("A burst of 400 orders", NOW + timedelta(seconds=2)))
    glance = Glance("x", threshold=200)

    depth, cap = ("".join(parsed(svg).itertext()) for svg in view.plots(levels, glance, NOW, 500))

    assert "Orders that wait, messages" in depth
    assert "alarm at 200" in depth
    assert "a burst of 400 orders" in depth
    assert "alarm at" not in cap
    assert "burst" not in cap


@pytest.mark.parametrize(("asked", "drawn"), [(100, 300), (500, 500), (5000, 900)])
def test_plots_are_as_wide_as_asked_within_reason(asked: int, drawn: int) -> None:
    levels = view.Levels()
    levels.add(Glance("x", (Row("queue", "x", 1, DEPTH),)), NOW)
    (svg,) = view.plots(levels, None, NOW, asked)
    assert parsed(svg).get("width") == str(drawn)


def test_messages_come_in_order_and_an_answer_to_one_person_says_so() -> None:
    slack = FakeSlack()
    slack._store("C0ONCALL", None, a_version("Alarm."))
    slack._store("C0ONCALL", slack.messages[0].ts, a_version("I look."))
    slack.ephemerals.append(Ephemeral("C0ONCALL", "U0ALICE", "Approved.", [], None))

    root, reply, only = view.messages(slack)

    assert (root["root"], root["by"], root["html"]) == (True, "runbooks", "Alarm.")
    assert (reply["root"], reply["html"]) == (False, "I look.")
    assert (only["only"], only["html"]) == ("alice", "Approved.")
    assert view.people(slack) == {"U0ALICE": "alice", "U0BOB": "bob"}


def test_pagerduty_tells_who_was_woken() -> None:
    service = FakePagerDuty()
    assert "Nobody was woken" in view.pagerduty(service)
    service._apply(
        {
            "event_action": "trigger",
            "routing_key": service.routing_key,
            "dedup_key": "k",
            "payload": {"summary": "<b>orders</b>", "severity": "error", "source": "orders"},
        }
    )
    told = view.pagerduty(service)
    assert "woken once" in told
    assert "&lt;b&gt;orders" in told
