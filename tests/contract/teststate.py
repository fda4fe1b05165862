"""Requests to Step Functions' TestState: every way out of every Task and Map state of a machine.

What functions answer is mocked; AWS evaluates the state's own expressions
(https://docs.aws.amazon.com/step-functions/latest/apireference/API_TestState.html). What to expect
is worked out with the port of JSONata's reference implementation, from values like a real run's.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonata import Jsonata  # type: ignore[import-untyped]  # published without types

from tools.checks import expressions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
CALLBACK = ".waitForTaskToken"
UNFORESEEN = "Unforeseen"
"""An error that no Retry and no Catch names, so that States.ALL catches it."""
_ARN = re.compile(r"\$\{(\w+)FunctionArn\}")
_FUNCTION = re.compile(r":function:(\w+)")
_AT = "2026-01-31T03:02:12Z"
_ALL = "States.ALL"


@dataclass(frozen=True, slots=True)
class Case:
    """One request, and what has to come of it."""

    machine: str
    state: str
    how: str
    """``succeeds``, ``fails with <error>``, or ``tries again after <error>``"""
    request: Mapping[str, Any]
    """``TestState``'s parameters."""
    status: str
    """``SUCCEEDED CAUGHT_ERROR RETRIABLE``"""
    next: str | None
    assigned: Mapping[str, Any]
    """The variables that the state sets, by name."""


def event(verb: str) -> Any:
    """Return a function's event."""
    return json.loads((ROOT / f"events/{verb}.json").read_text("utf-8"))


_TALLY = event("verify_replay")["tallies"][0]
_TAKEN = {"number": 1, "verdict": "next", "wait_seconds": 0, "looks": 0}
_PLANNED = {
    "action": "raise",
    "levers": ["mapping-concurrency"],
    "needs_yes": False,
    "plan_hash": event("set_mapping_concurrency")["plan_hash"],
    "period_seconds": 60,
}
_ANSWERS: Mapping[str, Any] = {
    "MoveDeadLetters": {"tally": _TALLY},
    "TakeFailoverStep": _TAKEN,
    "ReconcileReplay": {"archived": 37, "replayed": 37, "unknown": 0, "differences": 0},
    "PutBack": {"put_back": [], "left": []},
    "HandOver": {"paged": True},
    "CloseIncident": {
        "outcome": "resolved",
        "error": "Resolved",
        "summary": "orders is drained.",
        "good": True,
    },
}
"""What functions answer that do not open, inspect, plan, verify or change a setting."""
_CHANGED = {"lever": "", "name": "orders-worker's maximum", "before": 2, "after": 4}


