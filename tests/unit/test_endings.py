"""How a run ends: each error has its outcome, its words and its page."""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import oncall
from oncall import endings
from oncall.endings import Ending
from oncall.errors import OnCallError
from oncall.incident import Change, Incident

OUTCOMES = {
    "Aborted": "aborted",
    "Contained": "handed_over",
    "GuardRefused": "refused",
    "Ineffective": "ineffective",
    "NeedsHuman": "handed_over",
    "Recurred": "ineffective",
    "Rejected": "rejected",
    "RunLost": "failed",
    "TakenOver": "handed_over",
    "TargetBusy": "refused",
    # A run that these stop has failed.
    "BadInput": "failed",
    "Contended": "failed",
    "NotFound": "failed",
    "NotReconciled": "failed",
    "PutBackFailed": "failed",
    "WorldMoved": "failed",
    # These stop no run: the machine ends without a close, or another function raises them.
    "Denied": "failed",
    "LockLost": "failed",
    "Misconfigured": "failed",
    "NotDelivered": "failed",
    "SweepIncomplete": "failed",
}
"""Decided for every class there is: a new one has to be decided here."""

CHANGE = Change(
    lever="reserved-concurrency",
    resource="arn",
    name="worker's reserved concurrency",
    before=None,
    after=60,
    why="",
    undo="aws lambda delete-function-concurrency --function-name arn",
    expires_at="",
    state="applied",
)


def an_incident(*changes: Change, **fields: Any) -> Incident:
    return Incident(
        **{
            "id": "orders-1",
            "runbook": "queue-saturation",
            "title": "",
            "target": "arn:aws:sqs:us-east-1:123456789012:orders",
            "target_name": "orders",
            "mode": "auto",
            "trigger": {},
            "execution": "",
            "fence": 1,
            "changes": changes,
            **fields,
        }
    )


def classes(base: type[Exception] = OnCallError) -> Iterator[str]:
    for module in pkgutil.iter_modules(oncall.__path__, "oncall."):
        importlib.import_module(module.name)
    for error in base.__subclasses__():
        if error.__module__.startswith("oncall."):
            yield error.__name__
            yield from classes(error)


def a(state: str, name: str = CHANGE.name) -> Change:
    values = {field: getattr(CHANGE, field) for field in Change.__dataclass_fields__}
    return Change(**{**values, "state": state, "name": name})


def test_every_error_has_its_outcome_decided() -> None:
    assert set(classes()) == set(OUTCOMES)
    for error, outcome in OUTCOMES.items():
        assert endings.outcome(Ending(error, ""), "auto") == outcome, error


@pytest.mark.parametrize(
    "error",
    ["States.Timeout", "States.TaskFailed", "KeyError", "ClientError", "Sandbox.Timedout", "???"],
)
def test_anything_else_has_failed(error: str) -> None:
    assert endings.outcome(Ending(error, ""), "auto") == "failed"


@pytest.mark.parametrize(("error", "outcome"), [("NoAnswer", "handed_over"), ("", "resolved")])
def test_silence_and_a_good_end_have_their_outcome(error: str, outcome: str) -> None:
    assert endings.outcome(Ending(error, ""), "auto") == outcome


def test_only_a_run_that_nothing_has_stopped_ends_well() -> None:
    assert endings.outcome(Ending("", ""), "observe") == "observed"
    assert endings.outcome(Ending("", ""), "ask") == "resolved"
    assert endings.outcome(Ending("KeyError", ""), "observe") == "failed"
    assert not endings.GOOD & {endings.outcome(Ending(error, ""), "auto") for error in OUTCOMES}
    assert {"resolved", "observed"} == endings.GOOD


@pytest.mark.parametrize("error", [*OUTCOMES, "NoAnswer", "States.Timeout", "KeyError"])
def test_a_human_is_woken_unless_a_person_has_decided_or_only_observes(error: str) -> None:
    decided = error in {"Rejected", "Aborted", "TakenOver"}
    ending = Ending(error, "why")
    assert endings.pages(ending, an_incident()) is not decided
    assert endings.pages(ending, an_incident(mode="ask")) is not decided
    assert not endings.pages(ending, an_incident(mode="observe"))


@pytest.mark.parametrize("error", [*OUTCOMES, "NoAnswer", "KeyError"])
def test_what_a_guard_or_the_evidence_stops_is_an_error_and_the_rest_is_critical(
    error: str,
) -> None:
    mild = {"GuardRefused", "TargetBusy", "NeedsHuman", "TakenOver", "NoAnswer", "Contained"}
    wanted = "error" if error in mild else "critical"
    assert endings.severity(Ending(error, "")) == wanted


@pytest.mark.parametrize(
    ("cause", "because"),
    [
        (json.dumps({"errorMessage": "It is late.", "errorType": "X"}), "It is late."),
        (json.dumps({"other": 1}), '{"other": 1}'),
        ("plain words", "plain words"),
        ("[1]", "[1]"),
        ("", ""),
    ],
)
def test_the_cause_is_read_as_lambda_and_step_functions_write_it(cause: str, because: str) -> None:
    assert endings.read({"error": "X", "cause": cause}) == Ending("X", because)
    assert endings.read({}) == Ending("", "")


@pytest.mark.parametrize("error", ["States.Timeout", "States.HeartbeatTimeout"])
def test_a_step_that_has_timed_out_is_not_called_a_question_without_an_answer(error: str) -> None:
    text = endings.hand_over_text(Ending(error, ""), an_incident(CHANGE))
    assert text.startswith(f"The run stopped: {error}.")
    assert "Nobody answered" not in text
    assert CHANGE.undo in text


