"""Opening an incident: what may open, what is refused and how that is told."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import open_incident
from oncall.errors import BadInput, GuardRefused, TargetBusy
from oncall.incident import Entry, Run
from open_incident import LEASE_MARGIN
from tests.unit.table import Killed
from tests.unit.world import (
    ACCOUNT,
    CONTRACT,
    QUEUE,
    RUNBOOK,
    SWITCHES,
    Cloud,
    World,
    a_world,
)

ALARM = {"name": "orders-backlog", "arn": "arn:alarm", "changed_at": "2026-11-23T02:54:00.000Z"}
BY_ALARM = {"queue": "orders", "alarm": ALARM, "reason": "382, threshold 200"}
BY_HAND = {"queue": "orders", "by": "Alice", "reason": "it is slow"}
OBSERVE = {"queue": "orders", "mode": "observe"}


def event(given: Any, name: str = "orders-1", execution: str = "") -> dict[str, Any]:
    arn = f"arn:aws:states:us-east-1:{ACCOUNT}:execution:{RUNBOOK}:{execution or name}"
    return {"runbook": RUNBOOK, "input": given, "execution": arn, "name": name}


def start(world: World, given: Any, name: str = "orders-1") -> Run:
    world.run = open_incident.open_incident(event(given, name), world.aws)
    return world.run


def end(world: World, run: Run, outcome: str) -> None:
    world.store.close(run, outcome, "over", Entry("closed", "closed", "over"))


def refusal(world: World, given: Any, name: str = "orders-2") -> str:
    with pytest.raises(GuardRefused) as refused:
        start(world, given, name)
    return str(refused.value)


def test_an_alarm_opens_an_incident_that_holds_its_target() -> None:
    world = a_world()
    run = start(world, BY_ALARM)
    assert run == Run("orders-1", RUNBOOK, QUEUE, "auto", 1)
    incident = world.load()
    assert (incident.status, incident.phase, incident.target_name) == (
        "open",
        "investigating",
        "orders",
    )
    assert incident.title == CONTRACT.title
    assert incident.execution == event({})["execution"]
    assert incident.trigger["alarm"] == ALARM
    assert incident.happened == "Alarm orders-backlog fired: 382, threshold 200."
    (text,) = world.texts("opened")
    assert text.startswith("Alarm orders-backlog fired: 382, threshold 200. Runbook ")
    assert text.endswith("Runbook queue-saturation on orders, mode auto.")
    assert world.store.holder(QUEUE) == "orders-1"


def test_the_lock_outlasts_the_machine_by_a_margin() -> None:
    world = a_world()
    start(world, BY_HAND)
    world.clock.forward(seconds=CONTRACT.limits["run_seconds"])
    assert world.store.holder(QUEUE) == "orders-1"
    world.clock.now += LEASE_MARGIN
    assert not world.store.holder(QUEUE)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (BY_HAND, "Alice started this by hand: it is slow."),
        ({"queue": "orders"}, "Somebody started this by hand."),
    ],
)
def test_who_started_it_is_told(given: Any, words: str) -> None:
    world = a_world()
    start(world, given)
    assert world.load().happened == words


def test_a_storm_is_told_and_gathers() -> None:
    world = a_world()
    assert start(world, {**BY_ALARM, "storm": "storm-1"}).mode == "ask"
    assert world.load().parent == "storm-1"
    assert "mode ask (too many incidents at once, so I ask" in world.texts("opened")[0]


def test_opening_again_leads_to_the_same_run() -> None:
    world = a_world()
    first = start(world, BY_ALARM)
    assert start(world, BY_ALARM) == first
    assert len(world.load().entries) == 1


@pytest.mark.parametrize("after", [False, True])
def test_opening_that_dies_anywhere_opens_once_when_tried_again(
    after: bool,  # noqa: FBT001 -- drawn
) -> None:
    for at in range(1, 100):
        world = a_world()
        world.cloud.death.plan(at, after=after)
        try:
            start(world, BY_HAND)
        except Killed:
            world.cloud.death.none()
            run = start(world, BY_HAND)
            assert (run.fence, len(world.load().entries)) == (1, 1)
        else:
            break
    assert at > 5


def test_bad_input_opens_nothing() -> None:
    world = a_world()
    with pytest.raises(BadInput, match="there is no queue 'other'"):
        start(world, {"queue": "other"})
    assert not world.table.items


@pytest.mark.parametrize("given", [BY_ALARM, BY_HAND])
@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda cloud: cloud.parameters.pop(f"{SWITCHES}/all"), "kill switch"),
        (
            lambda cloud: cloud.closed.update(freeze="2026-11-24T00:00Z"),
            "calendar freeze is closed",
        ),
        (lambda cloud: cloud.tags.clear(), "orders is not opted in"),
    ],
)
def test_a_switch_a_freeze_or_a_missing_opt_in_refuses_alarms_and_people(
    given: Any, break_it: Any, says: str
) -> None:
    world = a_world(calendars=("freeze",))
    break_it(world.cloud)
    text = refusal(world, given)
    assert says in text
    incident = world.store.load("orders-2")
    assert (incident.status, incident.outcome) == ("closed", "refused")
    assert incident.doing == f"Nothing: {text}"
    (entry,) = incident.entries
    assert entry.id == "refused"
    if given is BY_ALARM:
        assert incident.summary == f"orders needs you: I may not act. {text}"
        assert (entry.kind, entry.severity) == ("paged", "error")
        assert entry.text == f"{incident.happened} I may not act: {text}"
        assert incident.need == "Look at orders yourself; nothing was changed."
    else:
        assert incident.summary == f"Refused: {text}"
        assert (entry.kind, entry.severity) == ("refused", "")
        assert entry.text == text
        assert incident.need == "Nothing; see above."
    assert not world.store.holder(QUEUE)


def broken(cloud: Cloud) -> None:
    cloud.parameters.clear()
    cloud.tags.clear()
    cloud.closed["freeze"] = "2026-11-24T00:00Z"


def test_observing_is_always_allowed() -> None:
    world = a_world(calendars=("freeze",), runs_per_hour=0)
    end(world, start(world, BY_HAND, "orders-0"), "failed")
    held = start(world, BY_HAND, "orders-1")
    broken(world.cloud)
    assert start(world, {**OBSERVE, "alarm": ALARM}, "orders-2").mode == "observe"
    assert start(world, OBSERVE, "orders-3").fence == 1
    assert world.store.holder(QUEUE) == held.incident


def test_a_person_passes_cooldown_breaker_and_rate_and_an_alarm_does_not() -> None:
    world = a_world(runs_per_hour=1)
    for name in ("a", "b", "c"):
        end(world, start(world, BY_HAND, name), "failed")
    assert "cooling down" in refusal(world, BY_ALARM, "d")
    end(world, start(world, BY_HAND, "e"), "failed")
    world.clock.forward(minutes=16)
    assert "The breaker for queue-saturation on orders is open: 4 runs" in refusal(
        world, BY_ALARM, "f"
    )
    world.clock.forward(hours=24)
    end(world, start(world, BY_ALARM, "g"), "observed")
    assert "2 runs in this account within the hour (limit 1)" in refusal(world, BY_ALARM, "h")
    start(world, BY_HAND, "i")


def test_a_busy_target_gets_the_alarm_into_its_timeline_and_wakes_nobody() -> None:
    world = a_world()
    held = start(world, BY_HAND)
    with pytest.raises(TargetBusy, match="Incident orders-1 is already working on orders"):
        start(world, BY_ALARM, "orders-2")
    world.run = held
    assert world.texts("joined") == [
        "Alarm orders-backlog fired: 382, threshold 200 as well; its run orders-2 joins this one."
    ]
    late = world.store.load("orders-2")
    assert (late.outcome, late.need) == ("refused", "Nothing; see above.")
    assert [entry.kind for entry in late.entries] == ["refused"]
    assert world.store.holder(QUEUE) == "orders-1"


def test_a_name_that_another_execution_has_used_is_refused() -> None:
    world = a_world()
    start(world, BY_HAND)
    with pytest.raises(GuardRefused, match="exists already, from another execution"):
        open_incident.open_incident(event(BY_HAND, execution="another"), world.aws)
    assert len(world.load().entries) == 1


def test_an_incident_that_has_ended_is_not_opened_again() -> None:
    world = a_world()
    end(world, start(world, BY_HAND), "resolved")
    with pytest.raises(GuardRefused, match=r"has ended \(resolved\); start a new execution"):
        start(world, BY_HAND)


def test_a_refused_run_that_is_tried_again_stays_refused_and_pages_once() -> None:
    world = a_world()
    world.cloud.tags.clear()
    first = refusal(world, BY_ALARM)
    assert refusal(world, BY_ALARM) == first
    (entry,) = world.store.load("orders-2").entries
    assert entry.kind == "paged"


def test_a_target_whose_lease_has_passed_is_taken_with_a_higher_fence() -> None:
    world = a_world()
    first = start(world, BY_HAND)
    world.clock.forward(hours=4)
    second = start(world, BY_HAND, "orders-2")
    assert second == replace(first, incident="orders-2", fence=2)


def test_the_handler_returns_the_run_that_later_steps_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = a_world()
    monkeypatch.setattr(open_incident, "services", lambda: world.aws)
    run = open_incident.handler(event(BY_HAND), None)["run"]
    assert Run(**run) == Run("orders-1", RUNBOOK, QUEUE, "auto", 1)


def test_the_rate_counts_by_the_hour() -> None:
    world = a_world(runs_per_hour=1)
    world.cloud.visible["other"] = 0
    world.clock.now -= timedelta(minutes=54)
    end(world, start(world, BY_ALARM, "a"), "observed")
    assert "2 runs in this account" in refusal(world, BY_ALARM, "b")
    world.clock.forward(hours=1)
    start(world, BY_ALARM, "c")
