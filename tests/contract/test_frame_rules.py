"""The rule that holds the frame together, on machines with planted faults."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.checks import frame, machines

ROOT = Path(__file__).parents[2]
MACHINES = {
    name: machine
    for name, machine in machines.load(ROOT / "statemachines").items()
    if name != "wind-down"
}

type States = dict[str, Any]


def changed(change: Callable[[States], object]) -> list[str]:
    planted = copy.deepcopy(MACHINES)
    change(planted["lambda-throttles"]["States"])
    return [str(finding) for finding in frame.check_frame(planted)]


def test_the_runbooks_share_their_frame() -> None:
    assert len(MACHINES) > 1
    assert frame.check_frame(MACHINES) == []


@pytest.mark.parametrize("state", sorted(set(frame.FRAME) - frame.OPTIONAL))
def test_a_state_that_is_missing_is_found(state: str) -> None:
    [found] = changed(lambda states: states.pop(state))
    assert f"it has no state {state!r}" in found


@pytest.mark.parametrize(
    ("state", "change"),
    [
        ("Hand over", lambda state: state.update(Next="Close incident")),
        ("Ask on-call", lambda state: state["Catch"].pop()),
        ("Open incident", lambda state: state["Arguments"]["Payload"].update(runbook="other")),
        ("Put settings back", lambda state: state.update(TimeoutSeconds=9)),
    ],
)
def test_a_state_that_differs_is_found(state: str, change: Callable[[Any], object]) -> None:
    [found] = changed(lambda states: change(states[state]))
    assert f"{state!r} is not as in queue-saturation" in found


def test_a_runbook_without_settings_puts_none_back() -> None:
    assert changed(lambda states: states.pop("Put settings back")) == []


def test_comments_are_each_runbooks_own() -> None:
    assert changed(lambda states: states["Hand over"].update(Comment="Something else.")) == []