def test_silence_is_told() -> None:
    text = endings.hand_over_text(Ending("NoAnswer", ""), an_incident())
    assert text == "Nobody answered in time, so I did not go ahead. Nothing was changed."


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("Ineffective", "It has not helped."),
        ("PutBackFailed", "It has not helped."),
        ("KeyError", "A step failed (KeyError): It has not helped."),
        ("NotFound", "A step failed (NotFound): It has not helped."),
    ],
)
def test_why_is_told_with_the_class_only_where_nobody_has_worded_it(error: str, words: str) -> None:
    text = endings.hand_over_text(Ending(error, " It has not helped. "), an_incident())
    assert text == f"{words} Nothing was changed."


@pytest.mark.parametrize("state", ["intended", "applied", "handed_over"])
def test_what_may_still_stand_is_told_with_its_undo(state: str) -> None:
    incident = an_incident(a(state), a("put_back", "another"), a("left", "third"))
    undo = f"{CHANGE.name} is 60, was none: `{CHANGE.undo}`"
    assert endings.undo_commands(incident) == undo
    assert endings.hand_over_text(Ending("KeyError", "x"), incident).endswith(
        f"Still changed, with the command to undo it:\n{undo}"
    )
    assert endings.need(Ending("NeedsHuman", ""), incident) == (
        f"Take care of orders yourself. Still changed: {CHANGE.name} at 60. Left as somebody else "
        f"set it: third."
    )


@pytest.mark.parametrize(
    ("incident", "words"),
    [
        (an_incident(), "Nothing was changed."),
        (an_incident(a("put_back")), "Everything I changed is back as it was."),
        (an_incident(a("left")), f"Left as somebody else set it: {CHANGE.name}."),
        (an_incident(a("applied")), f"Still changed: {CHANGE.name} at 60."),
    ],
)
def test_what_is_left_is_told(incident: Incident, words: str) -> None:
    assert endings.need(Ending("KeyError", ""), incident).endswith(f"yourself. {words}")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("put_back", " and put it back."),
        ("left", "; somebody has changed it since, so I left it."),
        ("handed_over", "; it is yours now."),
        ("applied", "."),
        ("intended", "."),
    ],
)
def test_what_became_of_each_change_is_told(state: str, words: str) -> None:
    told = f"Set worker's reserved concurrency none → 60{words}"
    assert endings.closing_words(an_incident(a(state), a(state))) == f"{told} {told}"
    assert endings.closing_words(an_incident()) == "Nothing was changed."


def test_a_change_that_was_never_made_is_not_told_as_made() -> None:
    incident = an_incident(a("not_made"))
    assert endings.closing_words(incident) == f"Did not set {CHANGE.name} after all."
    assert endings.undo_commands(incident) == ""
    assert endings.need(Ending("KeyError", ""), incident).endswith(
        "Everything I changed is back as it was."
    )


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("applied", "."),
        ("put_back", "."),
        ("left", "; somebody has changed it since, so I left it."),
        ("handed_over", "; it is yours now."),
    ],
)
def test_what_is_mended_for_good_is_told_so(state: str, words: str) -> None:
    mended = replace(a(state), before=60)
    assert endings.closing_words(an_incident(mended)) == f"Set {CHANGE.name} to 60 for good{words}"


@pytest.mark.parametrize(
    ("error", "need"),
    [
        ("Rejected", "Nothing from me; it is yours."),
        ("Aborted", "Nothing from me; it is yours."),
        ("TakenOver", "Nothing from me; it is yours."),
        ("NeedsHuman", "Take care of orders yourself. Nothing was changed."),
        (
            "PutBackFailed",
            "Put the settings back with the commands in the thread; I try again too.",
        ),
    ],
)
def test_what_the_person_has_to_do_is_told(error: str, need: str) -> None:
    assert endings.need(Ending(error, ""), an_incident()) == need


@pytest.mark.parametrize(
    ("error", "outcome", "summary"),
    [
        ("", "resolved", "orders is drained, in 27 s. Everything I changed is back as it was."),
        ("", "observed", "orders: observed, nothing was changed. Drained."),
        (
            "NeedsHuman",
            "handed_over",
            "Handed over: Look. Everything I changed is back as it was.",
        ),
        (
            "Ineffective",
            "ineffective",
            "Ineffective: Look. Everything I changed is back as it was.",
        ),
    ],
)
def test_the_last_line_says_how_it_ended(error: str, outcome: str, summary: str) -> None:
    incident = an_incident(a("put_back"), doing="Drained.", progress={"text": "orders is drained."})
    took = timedelta(seconds=27)
    assert endings.summary(Ending(error, "Look."), outcome, incident, took) == summary


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (60, "1 min"), (119, "1 min"), (120, "2 min")],
)
def test_the_last_line_says_how_long_it_took(seconds: float, words: str) -> None:
    ending, took = Ending("", ""), timedelta(seconds=seconds)
    told = endings.summary(ending, "resolved", an_incident(), took)
    assert told == f"orders is relieved, in {words}. Nothing was changed."


def test_what_a_good_end_leaves_to_be_done_is_its_need_and_in_its_last_line() -> None:
    left = {"text": "It works.", "warning": "The next may fail.", "need": "Mend it."}
    incident = an_incident(need="Nothing. I page you.", progress=left)
    assert endings.closing_need("resolved", incident) == "Mend it."
    assert endings.closing_need("failed", incident) == "Nothing. I page you."
    assert endings.closing_need("resolved", an_incident()) == "Nothing."
    told = endings.summary(Ending("", ""), "resolved", incident, timedelta(minutes=4))
    assert told.startswith("It works, in 4 min. The next may fail. ")
