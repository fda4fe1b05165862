import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oncall import decisions
from oncall.decisions import Decision
from oncall.errors import BadInput, Denied
from oncall.incident import Ask, Entry, Incident

NOW = datetime(2026, 11, 23, 3, 2, tzinfo=UTC)
DEADLINE = "2026-11-23T03:12:00.000Z"
ALICE, BOB = "U0ALICE", "U0BOB"
CAROL = "arn:aws:iam::123456789012:user/carol"
DAVE = "arn:aws:iam::123456789012:user/dave"


def an_ask(**fields: Any) -> Ask:
    return Ask(
        **{
            "id": "q1",
            "plan_hash": "h",
            "token": "canary",
            "deadline": DEADLINE,
            "people": 1,
            "level": 1,
            **fields,
        }
    )


def an_incident(**fields: Any) -> Incident:
    return Incident(
        **{
            "id": "orders-1",
            "runbook": "r",
            "title": "t",
            "target": "arn",
            "target_name": "orders",
            "mode": "ask",
            "trigger": {},
            "execution": "",
            "fence": 1,
            "phase": "waiting",
            "ask": {"id": "q1", "state": "waiting"},
            **fields,
        }
    )


def by(who: str, kind: str = "approve") -> Decision:
    via = "invoke" if who.startswith("arn:") else "slack"
    return Decision("orders-1", kind, who, via, "q1")


def action(decision: Decision, incident: Incident, ask: Ask | None, now: datetime = NOW) -> str:
    return decisions.judge(decision, incident, ask, now).action


APPROVED_BY_ALICE = ({"by": ALICE, "at": DEADLINE, "via": "slack"},)
APPROVED_BY_CAROL = ({"by": CAROL, "at": DEADLINE, "via": "invoke"},)


def test_the_first_answer_settles() -> None:
    assert action(by(ALICE), an_incident(), an_ask()) == "settle"
    assert action(by(ALICE, "reject"), an_incident(), an_ask(people=2)) == "settle"


@pytest.mark.parametrize("first", ["invoke", "dashboard"])
@pytest.mark.parametrize("second", ["invoke", "dashboard"])
def test_two_claims_never_make_two_people(first: str, second: str) -> None:
    ask = an_ask(people=2, approvals=({"by": CAROL, "at": DEADLINE, "via": first},))
    verdict = decisions.judge(
        Decision("orders-1", "approve", DAVE, second, "q1"), an_incident(), ask, NOW
    )
    assert (verdict.action, verdict.text.partition(" already")[0]) == (
        "refuse",
        f"One approval came by {first}",
    )
    proven = Decision("orders-1", "approve", ALICE, "slack", "q1")
    assert action(proven, an_incident(), ask) == "settle"


def test_a_click_on_the_dashboard_is_a_claim_of_whom_its_field_names() -> None:
    click = {
        "incident": "orders-1",
        "decision": "approve",
        "ask": "q1",
        "widgetContext": {"forms": {"all": {"by": f" {CAROL} ", "queue-saturation.queue": "x"}}},
    }
    decision = decisions.parse_click(click)
    assert decision == Decision("orders-1", "approve", CAROL, "dashboard", "q1")
    assert decision.who == f"{CAROL} (by dashboard)"