def _variables(machine: str, whole: str) -> dict[str, Any]:
    """Return what a machine's variables are like in the middle of a run."""
    used = _FUNCTION.findall(whole)
    # A machine that plans nothing, as wind-down, ends a run of one that does.
    plan = next((name for name in used if name.startswith("Plan")), "PlanQueueRelief")
    verify = next((name for name in used if name.startswith("Verify")), "VerifyQueue")
    planned = event(_snake(plan))
    return {
        "run": planned["run"] | ({"runbook": machine} if plan in used else {}),
        "facts": planned["facts"],
        "plan": _PLANNED,
        "todo": _PLANNED["levers"],
        "look": event(_snake(verify))["look"],
        "ending": {"error": "", "cause": ""},
        "tallies": [_TALLY],
        "taken": _TAKEN,
        "closed": False,
    }


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _context(machine: str, state: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    name = variables["run"]["incident"]
    arn = "arn:aws:states:eu-west-1:123456789012"
    return {
        "Execution": {
            "Id": f"{arn}:execution:runbooks-{machine}:{name}",
            "Name": name,
            "Input": {"queue": "orders"},
            "RoleArn": "arn:aws:iam::123456789012:role/runbooks",
            "StartTime": _AT,
        },
        "State": {"Name": state, "EnteredTime": _AT, "RetryCount": 0},
        "StateMachine": {"Id": f"{arn}:stateMachine:runbooks-{machine}", "Name": machine},
        "Task": {"Token": event("ask")["token"]},
    }


def filled(definition: Mapping[str, Any]) -> str:
    """Return a definition as it is deployed: JSON, with its placeholders filled in."""
    text = _ARN.sub(
        lambda found: f"arn:aws:lambda:eu-west-1:123456789012:function:{found[1]}",
        json.dumps(definition),
    )
    return text.replace("${AnswerWithinSeconds}", "600")


def cases(machine: str, definition: Mapping[str, Any]) -> Iterator[Case]:
    """Yield every way out of every Task and Map state of a machine.

    A state inside a Map is not tested by itself: a request names one of the machine's own.
    """
    whole = filled(definition)
    for name, state in json.loads(whole)["States"].items():
        if state["Type"] in {"Task", "Map"}:
            yield from _of_state(machine, name, state, whole)


def _of_state(machine: str, name: str, state: Mapping[str, Any], whole: str) -> Iterator[Case]:
    variables = _variables(machine, whole)
    context = _context(machine, name, variables)
    request: dict[str, Any] = {
        "definition": whole,
        "stateName": name,
        "input": json.dumps({"queue": "orders"}),
        "variables": json.dumps(variables),
        "context": json.dumps(context),
        "inspectionLevel": "DEBUG",
    }

    def case(
        how: str, mock: Mapping[str, Any], status: str, part: Mapping[str, Any], **more: Any
    ) -> Case:
        given = more.pop("given")
        assigned = (
            {key: evaluated(value, {**variables, "states": {"context": context, **given}})
             for key, value in part.get("Assign", {}).items()}
        )  # fmt: skip
        asked = {**request, "mock": mock, **more}
        return Case(machine, name, how, asked, status, part.get("Next"), assigned)

    result = _result(variables, state)
    # Whether STRICT takes the Payload of Lambda's model, a blob, for the object that the
    # integration hands on is not documented.
    mock = {"result": json.dumps(result), "fieldValidationMode": "NONE"}
    yield case("succeeds", mock, "SUCCEEDED", state, given={"result": result})
    for catch in state.get("Catch", ()):
        for named in catch["ErrorEquals"]:
            error = UNFORESEEN if named == _ALL else named
            output = {"Error": error, "Cause": json.dumps({"errorMessage": "It was so."})}
            yield case(
                f"fails with {error}", _failing(output), "CAUGHT_ERROR", catch,
                given={"errorOutput": output}, **_where(state),
            )  # fmt: skip
    for retrier in state.get("Retry", ()):
        error, most = retrier["ErrorEquals"][0], retrier["MaxAttempts"]
        output = {"Error": error, "Cause": "busy"}
        yield case(
            f"tries again after {error}", _failing(output), "RETRIABLE", {},
            given={}, stateConfiguration={"retrierRetryCount": 0},
        )  # fmt: skip
        caught = next((one for one in state.get("Catch", ()) if _ALL in one["ErrorEquals"]), None)
        if caught:
            yield case(
                f"fails with {error} too often", _failing(output), "CAUGHT_ERROR", caught,
                given={"errorOutput": output}, stateConfiguration={"retrierRetryCount": most},
            )  # fmt: skip


def _failing(output: Mapping[str, str]) -> dict[str, Any]:
    return {"errorOutput": {"error": output["Error"], "cause": output["Cause"]}}


def _where(state: Mapping[str, Any]) -> dict[str, Any]:
    """Say which state inside a Map has failed."""
    if state["Type"] != "Map":
        return {}
    inside = state["ItemProcessor"]["StartAt"]
    return {"stateConfiguration": {"errorCausedByState": inside, "mapIterationFailureCount": 1}}


def _result(variables: Mapping[str, Any], state: Mapping[str, Any]) -> Any:
    """Return what a state's integration hands on."""
    if state["Type"] == "Map":
        return [_TALLY]
    if state["Resource"].endswith(CALLBACK):
        return {"decision": "approve"}  # whatever the decision sends
    function = state["Arguments"]["FunctionName"].rpartition(":")[2]
    verb = _snake(function).partition("_")[0]
    answers = {
        "open": {"run": variables["run"]},
        "inspect": {"facts": variables["facts"]},
        "plan": _PLANNED,
        "check": {"ready": True},
        "verify": {"look": variables["look"], "verdict": variables["look"]["verdict"]},
    }
    answer = answers.get(verb) or _ANSWERS.get(function, _CHANGED)
    return {"ExecutedVersion": "$LATEST", "Payload": answer, "StatusCode": 200}


def evaluated(value: Any, names: Mapping[str, Any]) -> Any:
    """Evaluate what a state assigns; ``None`` for what is not there."""
    if isinstance(value, dict):
        return {key: evaluated(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [evaluated(item, names) for item in value]
    body = expressions.body(value) if isinstance(value, str) else None
    if body is None:
        return value
    expression = Jsonata(body)
    frame = expression.create_frame()
    for name, bound in names.items():
        frame.bind(name, bound)
    return json.loads(json.dumps(expression.evaluate(None, frame)))
