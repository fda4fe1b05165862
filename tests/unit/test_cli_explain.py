import json
import re

import pytest
import yaml
from click.testing import CliRunner, Result

from cli import explain, show
from cli.app import main
from oncall import contract as contracts
from oncall.contract import CONTRACTS
from oncall.incident import Change, Entry, Incident
from tests.unit.closed import an_incident, at

PLAN = {
    "sentence": "Raise orders-worker's cap on orders 2 → 5.",
    "changes": [{"name": "the cap", "before": 2, "after": 5, "why": "drains in 15 periods"}],
    "evidence": ["373 waiting, 20 in flight", "runs at its cap of 2"],
    "bounds": ["max_factor 5"],
    "predicted_seconds": 900,
    "cause": "consumer_capped",
}
ASK = {"id": "abc-1-1", "deadline": at(600), "people": 1, "approvals": [], "state": "waiting"}
STANDING = Change(
    "mapping-concurrency", "arn:m", "the cap", 2, 5, "", "aws undo", at(99), "applied"
)


def runbook(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def waiting() -> Incident:
    return an_incident(
        status="open",
        phase="waiting",
        outcome="",
        closed_at="",
        happened="orders had 373 waiting.",
        diagnosis="consumer_capped",
        plan=PLAN,
        ask=ASK,
        changes=(),
        need="A yes or no from somebody by 03:10 UTC.",
    )


@pytest.mark.parametrize("name", contracts.names())
def test_a_runbook_is_explained_whole_and_without_aws(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.connection.Deployed.session", None)
    text = yaml.safe_load((CONTRACTS / f"{name}.yaml").read_text("utf-8"))

    told = json.loads(runbook("explain", name, "--output", "json").stdout)
    lines = runbook("explain", name, "--output", "text").stdout.splitlines()
    table = runbook("explain", name).stdout

    assert [one["state"] for one in told["states"]] == [one["state"] for one in text["steps"]]
    for mine, theirs in zip(told["states"], text["steps"], strict=True):
        assert mine["does"] == theirs["does"]
        assert mine["undo"] == theirs.get("undo", theirs.get("no_undo_because", ""))
    assert told["never"] == text["document"]["never"]
    assert told["limits"] == text["limits"]
    assert {one["input"] for one in told["inputs"] if one["needed"]} == {text["trigger"]["input"]}
    assert told["commands"][0]["type"].endswith(" --mode observe")
    assert all("\t" in line for line in lines)
    assert [line for line in lines if line.startswith("never\t")] == [
        f"never\t{show.safe(one)}" for one in text["document"]["never"]
    ]
    for title in explain.RUNBOOK.values():
        assert title in table
    for state in text["steps"]:
        assert state["state"] in table
        assert show.safe(state["does"]) in table


def test_commands_bear_the_stacks_name_and_the_input() -> None:
    told = runbook("explain", "queue-saturation", "queue=mine", "--stack", "prod").stdout

    assert "--function-name prod-receive-decision" in told
    assert "--name /prod/kill-switch/all" in told
    assert "STACK" not in told
    assert "runbook run queue-saturation queue=mine --mode observe --stack prod" in told


def test_a_wrong_input_is_told_before_anything_is_explained() -> None:
    ended = runbook("explain", "queue-saturation", "que=mine")

    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "queue: it is missing" in ended.stderr


def test_without_a_subject_the_runbooks_are_listed() -> None:
    rows = json.loads(runbook("explain", "--output", "json").stdout)

    assert [row["runbook"] for row in rows] == list(contracts.names())
    for row in rows:
        words = re.split(r"\s+", row["run"])
        assert runbook("explain", *words[2:]).exit_code == 0


def test_a_waiting_incident_says_why_and_how_to_answer_exactly_this_question() -> None:
    told = explain.incident(waiting())

    assert told["why"] == "consumer_capped"
    assert told["evidence"] == PLAN["evidence"]
    assert told["plan"] == [
        PLAN["sentence"],
        "the cap: 2 → 5, drains in 15 periods",
        "Bound by max_factor 5",
        "It should take 15 min 0 s.",
    ]
    assert told["waits_for"] == {k: ASK[k] for k in ("id", "deadline", "people", "approvals")}
    assert [one["type"] for one in told["commands"]] == [
        "runbook approve one --ask abc-1-1",
        "runbook reject one --ask abc-1-1",
        "runbook abort one",
        "runbook takeover one",
        "runbook watch one",
        "runbook explain queue-saturation",
    ]
    assert told["need"] == "Approve or reject by 03:10 UTC."


def test_what_was_changed_is_told_with_its_undo() -> None:
    step = Entry(
        "changed-1",
        "changed",
        "Done: move traffic.",
        at(9),
        data={"by_hand": "aws shift", "undo": "aws shift back"},
    )
    leased = Entry("change", "changed", "Set it.", at(8), data={"undo": "aws undo"})

    told = explain.incident(an_incident(changes=(STANDING,), entries=(leased, step)))

    (change,) = told["changes"]
    assert (change["before"], change["after"], change["undo"]) == ("2", "5", "aws undo")
    assert told["steps"] == [
        {
            "step": "Done: move traffic.",
            "at": at(9),
            "by_hand": "aws shift",
            "undo": "aws shift back",
        }
    ]


def test_after_an_observation_the_run_itself_is_offered() -> None:
    told = explain.incident(an_incident(outcome="observed", mode="observe"))

    assert "runbook run queue-saturation queue=orders" in [one["type"] for one in told["commands"]]


@pytest.mark.parametrize("output", ["table", "text"])
def test_text_from_outside_cannot_drive_the_terminal(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "fine\x1b]0;owned\x07\x1b[2J\nrunbook approve one [red]x[/red]"
    told = explain.incident(an_incident(happened=evil, diagnosis=evil))

    show.sections(told, explain.INCIDENT, output)

    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\nrunbook approve" not in printed
    assert "[red]x[/red]" in printed


def test_lines_are_stable_without_a_terminal_too(capsys: pytest.CaptureFixture[str]) -> None:
    show.lines([("a", None, True, False, 3, "x\ty\nz", 0.5)])

    assert capsys.readouterr().out == "a\t\tyes\tno\t3\tx y ⏎ z\t0.5\n"


def test_each_command_of_a_state_stands_on_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = {"state": "Look", "does": "Looks.", "by_hand": "First:\naws one\naws two --x"}

    show.sections({"states": [state]}, {"states": "Each state"}, "table")

    assert capsys.readouterr().out.splitlines() == [
        "Each state",
        "  Look",
        "      does             Looks.",
        "      by hand          First:",
        "                       aws one",
        "                       aws two --x",
    ]
