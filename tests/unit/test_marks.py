from datetime import UTC, datetime

from oncall.marks import marks
from tests.unit.incidents import a_change, an_entry, an_incident


def at(second: int) -> str:
    return f"2026-11-23T03:02:{second:02d}.000Z"


def test_what_happened_to_an_incident_is_marked_in_order() -> None:
    incident = an_incident(
        trigger={"kind": "alarm", "alarm": {"name": "deep", "changed_at": at(0)}},
        outcome="resolved",
        status="closed",
        changes=(a_change(recorded_at=at(5), ended_at=at(20), state="put_back"),),
        entries=(
            an_entry(1, "asked", at=at(2)),
            an_entry(2, "decided", at=at(4), data={"decision": "approve", "by": "U0ALICE"}),
            an_entry(3, "changed", at=at(6)),
            an_entry(4, "verified", at=at(10), id="relief-1-1"),
            an_entry(5, "verified", at=at(18), id="relief-1-2"),
            an_entry(6, "put_back", at=at(20)),
            an_entry(7, "verified", at=at(25), id="calm-1-1"),
            an_entry(8, "closed", at=at(30)),
        ),
    )
    found = [(mark.at.second, mark.label, mark.kind) for mark in marks(incident)]
    assert found == [
        (0, "alarm", "alarm"),
        (2, "asked", "other"),
        (4, "approved", "change"),
        (5, "20 → 60", "change"),
        (18, "verified", "proof"),
        (20, "put back", "undo"),
        (30, "resolved", "proof"),
    ]


def test_a_change_that_was_never_made_and_a_bad_end_are_told_as_such() -> None:
    incident = an_incident(
        outcome="handed_over",
        status="closed",
        trigger={"kind": "hand"},
        changes=(a_change(recorded_at=at(1), state="not_made"),),
        entries=(an_entry(1, "paged", at=at(3)), an_entry(2, "closed", at=at(4))),
    )
    assert [(mark.label, mark.kind) for mark in marks(incident)] == [
        ("paged", "alarm"),
        ("handed over", "alarm"),
    ]
    assert marks(incident)[0].at == datetime(2026, 11, 23, 3, 2, 3, tzinfo=UTC)


def test_a_change_that_stands_has_no_mark_of_its_end() -> None:
    incident = an_incident(changes=(a_change(recorded_at=at(1), state="applied"),))
    assert [mark.label for mark in marks(incident)] == ["20 → 60"]


def test_steps_that_are_no_settings_are_marked_and_their_last_look_is_the_proof() -> None:
    entries = (
        an_entry(1, "changed", at=at(5)),
        an_entry(2, "verified", at=at(8), id="relief-1-1"),
        an_entry(3, "verified", at=at(12), id="calm-1-1"),
        an_entry(4, "closed", at=at(14)),
    )
    done = an_incident(entries=entries, outcome="resolved", status="closed", trigger={})
    assert [(mark.at.second, mark.label) for mark in marks(done)] == [
        (5, "changed"),
        (8, "verified"),
        (14, "resolved"),
    ]
    failed = an_incident(entries=entries, outcome="ineffective", status="closed", trigger={})
    assert "verified" not in [mark.label for mark in marks(failed)]
