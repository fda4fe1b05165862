"""The steps between open and close, over the real store: what they read, write and raise."""

import json
from dataclasses import asdict, replace
from typing import Any, Literal

import pytest

import ask
import close_incident
import hand_over
import inspect_queue
import plan_queue_relief
import put_back
import verify_queue
from oncall import changes, queues
from oncall import contract as contracts
from oncall.changes import Planned
from oncall.errors import (
    Aborted,
    GuardRefused,
    Ineffective,
    NeedsHuman,
    Recurred,
    WorldMoved,
)
from oncall.incident import Entry
from oncall.plans import Look
from oncall.queues import Facts
from oncall.step import Call
from tests.unit.table import Killed
from tests.unit.world import CONTRACT, DLQ, FUNCTION, MAPPING, PARAMETER, QUEUE, World, a_world

BUSY: dict[str, list[float]] = {
    "depths": [600, 700, 800, 850, 900],
    "oldest_age": [10, 20, 30, 40, 50],
    "sent": [2460.0] * 5,
    "received": [2400.0] * 5,
    "deleted": [2395.0] * 5,
    "dlq_depths": [0.0] * 5,
    "invocations": [240.0] * 5,
    "errors": [0.0] * 5,
    "throttles": [0.0] * 5,
    "duration": [1_200_000.0] * 5,
    "concurrency": [20.0] * 5,
}


@pytest.fixture
def world() -> World:
    """A queue whose healthy consumer runs at its cap of 20."""
    world = a_world()
    world.cloud.series = {name: list(values) for name, values in BUSY.items()}
    world.cloud.baseline = {"duration": [500.0] * 60, "received": [1.0] * 60}
    world.cloud.reserved = None
    world.open()
    return world


def call(world: World, **payload: Any) -> Call:
    return Call(world.run, "A state", {"run": asdict(world.run), "state": "A state", **payload})


def inspect(world: World) -> Facts:
    found = inspect_queue.work(call(world), world.aws)
    return queues.facts_from(json.loads(json.dumps(found))["facts"])


def plan(world: World) -> Any:
    return plan_queue_relief.work(call(world, facts=asdict(inspect(world))), world.aws)


def act(world: World) -> Any:
    planned = plan(world)
    for lever in planned["levers"]:
        changes.make(world.aws, world.run, lever, planned["plan_hash"])
    return planned


def look(world: World, before: Look | dict[str, Any], phase: str = "relief") -> Any:
    given = before if isinstance(before, dict) else asdict(before)
    return verify_queue.work(call(world, look=given, phase=phase), world.aws)


def stop(world: World) -> None:
    world.store.note(world.run, None, stop={"kind": "abort", "by": "Alice", "at": "03:02"})


# Inspect


def test_everything_that_is_decided_on_is_read(world: World) -> None:
    world.clock.forward(seconds=17)  # within a period
    world.cloud.in_flight = 20
    world.cloud.tags[QUEUE] |= {
        "runbook:back-pressure": PARAMETER,
        "runbook:safe-size": "500",
    }
    facts = inspect(world)
    bare: dict[str, Any] = {**asdict(facts), **dict.fromkeys(BUSY, ())}
    assert Facts(**bare) == Facts(
        queue="orders",
        queue_arn=QUEUE,
        period_seconds=60,
        fifo=False,
        visible=900,
        in_flight=20,
        delayed=3,
        visibility_timeout=180,
        max_receive_count=5,
        dlq="orders-dlq",
        dlq_visible=0,
        mappings=1,
        mapping_arn=MAPPING,
        mapping_state="Enabled",
        mapping_concurrency=20,
        batch_size=10,
        function="worker",
        function_arn=FUNCTION,
        function_timeout=30,
        reserved=None,
        account_limit=1000,
        unreserved=900,
        account_floor=100,
        usual_work=500.0,
        back_pressure=PARAMETER,
        back_pressure_value="off",
        safe_size=500,
    )
    for name, values in BUSY.items():
        assert getattr(facts, name) == values, name
    assert DLQ.endswith(str(facts.dlq))


def test_what_is_missing_is_read_as_missing(world: World) -> None:
    world.cloud.series.clear()
    world.cloud.baseline.clear()
    world.cloud.cap = None
    world.cloud.tags[QUEUE] |= {"runbook:back-pressure": "/gone", "runbook:safe-size": "many"}
    facts = inspect(world)
    assert facts.arrival_rate is None
    assert (facts.usual_work, facts.mapping_concurrency) == (None, None)
    assert (facts.back_pressure_value, facts.safe_size) == (None, None)


