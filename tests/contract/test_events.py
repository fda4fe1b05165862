"""Each function has an event of its own, and it is what the function is really given."""

import copy
import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import receive_decision
import report
from oncall import contract as contracts
from oncall import service, step
from oncall.errors import WorldMoved
from oncall.incident import Entry, Incident, Run
from oncall.record import IncidentStore
from oncall.services import Services, Settings
from tests.unit.table import TableInMemory
from tools.checks import machines, template

ROOT = Path(__file__).parents[2]
MACHINES = machines.load(ROOT / "statemachines")
FUNCTIONS = {
    properties["Handler"].removesuffix(".handler"): name
    for name, properties in template.resources(
        template.load(ROOT / "template.yaml"), "AWS::Serverless::Function"
    ).items()
}
EVENTS = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "events").glob("*"))
}
# What no state machine calls, and what does: its event has that one's shape.
CALLED_FROM_OUTSIDE = {
    "dispatch_alarm": "EventBridge, on an alarm's state change",
    "reconcile": "EventBridge, on a schedule",
    "report": "the table's stream",
    # A click that Slack has signed is good for five minutes, so no file can hold one.
    "receive_decision": "a person, by aws lambda invoke",
    "show_incidents": "the dashboard's widget",
    "start_run": "a button of the widget",
    "write_scorecard": "EventBridge, on a schedule",
}
# Levers that the plan of their event's run does not pull; it takes another trouble to plan them.
NOT_PLANNED = {"enable_mapping", "set_back_pressure", "set_provisioned_concurrency"}
OPENED = datetime(2026, 1, 31, 3, 2, 12, tzinfo=UTC)


