"""The scorecard: what counts as what, and when more or less autonomy is proposed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oncall import contract, scorecard
from oncall.incident import Incident
from oncall.scorecard import Run, false_fire, relief_seconds, score, sentence
from oncall.times import iso
from tests.unit.incidents import a_change, an_entry, an_incident

NOW = datetime(2026, 11, 30, 8, 0, tzinfo=UTC)
ALARM = "arn:aws:cloudwatch:us-east-1:123456789012:alarm:deep"
PLAN = {"action": "raise", "changes": [{"lever": "mapping-concurrency"}]}


def closed(outcome: str = "resolved", days: float = 1, **fields: Any) -> Incident:
    """A run that an alarm started ten minutes before it ended, on a plan with a change."""
    ended = NOW - timedelta(days=days)
    fired = iso(ended - timedelta(minutes=10))
    helped = [
        an_entry(1, "changed", "Set it.", at=iso(ended - timedelta(minutes=8))),
        an_entry(2, id="relief-1-1", at=iso(ended - timedelta(minutes=6))),
        an_entry(3, id="relief-1-4", at=iso(ended - timedelta(minutes=4))),
    ]
    return an_incident(
        **{
            "status": "closed",
            "outcome": outcome,
            "started_at": fired,
            "closed_at": iso(ended),
            "trigger": {
                "kind": "alarm",
                "alarm": {"name": "deep", "arn": ALARM, "changed_at": fired},
            },
            "plan": PLAN,
            "entries": tuple(helped),
            "changes": (a_change(state="put_back"),),
            **fields,
        }
    )


def idle(outcome: str = "observed", days: float = 1, **fields: Any) -> Incident:
    """A run that has changed nothing."""
    return closed(outcome, days, **{"entries": (), "changes": (), **fields})


def ok(incident: Incident, minutes: float) -> Run:
    """The same, with its alarm OK again so long after it fired."""
    fired = datetime.fromisoformat(scorecard.fired_at(incident))
    return Run(incident, iso(fired + timedelta(minutes=minutes)))


def lines(*runs: Incident | Run) -> list[scorecard.Line]:
    given = [run if isinstance(run, Run) else Run(run) for run in runs]
    known = {"queue-saturation", "dlq-replay", "route53-failback"}
    return score(given, NOW, lambda name: contract.load(name) if name in known else None)


def the_line(*runs: Incident | Run) -> scorecard.Line:
    [line] = lines(*runs)
    return line


def test_relief_is_the_last_look_before_settings_go_back() -> None:
    assert relief_seconds(closed()) == 6 * 60
    assert relief_seconds(closed("ineffective")) is None
    assert relief_seconds(idle("resolved")) is None


def test_relief_of_a_run_by_hand_is_counted_from_its_start() -> None:
    by_hand = closed(trigger={"kind": "hand", "by": "alice"})
    assert relief_seconds(by_hand) == 6 * 60


@pytest.mark.parametrize(
    ("run", "false"),
    [
        (Run(idle("resolved", plan={})), True),
        (ok(idle("handed_over"), 5), True),
        (ok(idle("handed_over"), 15), False),
        (Run(idle("observed")), False),
        (ok(closed("ineffective"), 5), False),
        (ok(idle("refused"), 5), False),
        (ok(idle("handed_over", trigger={"kind": "hand"}), 5), False),
    ],
)
def test_a_false_fire_is_one_with_nothing_to_do(run: Run, *, false: bool) -> None:
    assert false_fire(run) is false


def test_a_week_is_counted_by_runbook_and_target() -> None:
    busy = "Nothing: Incident orders-9 is already working on orders; this one joins its timeline."
    cooling = "Nothing: orders is cooling down until 2026-11-29T08:00:00.000Z: incident x ended."
    line = the_line(
        closed(),
        ok(closed("ineffective", 2), 42),
        ok(idle("refused", doing=busy), 2),
        ok(idle("refused", doing=cooling), 20),
        ok(idle("handed_over", 3), 4),
        closed(days=8),
    )
    assert (line.runs, line.verified, line.false_fires) == (5, 1, 1)
    assert line.outcomes == {"ineffective": 1, "handed_over": 1}
    assert line.refused == {"busy target": 1, "cooldown": 1}
    assert line.relief_seconds == 6 * 60
    assert line.by_hand_seconds == (42 + 20) / 2 * 60
    assert sentence(line) == (
        "queue-saturation on orders (auto): 5 runs, 1 verified, 1 handed over, 1 ineffective, "
        "2 refused (1 by busy target, 1 by cooldown). The alarm fired 1 times with nothing to do. "
        "Relief in 6 min, by hand 31 min (median)."
    )


def test_targets_are_apart_and_what_has_no_contract_is_not_counted() -> None:
    found = lines(closed(), closed(target="arn:b", target_name="b"), closed(runbook="storm"))
    assert [line.name for line in found] == ["orders", "b"]
    assert lines() == []


def test_two_runs_that_did_not_help_speak_for_less() -> None:
    line = the_line(closed("ineffective"), closed("failed", 9), *(closed() for _ in range(6)))
    assert line.proposal is not None
    assert (line.proposal.mode, line.proposal.up) == ("ask", False)
    assert line.proposal.why == "2 of 8 runs in four weeks did not help."
    assert line.proposal.command == (
        f"aws cloudwatch tag-resource --resource-arn {ALARM} --tags Key=runbook:mode,Value=ask"
    )
    assert "I propose less autonomy, mode ask: 2 of 8" in sentence(line)


def test_one_that_did_not_help_is_no_reason_and_older_than_four_weeks_none_either() -> None:
    assert the_line(closed("failed"), closed()).proposal is None
    assert the_line(closed("failed"), closed("failed", 29), closed()).proposal is None


def test_plans_that_are_rejected_speak_for_less() -> None:
    rejected = [idle("rejected", n, mode="ask") for n in (1, 2)]
    line = the_line(*rejected, closed(mode="ask"))
    assert line.proposal is not None
    assert line.proposal.mode == "observe"


def test_five_approved_plans_that_helped_speak_for_more() -> None:
    good = [closed(days=n, mode="ask") for n in range(1, 6)]
    assert the_line(*good[:4]).proposal is None
    line = the_line(*good)
    assert line.proposal is not None
    assert (line.proposal.mode, line.proposal.up) == ("auto", True)
    assert the_line(*good, idle("rejected", mode="ask")).proposal is None
    assert the_line(*good, idle("handed_over", mode="ask")).proposal is None


def test_plans_for_all_that_was_observed_speak_for_asking() -> None:
    seen = [idle(days=n, mode="observe") for n in range(1, 6)]
    line = the_line(*seen)
    assert line.proposal is not None
    assert line.proposal.mode == "ask"
    assert the_line(*seen, idle(mode="observe", plan={"action": "human"})).proposal is None


def test_nothing_is_proposed_that_always_asks_or_is_there_already() -> None:
    always = {**PLAN, "action": "lower"}
    assert (
        the_line(*(closed(days=n, mode="ask", plan=always) for n in range(1, 7))).proposal is None
    )
    assert the_line(*(closed(days=n) for n in range(1, 7))).proposal is None
    assert the_line(*(closed("failed", n, mode="observe") for n in range(1, 4))).proposal is None


def test_a_storm_and_a_run_by_hand_say_nothing_of_the_alarms_mode() -> None:
    asked = [closed(days=n, mode="ask", parent="storm-1") for n in range(1, 7)]
    by_hand = [closed(days=n, mode="ask", trigger={"kind": "hand"}) for n in range(1, 7)]
    line = the_line(*asked, *by_hand)
    assert (line.proposal, line.mode, line.verified) == (None, "", 12)


def test_an_alarm_that_fires_without_cause_is_named() -> None:
    line = the_line(*(ok(idle("handed_over", n), 4) for n in range(1, 4)), closed())
    assert line.note.startswith("3 of 4 alarms in four weeks were over before anything was done")
    assert line.note in sentence(line)


def test_a_document_is_read_back_as_it_was() -> None:
    found = lines(closed("failed"), closed("failed", 2), closed(target="arn:b"))
    assert scorecard.read(scorecard.document(found, NOW)) == found
    assert scorecard.read({}) == []


def test_the_week_in_a_sentence() -> None:
    found = lines(closed(), closed("failed"), idle("refused"), idle("resolved", plan={}))
    assert scorecard.total(found, NOW) == (
        "4 runs in the week to 30 Nov 2026: 1 verified, 1 ineffective or failed, 1 refused, "
        "1 false fires."
    )
    assert scorecard.total([], NOW) == "0 runs in the week to 30 Nov 2026."