@pytest.mark.parametrize("mappings", [0, 2])
def test_without_one_consumer_there_is_none_to_describe(world: World, mappings: int) -> None:
    world.cloud.mappings = mappings
    facts = inspect(world)
    assert (facts.mappings, facts.function) == (mappings, None)
    assert not facts.invocations


def test_a_consumer_with_provisioned_pollers_is_seen(world: World) -> None:
    world.cloud.pollers = True
    assert inspect(world).mapping_provisioned is True


# Plan


def test_the_plan_stands_in_the_record_and_the_machine_gets_its_way(world: World) -> None:
    found = plan(world)
    assert found == {
        "action": "raise",
        "levers": ["mapping-concurrency"],
        "needs_yes": False,
        "plan_hash": world.load().plan["hash"],
        "period_seconds": 60,
    }
    incident = world.load()
    assert incident.diagnosis == "consumer_capped"
    assert incident.doing.startswith("Raise worker from 20 to 21")
    assert "900 waiting" in incident.happened
    (text,) = world.texts("planned")
    assert text.startswith("worker runs at its cap of 20 and is healthy. Raise worker from 20")


@pytest.mark.parametrize(
    ("mode", "slow", "asks"),
    [("auto", False, False), ("ask", False, True), ("auto", True, True), ("ask", True, True)],
)
def test_a_yes_is_needed_in_mode_ask_and_to_lower_a_cap_always(
    mode: str,
    slow: bool,  # noqa: FBT001 -- drawn from a table
    asks: bool,  # noqa: FBT001 -- drawn from a table
) -> None:
    world = a_world()
    world.cloud.series = dict(BUSY) | ({"duration": [6_000_000.0] * 5} if slow else {})
    world.cloud.baseline = {"duration": [500.0] * 60, "received": [1.0] * 60}
    world.open(mode=mode)
    found = plan(world)
    assert found["needs_yes"] is asks
    assert found["action"] == ("lower" if slow else "raise")


def test_watching_needs_no_yes(world: World) -> None:
    world.run = replace(world.run, mode="ask")
    world.cloud.series["depths"] = [900, 800, 700, 650, 600]
    assert plan(world) | {"plan_hash": ""} == {
        "action": "watch",
        "levers": [],
        "needs_yes": False,
        "plan_hash": "",
        "period_seconds": 60,
    }


def test_what_is_for_a_human_is_raised_and_stands_in_the_record(world: World) -> None:
    world.cloud.mappings = 0
    with pytest.raises(NeedsHuman, match="No Lambda function consumes orders"):
        plan(world)
    assert world.load().plan["action"] == "human"
    world.open("orders-2", mode="observe")
    assert plan(world)["action"] == "human"


def test_observing_says_what_it_would_do(world: World) -> None:
    world.run = replace(world.open("orders-2", mode="observe"), round=99)
    assert plan(world)["action"] == "raise"
    assert world.load().doing.startswith("I would: Raise worker from 20 to 21")


def test_too_many_plans_become_a_humans(world: World) -> None:
    world.run = replace(world.run, round=int(CONTRACT.limits["plans"]))
    assert plan(world)["action"] == "raise"
    world.run = replace(world.run, round=int(CONTRACT.limits["plans"]) + 1)
    with pytest.raises(NeedsHuman, match="3 plans have not relieved orders"):
        plan(world)


@pytest.mark.parametrize("step", [plan, lambda world: look(world, {})])
def test_an_abort_is_heeded_by_each_step(world: World, step: Any) -> None:
    plan(world)
    stop(world)
    world.run = replace(world.run, round=2)
    with pytest.raises(Aborted):
        step(world)


# Ask


def question(
    world: World,
    level: int = 1,
    token: str = "token-1",  # noqa: S107 -- a dummy
) -> str:
    planned = world.load().plan
    asked = ask.work(
        call(world, plan_hash=planned["hash"], token=token, level=level, wait_seconds=600),
        world.aws,
    )
    return str(asked["ask"])


