"""The dashboard's widget as HTML: which buttons fit, which commands stand in for them."""

import json
import shlex
from dataclasses import replace

import pytest

from oncall import contract, dashboard, scorecard
from oncall.dashboard import Deployment, Seen
from oncall.incident import Incident
from tests.unit.incidents import AT, NASTY, NOW, an_entry, an_incident, asking
from tests.unit.test_scorecard import closed, lines
from tests.widget import Widget

NAMES = ("dlq-replay", "queue-saturation")
CONTRACTS = {name: contract.load(name) for name in NAMES}
STACK = Deployment(
    buttons=True,
    decide="arn:aws:lambda:us-east-1:123456789012:function:runbooks-receive-decision",
    start="arn:aws:lambda:us-east-1:123456789012:function:runbooks-start-run",
    machines={name: f"arn:aws:states:us-east-1:1:stateMachine:{name}" for name in NAMES},
)
QUIET = Seen(now=NOW, running=[], ended=[], armed=[])


def page(*running: Incident, buttons: bool = True, **seen: object) -> Widget:
    shown = replace(QUIET, running=running, **seen)  # type: ignore[arg-type]  # of Seen
    return Widget(dashboard.page(shown, CONTRACTS, replace(STACK, buttons=buttons)))


def buttons(incident: Incident) -> list[str]:
    actions = page(incident).actions
    return [one.label for one in actions if one.payload.get("incident") == incident.id]


def test_a_quiet_night_says_so() -> None:
    seen = page()
    assert "Needs you (0) Nothing. Running (0) Nothing. Latest closed None." in seen.text
    assert "Alarms armed (0) None: tag an alarm" in seen.text
    assert "by" not in seen.fields


@pytest.mark.parametrize(
    ("incident", "wanted"),
    [
        (asking(), ["Approve", "Reject", "Take over", "Abort"]),
        (an_incident(phase="acting"), ["Take over", "Abort"]),
        (an_incident(phase="putting_back"), []),
        (an_incident(phase="acting", stop={"kind": "abort", "by": "x", "at": AT}), []),
        (an_incident(trigger={"kind": "storm"}), []),
    ],
)
def test_buttons_fit_the_state(incident: Incident, wanted: list[str]) -> None:
    assert buttons(incident) == wanted


def test_an_answer_names_its_question_and_a_stop_none() -> None:
    seen = page(asking())
    assert seen.action("Approve").payload == {
        "incident": "orders-1",
        "decision": "approve",
        "ask": "q1",
    }
    assert seen.action("Abort").payload == {"incident": "orders-1", "decision": "abort"}
    assert seen.action("Reject").endpoint == STACK.decide


def test_what_needs_somebody_comes_first() -> None:
    paged = an_incident(id="orders-2", phase="handed_over", entries=(an_entry(1, "paged"),))
    seen = page(an_incident(phase="watching"), paged)
    assert "Needs you (1)" in seen.text
    assert seen.text.index("orders-2") < seen.text.index("Running (1)")


def test_without_buttons_commands_decide_in_the_callers_own_name() -> None:
    seen = page(asking(), buttons=False)
    assert seen.actions == []
    assert seen.fields == {}
    commands = [text for text in seen.words if text.startswith("aws lambda invoke")]
    words = shlex.split(commands[0])
    payload = json.loads(words[words.index("--payload") + 1])
    assert payload == {
        "incident": "orders-1",
        "decision": "approve",
        "by": "$(aws sts get-caller-identity --query Arn --output text)",
    }
    assert words[words.index("--function-name") + 1] == STACK.decide
    assert len(commands) == 4
    [dry, _] = [text for text in seen.words if text.startswith("aws stepfunctions")]
    given = json.loads(shlex.split(dry)[-1])
    assert given == {"dlq": "orders-dlq", "mode": "observe"}


def test_a_run_takes_the_mode_of_whoever_is_there() -> None:
    seen = page()
    for name in NAMES:
        assert seen.action("Dry run", runbook=name).payload["mode"] == "observe"
        assert seen.action("Run", runbook=name).payload["mode"] == CONTRACTS[name].modes["hand"]


def test_text_from_outside_stays_text() -> None:
    nasty = f"{NASTY}</p></div><script>x</script><cwdb-action>"
    incident = asking(
        target_name=nasty,
        happened=nasty,
        doing=nasty,
        need=nasty,
        plan={"changes": [{"name": nasty, "before": nasty, "after": 1, "why": nasty}]},
    )
    done = an_incident(status="closed", outcome="failed", closed_at=AT, summary=nasty, need=nasty)
    card = scorecard.document(lines(closed(target_name=nasty)), NOW)
    seen = page(incident, ended=[done], armed=[(nasty, nasty)], card=card)
    assert "script" not in seen.tags
    assert seen.text.count("<script>x</script>") >= 8
    assert len([one for one in seen.actions if one.payload.get("incident")]) == 4


def test_a_scorecard_is_shown_with_what_it_proposes() -> None:
    found = lines(closed("failed"), closed("failed", 2), closed())
    seen = page(card=json.loads(json.dumps(scorecard.document(found, NOW))))
    assert "▼ ask: 2 of 3 runs in four weeks did not help." in seen.text
    assert "aws cloudwatch tag-resource --resource-arn" in seen.text


def test_drawings_follow_the_consoles_theme() -> None:
    svg = '<svg viewBox="0 0 1 1"><title>x</title></svg>'
    pages = [
        dashboard.page(
            replace(QUIET, running=[asking()], graphs={"orders-1": svg}, theme=theme),
            CONTRACTS,
            STACK,
        )
        for theme in ("light", "dark")
    ]
    assert all(svg in one for one in pages)
    assert pages[0] != pages[1]
