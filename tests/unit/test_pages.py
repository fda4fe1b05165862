from dataclasses import replace

import pytest

from oncall import pages
from oncall.incident import Entry, Incident
from tests.unit.incidents import AT, DEADLINE, a_change, an_entry, an_incident, asking


def test_dedup_keys_stay_apart_when_they_are_cut() -> None:
    one = pages.capped_key("a" * 300 + "1")
    assert len(one) <= 255
    assert one != pages.capped_key("a" * 300 + "2")
    by_hand = an_incident(trigger={"kind": "hand"})
    assert pages.dedup_key(by_hand) == "runbook:arn:aws:sqs:us-east-1:123456789012:orders"


def actions(
    incident: Incident, sent: tuple[str, ...] = (), opened: dict[str, bool] | None = None
) -> list[tuple[str, str]]:
    return [(p.action, p.dedup_key) for p in pages.lacking(incident, sent, opened or {})]


DECIDED = {"decision": "approve", "by": "U0ALICE"}


CHANGED = Entry(
    id="changed-1",
    kind="changed",
    text="Set worker cap from 20 to 60: it is at its cap and healthy.",
    at="2026-11-23T03:02:07.000Z",
    seq=2,
)


def test_acting_alone_wakes_nobody() -> None:
    assert actions(an_incident(entries=(CHANGED,))) == [("change", "")]
    assert actions(an_incident(entries=(CHANGED,)), sent=("change",)) == []


@pytest.mark.parametrize("kind", ["alarm", "hand", "schedule"])
@pytest.mark.parametrize("outcome", ["", "resolved", "failed"])
def test_the_first_change_is_told_beside_the_services_incidents(kind: str, outcome: str) -> None:
    second = replace(CHANGED, id="changed-2", text="Set another.", at=DEADLINE, seq=4)
    over = {"status": "closed", "outcome": outcome, "closed_at": DEADLINE} if outcome else {}
    entries = (an_entry(1, "opened", "Started."), CHANGED, an_entry(3), second)
    incident = an_incident(trigger={"kind": kind}, entries=entries, **over)
    (page,) = pages.lacking(incident, [], {})
    assert (page.id, page.action, page.dedup_key) == ("change", "change", "")
    assert page.payload["summary"] == (
        "orders, runbook queue-saturation: Set worker cap from 20 to 60: it is at its cap and "
        "healthy."
    )
    assert page.payload["timestamp"] == CHANGED.at
    assert page.payload["source"] == incident.target
    assert page.payload["custom_details"]["incident"] == "orders-1"


@pytest.mark.parametrize("mode", ["auto", "ask"])
def test_where_nothing_was_changed_there_is_no_change_to_tell(mode: str) -> None:
    kinds = ("opened", "planned", "intended", "verified", "put_back", "closed")
    entries = tuple(an_entry(seq, kind) for seq, kind in enumerate(kinds, start=1))
    assert actions(an_incident(mode=mode, entries=entries)) == []


def test_observing_says_nothing_to_pagerduty() -> None:
    assert actions(an_incident(mode="observe", entries=(an_entry(kind="paged"),))) == []


def test_a_question_triggers_and_the_next_level_rings_elsewhere() -> None:
    assert actions(asking()) == [("trigger", "arn:alarm")]
    second = asking(ask={**asking().ask, "id": "q2", "level": 2})
    (page,) = pages.lacking(second, ["ask-q1"], {"arn:alarm": False})
    assert (page.dedup_key, page.escalated) == ("arn:alarm#level-2", True)


def test_a_decision_acknowledges_but_half_a_decision_does_not() -> None:
    opened = {"arn:alarm": False}
    decided = asking(phase="acting", entries=(an_entry(kind="decided", data=DECIDED),))
    assert actions(decided, opened=opened) == [("acknowledge", "arn:alarm")]
    half = asking(entries=(an_entry(kind="decided", data={**DECIDED, "missing": 1}),))
    assert actions(half, sent=("ask-q1",), opened=opened) == []


def test_a_page_after_a_decision_rings_again() -> None:
    entries = (an_entry(1, "decided", data=DECIDED), an_entry(2, "paged", "Stuck."))
    incident = asking(phase="handed_over", entries=entries)
    assert actions(incident, opened={"arn:alarm": False}) == [
        ("acknowledge", "arn:alarm"),
        ("trigger", "arn:alarm#e2"),
    ]
    later = {"arn:alarm": False, "arn:alarm#e2": False}
    assert actions(incident, sent=("ack-e1-arn:alarm", "paged-e2"), opened=later) == []


def test_only_resolved_resolves() -> None:
    opened = {"arn:alarm": False, "arn:alarm#level-2": True}
    for outcome, expected in (
        ("resolved", [("resolve", "arn:alarm"), ("resolve", "arn:alarm#level-2")]),
        ("aborted", []),
        ("ineffective", []),
    ):
        closed = an_incident(status="closed", outcome=outcome, closed_at=AT)
        assert actions(closed, sent=("change",), opened=opened) == expected


def test_a_storm_pages_once_and_resolves_its_own_page() -> None:
    child = asking(parent="storm-1")
    assert actions(child) == [("trigger", "storm:storm-1")]
    done = an_incident(parent="storm-1", status="closed", outcome="resolved", closed_at=AT)
    assert actions(done, opened={"storm:storm-1": False}) == []
    storm = an_incident(
        id="storm-1",
        trigger={"kind": "storm"},
        status="closed",
        outcome="resolved",
        closed_at=AT,
        entries=(an_entry(kind="joined", data={"incident": "i1"}),),
    )
    assert actions(storm) == [("resolve", "storm:storm-1")]


def test_a_page_says_what_was_changed_and_how_to_undo_it() -> None:
    paged = an_entry(kind="paged", text="It did not help.", severity="error")
    (page,) = pages.lacking(an_incident(entries=(paged,), changes=(a_change(),)), ["change"], {})
    assert page.payload["severity"] == "error"
    assert page.payload["summary"] == "orders: It did not help."
    assert page.payload["custom_details"]["changes"][0]["undo"].startswith("aws lambda")


def test_a_game_day_says_so_and_wakes_nobody() -> None:
    drill = {"kind": "hand", "alarm": {}, "game_day": True}
    second = {**asking().ask, "level": 2}
    incident = asking(trigger=drill, ask=second, entries=(CHANGED, an_entry(3, "paged", "Stuck.")))
    found = pages.lacking(incident, [], {})
    assert [page.action for page in found] == ["change", "trigger", "trigger"]
    assert all(page.payload["summary"].startswith("GAME DAY: ") for page in found)
    assert [page.payload.get("severity") for page in found] == [None, "info", "info"]
    assert not any(page.escalated for page in found)