def states(machine: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a machine's states by name, those inside Map and Parallel too."""
    for name, state in machine["States"].items():
        yield name, state
        inner = [*state.get("Branches", ()), state.get("ItemProcessor", {"States": {}})]
        for part in inner:
            yield from states(part)


def payloads(verb: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what machines give a function: its Payload by machine and state."""
    arn = f"${{{FUNCTIONS[verb]}Arn}}"
    return {
        (machine, name): state["Arguments"]["Payload"]
        for machine, definition in MACHINES.items()
        for name, state in states(definition)
        if state.get("Type") == "Task" and state["Arguments"]["FunctionName"] == arn
    }


# The function that plans, by runbook.
PLANS = {
    machine: verb for verb in FUNCTIONS if verb.startswith("plan_") for machine, _ in payloads(verb)
}


def test_every_function_has_an_event_and_every_event_a_function() -> None:
    assert EVENTS.keys() == FUNCTIONS.keys()
    outside = {verb for verb in FUNCTIONS if not payloads(verb)}
    assert outside == CALLED_FROM_OUTSIDE.keys()


@pytest.mark.parametrize("verb", sorted(FUNCTIONS.keys() - CALLED_FROM_OUTSIDE.keys()))
def test_an_event_has_the_keys_that_its_state_sends(verb: str) -> None:
    event = EVENTS[verb]
    run = event.get("run", event)
    sent = payloads(verb)
    state = event.get("state", "Open incident")

    assert (run["runbook"], state) in sent
    assert event.keys() == sent[run["runbook"], state].keys()
    if "run" in event:
        assert run.keys() == {one.name for one in fields(Run)}
    plain = {
        key: value for key, value in sent[run["runbook"], state].items() if "{%" not in f"{value}"
    }
    assert {key: event[key] for key in plain} == plain


class Reached(BaseException):
    """A step has taken its event and asks AWS."""


class Session:
    """Says that it was reached by whoever wants a client."""

    def client(self, *_: Any, **__: Any) -> Any:
        raise Reached


@dataclass
class Context:
    """What Lambda hands a handler besides its event."""

    aws_request_id: str = "8f2f5b8f-36b7-44ee-aa5a-20ddf73461ec"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


@dataclass
class World:
    """Steps with the incident's record in memory, and an AWS that only says it was reached."""

    aws: Services
    given: dict[str, Any] = field(default_factory=dict)

    def call(self, verb: str, event: Any) -> Any:
        """Return a handler's answer, ``None`` when it came as far as AWS."""
        try:
            return importlib.import_module(verb).handler(copy.deepcopy(event), Context())
        except Reached:
            return None

    def open(self, run: Mapping[str, Any]) -> None:
        """Open the event's incident, as its run's first state would have."""
        contract = contracts.load(run["runbook"])
        incident = Incident(
            id=run["incident"],
            runbook=run["runbook"],
            title=contract.title,
            target=run["target"],
            target_name=run["target"].rpartition(":")[2].rpartition("/")[2],
            mode=run["mode"],
            trigger={"kind": "hand", "by": "", "reason": "", "alarm": {}},
            execution="",
            fence=0,
        )
        opened = self.aws.store.open(incident, Entry(id="opened", kind="opened", text=""), LEASE)
        assert opened.fence == run["fence"]


LEASE = OPENED - OPENED.replace(hour=1)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    settings = Settings(
        table="incidents",
        stack="runbooks",
        kill_switch="/runbooks/kill-switch",
        period_seconds=60,
        calendars=(),
        runs_per_hour=20,
        approvers=("arn:aws:iam::123456789012:user/carol",),
        account_floor=100,
        region="eu-west-1",
    )
    session: Any = Session()
    aws = Services(settings, session, lambda: OPENED)
    table: Any = TableInMemory()
    aws.__dict__["store"] = IncidentStore(table, lambda: OPENED)
    monkeypatch.setattr(step, "Settings", type("S", (), {"from_environment": lambda: settings}))
    monkeypatch.setattr(step, "Services", lambda _: aws)
    # The events tell of the sample service, which no deployment has.
    load = service.load
    monkeypatch.setattr(service, "load", lambda name: load(name, service.SAMPLE))
    arn = "arn:aws:states:eu-west-1:123456789012:stateMachine:runbooks-"
    names = {runbook: f"{arn}{runbook}" for runbook in PLANS}
    monkeypatch.setenv("STATE_MACHINES", json.dumps(names))
    monkeypatch.setenv("STORM_INCIDENTS", "10")
    monkeypatch.setenv("DASHBOARD_BUTTONS", "on")
    functions = ("REPORT_FUNCTION", "DECISION_FUNCTION", "START_FUNCTION")
    for name in ("WIND_DOWN_MACHINE", *functions):
        monkeypatch.setenv(name, name)
    monkeypatch.setenv("ARCHIVE_BUCKET", "archive")
    caches = (step.services, report._reporter, receive_decision._secrets)
    for cache in caches:
        cache.cache_clear()
    yield World(aws)
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize("verb", sorted(FUNCTIONS))
def test_a_function_takes_its_event(verb: str, world: World) -> None:
    """It answers, or comes as far as AWS: nothing in the event is missing, misspelt or stale."""
    event = EVENTS[verb]
    if "run" in event:
        world.open(event["run"])
        plan = PLANS[event["run"]["runbook"]]
        planned = world.call(plan, {**EVENTS[plan], "run": event["run"]})
        if "plan_hash" in event:
            assert event["plan_hash"] == planned["plan_hash"], "plan_hash is not that of its plan"
    if verb == "receive_decision":
        world.open(EVENTS["ask"]["run"])
        world.call("plan_queue_relief", EVENTS["plan_queue_relief"])
        world.call("ask", {**EVENTS["ask"], "run": EVENTS["plan_queue_relief"]["run"]})
    if verb == "report":
        world.open(EVENTS["ask"]["run"])

    if verb in NOT_PLANNED:
        with pytest.raises(WorldMoved, match="holds no change of"):
            world.call(verb, event)
        return
    answer = world.call(verb, event)

    assert answer is None or "errorType" not in answer
    if verb == "report":
        assert answer == {"batchItemFailures": []}


def test_events_of_one_runbook_are_of_one_run() -> None:
    runs: dict[str, set[str]] = {}
    for event in EVENTS.values():
        if "run" in event:
            run = replace(Run(**event["run"]), mode="auto")
            runs.setdefault(run.runbook, set()).add(json.dumps(asdict(run), sort_keys=True))

    assert {len(found) for found in runs.values()} == {1}
