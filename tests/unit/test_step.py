"""The frame around steps: typed call in, error through, one log line a record."""

import io
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pytest

from oncall import step as steps
from oncall.errors import NeedsHuman
from oncall.incident import Run
from oncall.services import Services, Settings
from oncall.step import Call, step
from tests.unit.world import a_world

RUN = Run("orders-1", "queue-saturation", "arn:q", "auto", 3, round=2)
EVENT = {"run": asdict(RUN), "state": "Plan relief", "more": 1}


@pytest.fixture(autouse=True)
def _services(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    monkeypatch.setattr(steps, "services", lambda: world.aws)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the logger writes to standard output."""
    handler = steps.logger.registered_handler
    assert isinstance(handler, logging.StreamHandler)
    written = io.StringIO()
    stream, level = handler.setStream(written), steps.logger.log_level
    steps.logger.setLevel("INFO")
    yield written
    steps.logger.setLevel(level)
    handler.setStream(stream)


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_a_step_is_given_its_run_and_all_that_the_state_passed(
    log: io.StringIO,
) -> None:
    seen: list[Call] = []

    def work(call: Call, aws: Services) -> Mapping[str, Any]:
        assert isinstance(aws, Services)
        seen.append(call)
        return {"done": True}

    assert step(work)(EVENT, None) == {"done": True}
    assert seen == [Call(run=RUN, state="Plan relief", payload=EVENT)]
    (line,) = lines(log)
    assert (line["message"], line["level"]) == ("done", "INFO")
    assert line["correlation_id"] == line["incident"] == "orders-1"
    assert (line["runbook"], line["state"]) == ("queue-saturation", "Plan relief")


@pytest.mark.parametrize(
    ("error", "level"), [(NeedsHuman("Look at it."), "WARNING"), (KeyError("x"), "ERROR")]
)
def test_what_a_step_raises_goes_through_under_its_own_class(
    error: Exception, level: str, log: io.StringIO
) -> None:
    def work(_call: Call, _aws: Services) -> Mapping[str, Any]:
        raise error

    with pytest.raises(type(error)) as raised:
        step(work)(EVENT, None)
    assert raised.value is error
    (line,) = lines(log)
    assert (line["level"], line["correlation_id"]) == (level, "orders-1")
    assert line.get("error", "KeyError") == type(error).__name__


def test_keys_of_one_call_do_not_leak_into_the_next(log: io.StringIO) -> None:
    with steps.logged(incident="orders-1", alarm="x"):
        pass
    with steps.logged(incident="orders-2"):
        pass
    _, second = lines(log)
    assert second["correlation_id"] == "orders-2"
    assert "alarm" not in second


ENVIRONMENT = {
    "INCIDENTS_TABLE": "incidents",
    "STACK_NAME": "runbooks",
    "KILL_SWITCH_PATH": "/runbooks/kill-switch",
    "PERIOD_SECONDS": "30",
    "CHANGE_CALENDARS": " a, b ,,",
    "RUNS_PER_HOUR": "7",
    "APPROVERS": "",
    "ACCOUNT_CONCURRENCY_FLOOR": "40",
    "AWS_REGION": "eu-west-1",
}


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment() == Settings(
        table="incidents",
        stack="runbooks",
        kill_switch="/runbooks/kill-switch",
        period_seconds=30,
        calendars=("a", "b"),
        runs_per_hour=7,
        approvers=(),
        account_floor=40,
        region="eu-west-1",
    )


@pytest.mark.parametrize("name", sorted(set(ENVIRONMENT) - {"CHANGE_CALENDARS", "APPROVERS"}))
def test_a_setting_that_is_missing_is_no_default(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other, value in ENVIRONMENT.items():
        monkeypatch.setenv(other, value)
    monkeypatch.delenv(name)
    with pytest.raises(KeyError, match=name):
        Settings.from_environment()