@pytest.mark.parametrize(
    ("context", "says"),
    [
        ({}, "Say who you are first"),
        ({"forms": {"all": {"by": " "}}}, "Say who you are first"),
        ({"forms": {"all": {"by": ALICE}}}, "is no IAM principal"),
    ],
)
def test_a_click_that_does_not_say_who_decides_nothing(context: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        decisions.parse_click(
            {"incident": "orders-1", "decision": "approve", "widgetContext": context}
        )


def test_two_people_have_to_be_two() -> None:
    two = an_ask(people=2)
    assert action(by(ALICE), an_incident(), two) == "first"
    half = replace(two, approvals=APPROVED_BY_ALICE)
    assert action(by(ALICE), an_incident(), half) == "refuse"
    assert action(by(BOB), an_incident(), half) == "settle"
    assert action(by(CAROL), an_incident(), half) == "settle"


def test_a_claimed_identity_counts_once() -> None:
    half = an_ask(people=2, approvals=APPROVED_BY_CAROL)
    verdict = decisions.judge(by(DAVE), an_incident(), half, NOW)
    assert verdict.action == "refuse"
    assert "must come from Slack" in verdict.text
    assert action(by(ALICE), an_incident(), half) == "settle"
    assert action(by(DAVE, "reject"), an_incident(), half) == "settle"


def test_after_the_deadline_an_answer_is_late_but_a_stop_is_not() -> None:
    after = NOW + timedelta(minutes=10)
    assert action(by(ALICE), an_incident(), an_ask(), after) == "late"
    assert action(by(ALICE, "reject"), an_incident(), an_ask(), after) == "late"
    assert action(by(ALICE, "abort"), an_incident(), an_ask(), after) == "stop"


def test_who_was_first_is_told_to_who_is_second() -> None:
    decided = Entry(
        "d",
        "decided",
        "x",
        at="2026-11-23T03:01:00.000Z",
        data={
            "decision": "reject",
            "by": BOB,
            "ask": "q1",
        },
    )
    incident = an_incident(entries=(decided,), ask={"id": "q1", "state": "rejected"})
    verdict = decisions.judge(by(ALICE), incident, an_ask(state="rejected"), NOW)
    assert (verdict.action, verdict.text) == ("refuse", "Already rejected by U0BOB at 03:01 UTC.")


def test_a_stopped_or_closed_run_takes_no_answer() -> None:
    stopped = an_incident(
        stop={"kind": "abort", "by": BOB, "at": "2026-11-23T03:01:00.000Z", "reason": ""}
    )
    for kind in decisions.DECISIONS:
        verdict = decisions.judge(by(ALICE, kind), stopped, an_ask(), NOW)
        assert (verdict.action, verdict.text) == (
            "refuse",
            "Already aborted by U0BOB at 03:01 UTC.",
        )
        closed = an_incident(status="closed", outcome="resolved", closed_at=DEADLINE)
        verdict = decisions.judge(by(ALICE, kind), closed, an_ask(), NOW)
        assert verdict.action == "refuse"
        assert "closed (resolved) at 03:12 UTC" in verdict.text


def test_an_older_question_is_too_late_even_if_nobody_answered_it() -> None:
    newer = an_incident(ask={"id": "q2", "state": "waiting"})
    assert action(by(ALICE), newer, an_ask()) == "refuse"
    gone_on = an_incident(phase="handed_over")
    assert action(by(ALICE), gone_on, an_ask()) == "refuse"
    assert action(by(ALICE), an_incident(), None) == "refuse"


def test_every_order_of_answers_comes_to_one_end() -> None:
    """Play all orders by the rules alone: the first to settle wins, and only two can approve."""
    players = (by(ALICE), by(ALICE), by(BOB, "reject"), by(CAROL), by(DAVE), by(BOB, "abort"))
    for people in (1, 2):
        for order in itertools.permutations(players):
            ask, incident = an_ask(people=people), an_incident()
            ended: list[str] = []
            for decision in order:
                verdict = decisions.judge(decision, incident, ask, NOW)
                if verdict.action in {"first", "settle"} and decision.kind == "approve":
                    approval = {"by": decision.by, "at": DEADLINE, "via": decision.via}
                    ask = replace(ask, approvals=(*ask.approvals, approval))
                if verdict.action in {"settle", "stop"}:
                    ended.append(decision.kind)
                    state = {"approve": "approved", "reject": "rejected"}.get(decision.kind)
                    if state:
                        ask = replace(ask, state=state)
                    else:
                        stop = {"kind": "abort", "by": BOB, "at": DEADLINE}
                        incident = replace(incident, stop=stop)
            settled = [kind for kind in ended if kind != "abort"]
            assert len(settled) <= 1
            if "approve" in settled:
                persons = {a["by"] for a in ask.approvals}
                assert len(persons) == people
                assert sum(a["via"] == "invoke" for a in ask.approvals) < max(people, 2)
            if ended.index("abort") == 0:
                assert settled == []


def test_an_empty_list_of_approvers_means_nobody() -> None:
    with pytest.raises(Denied, match=r"the list is empty, so nobody is.*parameter Approvers"):
        decisions.refuse_stranger(by(ALICE), ())
    with pytest.raises(Denied, match=r"U0ALICE is not among the approvers\. The stack's"):
        decisions.refuse_stranger(by(ALICE), (BOB,))
    decisions.refuse_stranger(by(ALICE), (BOB, ALICE))


def test_a_plan_narrows_who_may_approve_but_not_who_may_stop() -> None:
    named = an_incident(plan={"order": {"approvers": [BOB, CAROL]}})
    for who in (BOB, CAROL):
        decisions.refuse_others(by(who), named)
    with pytest.raises(Denied, match="has named who may: U0BOB"):
        decisions.refuse_others(by(ALICE), named)
    for kind in ("reject", "abort", "take_over"):
        decisions.refuse_others(by(ALICE, kind), named)
    decisions.refuse_others(by(ALICE), an_incident(plan={"order": {"approvers": []}}))
    decisions.refuse_others(by(ALICE), an_incident(plan={"order": {}}))
    decisions.refuse_others(by(ALICE), an_incident())


def test_a_session_counts_as_its_role_and_as_no_other() -> None:
    role = "arn:aws:iam::123456789012:role/team/OnCall"
    session = "arn:aws:sts::123456789012:assumed-role/OnCall/alice"
    assert decisions.may_decide(session, (role,))
    assert decisions.may_decide(role, (role,))
    for other in (
        "arn:aws:sts::999999999999:assumed-role/OnCall/alice",
        "arn:aws:sts::123456789012:assumed-role/OnCallers/alice",
        "arn:aws:iam::123456789012:user/OnCall",
        "",
    ):
        assert not decisions.may_decide(other, (role,))


GOOD = {"incident": "i", "decision": "approve", "by": CAROL}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"incident": ""}, "incident"),
        ({"decision": "yes"}, "decision"),
        ({"by": ALICE}, "by"),
        ({"by": 5}, "by"),
        ({"reason": "x" * 501}, "reason"),
        ({"answer": "x"}, "answer"),
    ],
)
def test_a_wrong_call_names_the_field_and_an_example(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput, match=rf"^{field}: .*Give {{"):
        decisions.parse_decision({**GOOD, **changed})


def test_the_example_works() -> None:
    assert decisions.parse_decision(json.loads(decisions.EXAMPLE)).kind == "approve"


def test_a_token_is_not_in_what_is_printed() -> None:
    assert "canary" not in repr(an_ask())