def test_a_marked_action_is_put_to_two_people(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = replace(contracts.load("queue-saturation"), two_people=("raise",))
    monkeypatch.setattr(contracts, "load", lambda _runbook: marked)
    plan(world)
    assert world.load().plan["action"] == "raise"
    asked = world.store.ask(world.run.incident, question(world))
    assert asked is not None
    assert asked.people == 2
    assert "a yes from 2 people" in world.texts("asked")[0]


def test_a_question_is_put_with_its_deadline_and_what_silence_means(world: World) -> None:
    plan(world)
    name = question(world)
    asked = world.store.ask(world.run.incident, name)
    assert asked is not None
    plan_hash = world.load().plan["hash"]
    assert name == f"{plan_hash[:8]}-1-1"
    assert (asked.plan_hash, asked.token, asked.people) == (plan_hash, "token-1", 1)
    assert asked.deadline == "2026-11-23T03:04:00.000Z"
    (text,) = world.texts("asked")
    assert text.startswith(world.load().plan["ask"])
    assert text.endswith(
        "I need a yes from somebody by 03:04 UTC. No answer: I page the next in line."
    )
    assert world.load().need == (
        "A yes or no from somebody by 03:04 UTC. No answer: I page the next in line."
    )
    assert world.load().phase == "waiting"
    assert "token" not in json.dumps(world.load().ask)


def test_the_second_question_ends_in_no_change(world: World) -> None:
    plan(world)
    question(world)
    second = question(world, level=2)
    assert second.endswith("-1-2")
    assert world.texts("asked")[1].startswith("Nobody has answered yet. ")
    assert world.texts("asked")[1].endswith("No answer: I change nothing and hand over.")


def test_a_question_that_dies_anywhere_is_put_once_with_the_newest_token(world: World) -> None:
    plan(world)
    for at in range(1, 40):
        for after in (False, True):
            world.run = replace(world.run, round=1000 + 2 * at + after)
            world.cloud.death.plan(at, after=after)
            try:
                question(world, token="first")
            except Killed:
                world.cloud.death.none()
                name = question(world, token="second")
            else:
                assert at > 4
                return
            found = world.store.ask(world.run.incident, name)
            assert found is not None
            assert found.token == "second"
            texts = [entry for entry in world.load().entries if entry.id == f"asked-{name}"]
            assert len(texts) == 1


def test_nothing_is_asked_after_an_abort(world: World) -> None:
    plan(world)
    stop(world)
    with pytest.raises(Aborted):
        question(world)
    assert not world.texts("asked")


# Look


def test_each_look_shows_in_the_header_and_only_quarters_in_the_thread(world: World) -> None:
    act(world)
    found: Any = {"look": {}}
    for depth in (850, 600, 590, 300, 150, 80, 70, 60):
        world.cloud.visible["orders"] = depth
        found = look(world, found["look"])
    assert found["verdict"] == "relieved"
    assert len(world.texts("verified")) == 4
    assert [text.split(" ")[0] for text in world.texts("verified")[:3]] == ["600", "300", "150"]
    incident = world.load()
    assert incident.progress["done"] == 1.0
    assert incident.doing.startswith("orders is drained: 60 waiting. Set worker's maximum")
    assert incident.phase == "watching"


def test_the_header_says_when_it_will_be_done(world: World) -> None:
    act(world)
    found = look(world, {})
    assert world.load().progress["eta"] == ""
    world.cloud.visible["orders"] = 450
    look(world, found["look"])
    assert world.load().progress["eta"] == "2026-11-23T02:55:00.000Z"


@pytest.mark.parametrize(
    ("before", "phase", "error"),
    [
        (Look(number=10, measure=900, bad=4), "relief", Ineffective),
        (Look(number=500, measure=901), "relief", Ineffective),
        (Look(number=3, bad=4), "calm", Recurred),
    ],
)
def test_what_does_not_help_is_raised_and_told(
    world: World, before: Look, phase: str, error: type[Exception]
) -> None:
    act(world)
    with pytest.raises(error) as raised:
        look(world, before, phase)
    assert world.texts("verified") == [str(raised.value)]


def test_what_gets_worse_is_ineffective(world: World) -> None:
    act(world)
    world.cloud.series["errors"] = [240.0] * 5
    with pytest.raises(Ineffective, match="100% of worker's work fails now, 0% before"):
        look(world, Look(number=6, measure=950))


def test_a_queue_that_was_to_drain_by_itself_and_does_not_is_looked_at_anew(world: World) -> None:
    world.cloud.series["depths"] = [900, 800, 700, 650, 600]
    plan(world)
    with pytest.raises(WorldMoved, match="It does not pass by itself"):
        look(world, Look(number=10, measure=900, bad=4))


def test_back_pressure_is_watched_while_it_stands(world: World) -> None:
    world.cloud.tags[QUEUE] |= {"runbook:back-pressure": PARAMETER, "runbook:safe-size": "500"}
    act(world)
    assert json.loads(world.cloud.parameters[PARAMETER])["state"] == "on"
    world.cloud.visible["orders"] = 251
    found = look(world, {})
    assert found["verdict"] == "wait"
    world.cloud.visible["orders"] = 250
    found = look(world, found["look"])
    assert found["verdict"] == "shed_over"
    put_back.work(call(world, only="back-pressure"), world.aws)
    assert world.cloud.parameters[PARAMETER] == "off"
    assert world.cloud.cap == 21
    assert look(world, found["look"])["verdict"] == "wait"


def test_staying_calm_is_told_by_the_closing_line_alone(world: World) -> None:
    act(world)
    put_back.work(call(world), world.aws)
    world.cloud.visible["orders"] = 5
    found = look(world, Look(number=2, calm=2), "calm")
    assert found["verdict"] == "relieved"
    assert not world.texts("verified")
    assert "stays calm" in world.load().progress["text"]


# A consumer that another incident has left disabled

OTHER = QUEUE.replace(":orders", ":other")


def left_disabled(by: Literal["open", "closed", "gone"], mode: str = "auto") -> World:
    """A consumer that orders-0 has disabled, and a run for its queue."""
    world = a_world()
    world.cloud.visible["other"] = 0
    first = world.open("orders-0", target=OTHER, target_name="other")
    disable = Planned("mapping-enabled", MAPPING, "consumer", before=True, after=False, why="why")
    document = {"hash": "h", "changes": [asdict(disable)]}
    world.store.note(world.run, None, plan=document)
    changes.make(world.aws, world.run, disable.lever, "h")
    if by != "open":
        world.store.close(first, "failed", "Over.", Entry("closed", "closed", "Over."))
    if by == "gone":  # Incidents are kept for a time, leases until they are given back.
        for key in [key for key in world.table.items if key[0] == "INCIDENT#orders-0"]:
            del world.table.items[key]
    world.cloud.writes.clear()
    world.open(mode=mode)
    return world


def disabler(world: World) -> str:
    lease = world.store.lease("mapping-enabled", MAPPING)
    return lease.incident if lease else ""


@pytest.mark.parametrize("by", ["closed", "gone"])
def test_a_consumer_that_an_ended_incident_left_disabled_is_enabled_for_good(
    by: Literal["closed", "gone"], capsys: pytest.CaptureFixture[str]
) -> None:
    world = left_disabled(by)
    assert world.cloud.state == "Disabled"
    assert inspect(world).disabled_by == "orders-0"
    found = act(world)
    assert (found["action"], found["levers"]) == ("enable", ["mapping-enabled"])
    assert (world.cloud.state, disabler(world)) == ("Enabled", "orders-1")
    (told,) = world.texts("changed")
    assert told == (
        "Set worker's consumer of orders from off to on: incident orders-0 disabled it and has "
        "ended."
    )
    name = "worker's consumer of orders"
    assert put_back.work(call(world), world.aws) == {"put_back": [name], "left": []}
    assert (world.cloud.state, disabler(world)) == ("Enabled", "")
    assert world.cloud.writes == [("enabled", True)]
    world.clock.forward(seconds=27)
    assert close(world)["summary"] == (
        "orders is relieved, in 27 s. Everything I changed is back as it was."
    )
    assert world.load().doing == f"Set {name} to on for good."
    assert not world.store.opened("change")
    assert capsys.readouterr().out
    world.open("orders-2")
    assert inspect(world).disabled_by is None


def test_a_consumer_that_an_open_incident_has_disabled_is_left_to_it() -> None:
    world = left_disabled("open")
    assert inspect(world).disabled_by is None
    with pytest.raises(NeedsHuman, match=r"orders's consumer is disabled\. That is for a human"):
        plan(world)
    enable = Planned("mapping-enabled", MAPPING, "consumer", before=False, after=True, why="why")
    world.store.note(world.run, None, plan={"hash": "h", "changes": [asdict(enable)]})
    with pytest.raises(GuardRefused, match="consumer is leased to incident orders-0"):
        changes.make(world.aws, world.run, enable.lever, "h")
    assert (world.cloud.state, disabler(world)) == ("Disabled", "orders-0")
    assert not world.cloud.writes


def test_a_consumer_that_was_enabled_by_hand_meanwhile_is_looked_at_anew() -> None:
    world = left_disabled("closed")
    planned = plan(world)
    world.cloud.state = "Enabled"
    with pytest.raises(WorldMoved, match="is on now; the plan saw off"):
        changes.make(world.aws, world.run, "mapping-enabled", planned["plan_hash"])
    assert disabler(world) == "orders-0"


def test_a_consumer_that_somebody_else_has_disabled_is_a_humans(world: World) -> None:
    world.cloud.state = "Disabled"
    assert inspect(world).disabled_by is None
    with pytest.raises(NeedsHuman, match="consumer is disabled"):
        plan(world)


# Put back, hand over, close


def test_what_was_put_back_and_left_is_returned_by_name(world: World) -> None:
    world.cloud.tags[QUEUE] |= {"runbook:back-pressure": PARAMETER, "runbook:safe-size": "500"}
    act(world)
    world.cloud.parameters[PARAMETER] = "theirs"
    assert put_back.work(call(world), world.aws) == {
        "put_back": ["worker's maximum concurrency on orders"],
        "left": ["back-pressure on orders"],
    }
    assert (world.cloud.cap, world.cloud.parameters[PARAMETER]) == (20, "theirs")


def hand(world: World, error: str, cause: str = "Because.") -> Any:
    ending = {"error": error, "cause": cause}
    return hand_over.work(call(world, ending=ending), world.aws)


def test_a_hand_over_pages_with_what_still_stands_and_its_undo(world: World) -> None:
    act(world)
    assert hand(world, "PutBackFailed") == {"paged": True}
    (text,) = world.texts("paged")
    assert text.startswith("Because. Still changed, with the command to undo it:")
    assert world.load().changes[0].undo in text
    page = next(entry for entry in world.load().entries if entry.kind == "paged")
    assert page.severity == "critical"
    assert world.load().phase == "handed_over"
    assert world.load().need.startswith("Put the settings back with the commands")


def test_a_persons_decision_is_told_and_wakes_nobody(world: World) -> None:
    assert hand(world, "Rejected", "Alice said no.") == {"paged": False}
    assert world.texts("decided") == ["Alice said no. Nothing was changed."]
    assert not world.texts("paged")


def test_who_takes_over_gets_the_settings_and_their_leases_end(world: World) -> None:
    act(world)
    assert hand(world, "TakenOver", "Alice took over.") == {"paged": False}
    (change,) = world.load().changes
    assert change.state == "handed_over"
    assert world.cloud.cap == 21
    assert world.store.lease(change.lever, change.resource) is None
    assert change.undo in world.texts("decided")[0]


def close(world: World, error: str = "", cause: str = "") -> Any:
    ending = {"error": error, "cause": cause}
    return close_incident.work(call(world, ending=ending), world.aws)


@pytest.mark.parametrize(
    ("error", "outcome", "name"),
    [
        ("", "resolved", "Resolved"),
        ("NeedsHuman", "handed_over", "HandedOver"),
        ("KeyError", "failed", "Failed"),
    ],
)
def test_closing_frees_the_target_and_remembers_the_run(
    world: World,
    error: str,
    outcome: str,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = not error
    found = close(world, error, "Why." if error else "")
    incident = world.load()
    assert found == {"outcome": outcome, "error": name, "summary": incident.summary, "good": good}
    assert (incident.status, incident.phase, incident.outcome) == ("closed", "closed", outcome)
    assert world.texts("closed") == [incident.summary]
    assert not world.store.holder(QUEUE)
    (past,) = world.store.past_runs(QUEUE, world.clock.now)
    assert (past["outcome"], past["incident"]) == (outcome, "orders-1")
    assert not world.store.opened("incident") + world.store.opened("lock")
    assert (incident.need == "Nothing.") is good
    assert close(world, error) == found
    metric = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (metric["Runbook"], metric["Outcome"], metric["RunsClosed"]) == (
        "queue-saturation",
        outcome,
        [1.0],
    )


def test_closing_that_dies_anywhere_closes_once_when_tried_again() -> None:
    for at in range(1, 40):
        for after in (False, True):
            world = a_world()
            world.open()
            world.cloud.death.plan(at, after=after)
            try:
                close(world)
            except Killed:
                world.cloud.death.none()
                assert close(world)["outcome"] == "resolved"
                assert len(world.texts("closed")) == 1
                assert len(world.store.past_runs(QUEUE, world.clock.now)) == 1
            else:
                assert at > 3
                return
