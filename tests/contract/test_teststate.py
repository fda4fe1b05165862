"""The machines by AWS's own evaluation: Step Functions' TestState, with mocks.

The requests are checked always. They are sent where TEST_STATE=1 says so (`make test-state`), with
the shell's credentials and Region; who sends them needs `states:TestState` and no role.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.validate import ParamValidator

from tests.contract import teststate
from tools.checks import machines

MACHINES = machines.load(Path(__file__).parents[2] / "statemachines")
API = botocore.session.get_session().get_service_model("stepfunctions")
SHAPE: Any = API.operation_model("TestState").input_shape
DOCUMENTS = ("definition", "input", "variables", "context")
asked = pytest.mark.skipif(
    os.environ.get("TEST_STATE") != "1",
    reason="it asks AWS: `make test-state` with credentials that may states:TestState",
)


def cases(machine: str) -> list[teststate.Case]:
    return list(teststate.cases(machine, MACHINES[machine]))


@pytest.mark.parametrize("machine", MACHINES)
def test_requests_are_as_the_api_wants_them(machine: str) -> None:
    for case in cases(machine):
        report = ParamValidator().validate(case.request, SHAPE)
        assert not report.has_errors(), f"{case.state} {case.how}: {report.generate_report()}"
        for name in DOCUMENTS:
            assert isinstance(json.loads(case.request[name]), dict)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_way_out_has_a_request(machine: str) -> None:
    found = {(case.state, case.next) for case in cases(machine)}
    for name, state in MACHINES[machine]["States"].items():
        if state["Type"] in {"Task", "Map"}:
            ways = {state.get("Next"), *(catch["Next"] for catch in state.get("Catch", ()))}
            assert {(name, way) for way in ways} <= found


@pytest.mark.parametrize("machine", MACHINES)
def test_mocks_have_all_that_states_take_from_them(machine: str) -> None:
    taken = 0
    for case in cases(machine):
        assert None not in case.assigned.values(), f"{case.state} {case.how}"
        if case.how == "succeeds":
            for name, value in MACHINES[machine]["States"][case.state].get("Assign", {}).items():
                if "$states.result" in str(value):
                    taken += 1
                    assert case.assigned[name] not in ([], {}, ""), f"{case.state}: {name}"
    assert taken or machine == "wind-down"


def test_a_new_machine_needs_nothing_here() -> None:
    assert list(teststate.cases("queue-concurrency", MACHINES["queue-saturation"]))


def test_what_is_expected_is_what_the_machine_says() -> None:
    by_name = {(case.state, case.how): case for case in cases("queue-saturation")}
    made = by_name["Set mapping concurrency", "succeeds"]
    assert (made.status, made.next, made.assigned) == ("SUCCEEDED", "What is next?", {"todo": []})
    again = by_name["Put back and look again", "succeeds"]
    assert again.assigned["run"]["round"] == 2
    lost = by_name["Inspect queue", "fails with LockLost"]
    assert (lost.status, lost.next) == ("CAUGHT_ERROR", "Lock lost")
    failed = by_name["Inspect queue", "fails with Unforeseen"]
    assert failed.next == "Put everything back"
    assert failed.assigned["ending"]["error"] == "Unforeseen"


@asked
@pytest.mark.parametrize("machine", MACHINES)
def test_aws_goes_where_the_machine_says(machine: str) -> None:
    client = boto3.client("stepfunctions")
    wrong = []
    for case in cases(machine):
        answer: Any = client.test_state(**case.request)
        variables = json.loads(answer.get("inspectionData", {}).get("variables", "{}"))
        found = {name: variables.get(name) for name in case.assigned}
        seen = (answer["status"], answer.get("nextState"), found)
        if seen != (case.status, case.next, case.assigned):
            wrong.append(f"{case.state} {case.how}: {seen}, not {case.next} {case.assigned}")
    assert wrong == []
