"""Leased changes under a process that may die at every call: made once, put back, never lost."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from oncall import changes, endings, levers
from oncall.changes import Planned
from oncall.errors import Aborted, GuardRefused, LockLost, PutBackFailed, TakenOver, WorldMoved
from oncall.incident import Entry
from oncall.words import tell
from tests.unit.table import Killed
from tests.unit.world import (
    FUNCTION,
    MAPPING,
    PARAMETER,
    RUNBOOK,
    SWITCHES,
    World,
    a_world,
    refused,
)

HASH = "c0ffee00" * 8
ON = '{"state": "on"}'


def planned(lever: str, resource: str, before: Any, after: Any) -> Planned:
    return Planned(lever, resource, f"the {lever}", before, after, "it is at its cap")


RESERVED = planned("reserved-concurrency", FUNCTION, 20, 60)
UNRESERVED = planned("reserved-concurrency", FUNCTION, None, 60)
PROVISIONED = planned("provisioned-concurrency", f"{FUNCTION}:live", 5, 9)
UNPROVISIONED = planned("provisioned-concurrency", f"{FUNCTION}:live", None, 9)
CAP = planned("mapping-concurrency", MAPPING, 20, 60)
UNCAPPED = planned("mapping-concurrency", MAPPING, None, 10)
ENABLED = planned("mapping-enabled", MAPPING, before=False, after=True)
PRESSURE = planned("back-pressure", PARAMETER, "off", ON)
EVERY = [RESERVED, UNRESERVED, PROVISIONED, UNPROVISIONED, CAP, UNCAPPED, ENABLED, PRESSURE]


def live(world: World, change: Planned) -> Any:
    return levers.LEVERS[change.lever].read(world.aws, change.resource)


def set_live(world: World, change: Planned, value: Any) -> None:
    levers.LEVERS[change.lever].write(world.aws, change.resource, value)
    world.cloud.writes.clear()


def world_before(*many: Planned) -> World:
    """Open an incident whose plan holds the changes, in a world as the plan saw it."""
    world = a_world()
    world.open()
    plan(world, *many)
    for change in many:
        set_live(world, change, change.before)
    return world


def plan(world: World, *many: Planned, plan_hash: str = HASH) -> None:
    document = {
        "hash": plan_hash,
        "changes": [
            {name: getattr(change, name) for name in Planned.__dataclass_fields__}
            for change in many
        ],
    }
    world.store.note(world.run, None, plan=document)


def make(world: World, change: Planned, plan_hash: str = HASH) -> None:
    changes.make(world.aws, world.run, change.lever, plan_hash)


def deaths(build: Callable[[], World], act: Callable[[World], None]) -> Iterator[World]:
    """Let the act die before and after each of its calls; yield each world that is left."""
    whole = build()
    whole.cloud.death.none()
    act(whole)
    calls = whole.cloud.death.calls
    assert calls > 4
    for at in range(1, calls + 1):
        for after in (False, True):
            world = build()
            world.cloud.death.plan(at, after=after)
            with pytest.raises(Killed):
                act(world)
            world.cloud.death.none()
            yield world


@pytest.mark.parametrize("change", EVERY, ids=str)
def test_a_change_is_made_leased_and_told(change: Planned) -> None:
    world = world_before(change)
    told = changes.make(world.aws, world.run, change.lever, HASH)
    assert told == {
        "lever": change.lever,
        "name": change.name,
        "before": change.before,
        "after": change.after,
    }
    assert live(world, change) == change.after
    (record,) = world.load().changes
    assert (record.before, record.after, record.state) == (change.before, change.after, "applied")
    lever = levers.LEVERS[change.lever]
    assert record.undo == lever.command(change.resource, change.before)
    lease = world.store.lease(change.lever, change.resource)
    assert lease is not None
    assert lease.incident == world.run.incident
    assert lease.expires_at == world.load().lease_until
    step = f"{change.name} from {tell(change.before)} to {tell(change.after)}"
    assert world.texts("intended") == [f"About to set {step}."]
    assert world.texts("changed") == [f"Set {step}: {change.why}."]
    changed = next(entry for entry in world.load().entries if entry.kind == "changed")
    assert changed.data["undo"] == record.undo
    assert changed.data["by_hand"] == lever.command(change.resource, change.after)
    assert world.load().phase == "acting"
    assert f"it goes back to {tell(change.before)}" in world.load().doing


@pytest.mark.parametrize("change", EVERY, ids=str)
def test_a_change_that_dies_anywhere_is_made_exactly_once_when_tried_again(
    change: Planned,
) -> None:
    for world in deaths(lambda: world_before(change), lambda world: make(world, change)):
        make(world, change)
        assert live(world, change) == change.after
        assert len(world.cloud.writes) == 1
        (record,) = world.load().changes
        assert (record.before, record.state) == (change.before, "applied")
        assert len(world.texts("intended")) == 1
        assert len(world.texts("changed")) == 1


@pytest.mark.parametrize("change", EVERY, ids=str)
def test_a_change_that_dies_anywhere_is_put_back_whatever_it_has_done(change: Planned) -> None:
    for world in deaths(lambda: world_before(change), lambda world: make(world, change)):
        was_made = bool(world.cloud.writes)
        for record in changes.put_back(world.aws, world.run):
            assert record.state == ("put_back" if was_made else "not_made")
        assert live(world, change) == change.before
        assert not world.load().standing_changes
        assert world.store.lease(change.lever, change.resource) is None


@pytest.mark.parametrize("change", EVERY, ids=str)
def test_putting_back_that_dies_anywhere_ends_when_tried_again(change: Planned) -> None:
    def changed() -> World:
        world = world_before(change)
        make(world, change)
        return world

    def back(world: World) -> None:
        changes.put_back(world.aws, world.run)

    for world in deaths(changed, back):
        changes.put_back(world.aws, world.run)
        assert live(world, change) == change.before
        assert len(world.cloud.writes) == 2
        (record,) = world.load().changes
        assert record.state == "put_back"
        assert world.store.lease(change.lever, change.resource) is None
        assert len(world.texts("put_back")) == 1


@pytest.mark.parametrize("change", [RESERVED, CAP, PRESSURE], ids=str)
def test_someone_elses_value_is_never_overwritten_whenever_it_appears(change: Planned) -> None:
    theirs = "theirs" if change is PRESSURE else 77
    for world in deaths(lambda: world_before(change), lambda world: make(world, change)):
        set_live(world, change, theirs)
        with pytest.raises(WorldMoved):
            make(world, change)
        assert live(world, change) == theirs
        for record in changes.put_back(world.aws, world.run):
            assert record.state == "left"
            assert f"{change.name} is {theirs} now" in record.note
            assert record.undo in record.note
        assert live(world, change) == theirs
        assert not world.cloud.writes


def test_a_setting_that_has_moved_since_the_plan_is_left_and_nothing_is_leased() -> None:
    world = world_before(RESERVED)
    set_live(world, RESERVED, 25)
    with pytest.raises(WorldMoved, match=r"is 25 now; the plan saw 20\. I look again\."):
        make(world, RESERVED)
    assert not world.load().changes
    assert world.store.lease(RESERVED.lever, FUNCTION) is None


def test_another_ones_equal_value_is_not_taken_for_our_own() -> None:
    world = world_before(RESERVED)
    set_live(world, RESERVED, 60)
    with pytest.raises(WorldMoved):
        make(world, RESERVED)
    assert not world.load().changes


def test_a_value_that_does_not_stay_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_before(RESERVED)
    monkeypatch.setattr(levers.ReservedConcurrency, "write", lambda *_: None)
    with pytest.raises(WorldMoved, match="reads 20 right after it was set to 60: somebody else"):
        make(world, RESERVED)
    assert world.load().changes[0].state == "intended"


def test_only_what_was_decided_on_is_made() -> None:
    world = world_before(RESERVED)
    with pytest.raises(WorldMoved, match="The plan deadbeef was decided on, but the record holds"):
        make(world, RESERVED, "deadbeef" * 8)
    with pytest.raises(WorldMoved, match="holds no change of mapping-concurrency"):
        make(world, CAP)
    assert not world.cloud.writes


@pytest.mark.parametrize("change", EVERY, ids=str)
def test_guards_are_read_right_before_each_change(change: Planned) -> None:
    world = world_before(change)
    world.cloud.parameters[f"{SWITCHES}/{RUNBOOK}"] = "stop"
    with pytest.raises(GuardRefused, match="kill switch"):
        make(world, change)
    world.cloud.parameters[f"{SWITCHES}/{RUNBOOK}"] = "run"
    world.cloud.tags.clear()
    with pytest.raises(GuardRefused, match=f"the {change.lever} is not opted in"):
        make(world, change)
    assert not world.cloud.writes
    assert not world.load().changes


@pytest.mark.parametrize(("kind", "error"), [("abort", Aborted), ("take_over", TakenOver)])
def test_a_stop_is_heeded_right_before_each_change(kind: str, error: type[Exception]) -> None:
    world = world_before(RESERVED)
    world.store.note(world.run, None, stop={"kind": kind, "by": "Alice", "at": "03:02"})
    with pytest.raises(error, match="Alice"):
        make(world, RESERVED)
    assert not world.cloud.writes


def test_a_leased_setting_of_another_incident_is_not_touched() -> None:
    world = world_before(RESERVED)
    make(world, RESERVED)
    world.open("orders-2", target="arn:aws:sqs:us-east-1:123456789012:other")
    again = planned("reserved-concurrency", FUNCTION, 60, 80)
    plan(world, again)
    world.cloud.writes.clear()
    with pytest.raises(GuardRefused, match="leased to incident orders-1"):
        make(world, again)
    assert not world.cloud.writes
    assert live(world, RESERVED) == 60


def test_a_step_that_is_tried_again_after_its_lock_was_lost_changes_nothing() -> None:
    """Its first try has written the intention: that must not pass for holding the lock still."""
    for world in deaths(lambda: world_before(RESERVED), lambda world: make(world, RESERVED)):
        late = world.run
        world.clock.forward(hours=4)
        world.open("orders-2")
        was, world.run = live(world, RESERVED), late
        world.cloud.writes.clear()
        with pytest.raises(LockLost):
            make(world, RESERVED)
        assert not world.cloud.writes
        assert live(world, RESERVED) == was


SECOND = planned("reserved-concurrency", FUNCTION, 60, 90)


def changed_once() -> World:
    """A run that has raised 20 to 60 and now holds a second plan, from 60 to 90."""
    world = world_before(RESERVED)
    make(world, RESERVED)
    world.run = replace(world.run, round=2)
    plan(world, SECOND)
    world.cloud.writes.clear()
    return world


def test_a_setting_that_this_run_still_has_changed_is_not_changed_again() -> None:
    world = changed_once()
    with pytest.raises(WorldMoved, match=r"is still changed by this run \(60\); it is put back"):
        make(world, SECOND)
    assert live(world, RESERVED) == 60
    assert not world.cloud.writes
    (record,) = world.load().changes
    assert (record.before, record.after, record.state) == (20, 60, "applied")
    assert len(world.texts("intended")) == 1
    lease = world.store.lease(SECOND.lever, FUNCTION)
    assert lease is not None
    assert lease.after == 60
    changes.put_back(world.aws, world.run)
    assert live(world, RESERVED) == 20


def test_a_second_change_that_is_refused_still_goes_back_wherever_that_dies() -> None:
    def again(world: World) -> None:
        with suppress(WorldMoved):
            make(world, SECOND)
        changes.put_back(world.aws, world.run)

    for world in deaths(changed_once, again):
        changes.put_back(world.aws, world.run)
        (record,) = world.load().changes
        assert (record.before, record.after, record.state) == (20, 60, "put_back")
        assert live(world, RESERVED) == 20
        assert world.store.lease(RESERVED.lever, FUNCTION) is None


def test_a_setting_put_back_and_changed_again_keeps_the_newer_value_as_its_before() -> None:
    world = world_before(RESERVED)
    make(world, RESERVED)
    changes.put_back(world.aws, world.run)
    set_live(world, RESERVED, 30)
    world.run = replace(world.run, round=2)
    again = planned("reserved-concurrency", FUNCTION, 30, 90)
    plan(world, again)
    make(world, again)
    changes.put_back(world.aws, world.run)
    assert live(world, RESERVED) == 30


def test_changes_are_put_back_newest_first() -> None:
    world = world_before(RESERVED, CAP)
    make(world, RESERVED)
    world.clock.forward(seconds=1)
    make(world, CAP)
    done = changes.put_back(world.aws, world.run)
    assert [change.lever for change in done] == [CAP.lever, RESERVED.lever]
    assert world.cloud.writes[-2:] == [("cap", 20), ("put_function_concurrency", 20)]


def test_one_lever_can_be_put_back_alone() -> None:
    world = world_before(RESERVED, PRESSURE)
    make(world, RESERVED)
    make(world, PRESSURE)
    changes.put_back(world.aws, world.run, only="back-pressure")
    assert world.cloud.parameters[PARAMETER] == "off"
    assert [change.lever for change in world.load().standing_changes] == [RESERVED.lever]
    assert world.cloud.reserved == 60


def test_what_cannot_be_put_back_keeps_its_lease_and_the_rest_goes_back() -> None:
    world = world_before(RESERVED, CAP)
    make(world, RESERVED)
    world.clock.forward(seconds=1)
    make(world, CAP)
    world.cloud.failing["cap"] = refused("AccessDeniedException")
    with pytest.raises(PutBackFailed) as failed:
        changes.put_back(world.aws, world.run)
    assert levers.LEVERS[CAP.lever].command(MAPPING, 20) in str(failed.value)
    assert "AccessDenied" in str(failed.value)
    assert FUNCTION not in str(failed.value)
    assert world.cloud.reserved == 20
    assert [change.lever for change in world.load().standing_changes] == [CAP.lever]
    assert world.store.lease(CAP.lever, MAPPING) is not None
    world.cloud.failing.clear()
    changes.put_back(world.aws, world.run)
    assert world.cloud.cap == 20


@pytest.mark.parametrize("change", [RESERVED, CAP, PRESSURE], ids=str)
def test_what_no_longer_exists_needs_no_putting_back(change: Planned) -> None:
    world = world_before(change)
    make(world, change)
    world.cloud.gone.add(change.resource)
    world.cloud.parameters.pop(PARAMETER)
    (done,) = changes.put_back(world.aws, world.run)
    assert done.state == "put_back"
    assert "no longer exists" in done.note


def test_a_change_that_is_undone_already_needs_no_write() -> None:
    world = world_before(RESERVED)
    make(world, RESERVED)
    set_live(world, RESERVED, 20)
    (done,) = changes.put_back(world.aws, world.run)
    assert done.note == f"{RESERVED.name} is 20, as it was before."
    assert (done.state, bool(done.ended_at)) == ("put_back", True)
    assert not world.cloud.writes


def test_an_intended_change_that_was_never_made_is_told_as_not_made() -> None:
    world = world_before(RESERVED)
    world.cloud.failing["put_function_concurrency"] = refused("AccessDeniedException")
    with pytest.raises(ClientError, match="AccessDenied"):
        make(world, RESERVED)
    (done,) = changes.put_back(world.aws, world.run)
    assert done.note == f"{RESERVED.name} is 20, as it was before."
    assert (done.state, bool(done.ended_at)) == ("not_made", True)
    assert not world.cloud.writes
    assert not world.load().standing_changes
    assert world.store.lease(RESERVED.lever, FUNCTION) is None


DISABLED = planned("mapping-enabled", MAPPING, before=True, after=False)
MEND = replace(ENABLED, original=True, supersedes="orders-0")


def left_disabled() -> World:
    """An incident that has ended without putting its change back, and a run that mends it."""
    world = a_world()
    first = world.open("orders-0")
    plan(world, DISABLED)
    make(world, DISABLED)
    world.store.close(first, "failed", "Over.", Entry("closed", "closed", "Over."))
    world.open()
    plan(world, MEND)
    world.cloud.writes.clear()
    return world


def holder(world: World) -> str:
    lease = world.store.lease(MEND.lever, MAPPING)
    return lease.incident if lease else ""


def test_what_an_ended_incident_has_left_is_mended_for_good() -> None:
    world = left_disabled()
    assert (live(world, MEND), holder(world)) == (False, "orders-0")
    make(world, MEND)
    assert (live(world, MEND), holder(world)) == (True, "orders-1")
    assert world.texts("changed") == [f"Set {MEND.name} from off to on: {MEND.why}."]
    assert world.load().doing == f"Set {MEND.name} off → on; it stays so."
    (record,) = world.load().changes
    assert (record.before, record.after, record.undo) == (
        True,
        True,
        levers.LEVERS[MEND.lever].command(MAPPING, value=True),
    )
    (done,) = changes.put_back(world.aws, world.run)
    assert done.state == "put_back"
    assert (live(world, MEND), holder(world)) == (True, "")
    assert world.cloud.writes == [("enabled", True)]
    told = endings.closing_words(world.load())
    assert told == f"Set {MEND.name} to on for good."


def test_a_mend_that_dies_anywhere_is_made_exactly_once_when_tried_again() -> None:
    for world in deaths(left_disabled, lambda world: make(world, MEND)):
        make(world, MEND)
        assert (live(world, MEND), holder(world)) == (True, "orders-1")
        assert world.cloud.writes == [("enabled", True)]
        assert world.load().changes[0].state == "applied"


def test_a_mend_that_dies_anywhere_is_finished_or_left_to_be_found_again() -> None:
    """Its lease is either still the ended incident's, or given back over an enabled consumer."""
    seen = set()
    for world in deaths(left_disabled, lambda world: make(world, MEND)):
        for record in changes.put_back(world.aws, world.run):
            assert record.state == "put_back"
        seen.add((live(world, MEND), holder(world)))
        assert not world.load().standing_changes
    assert seen == {(False, "orders-0"), (True, "")}


def test_a_consumer_that_somebody_disables_after_the_mend_is_left() -> None:
    world = left_disabled()
    make(world, MEND)
    set_live(world, MEND, value=False)
    (done,) = changes.put_back(world.aws, world.run)
    assert done.state == "left"
    assert live(world, MEND) is False
    assert not world.cloud.writes


@pytest.mark.parametrize("supersedes", ["", "orders-9"])
def test_only_the_lease_of_the_incident_that_the_plan_names_is_taken_over(supersedes: str) -> None:
    world = left_disabled()
    plan(world, replace(MEND, supersedes=supersedes))
    with pytest.raises(GuardRefused, match="leased to incident orders-0"):
        make(world, MEND)
    assert (live(world, MEND), holder(world)) == (False, "orders-0")
    assert not world.load().changes


def test_a_person_who_takes_over_gets_the_settings_as_they_are_and_the_commands() -> None:
    world = world_before(RESERVED, CAP)
    make(world, RESERVED)
    make(world, CAP)
    world.cloud.writes.clear()
    left = changes.hand_to_person(world.aws, world.run, "Alice")
    assert {change.state for change in left} == {"handed_over"}
    assert (world.cloud.reserved, world.cloud.cap) == (60, 60)
    assert not world.cloud.writes
    for change in world.load().changes:
        assert change.state == "handed_over"
        assert "stays at 60, Alice has it now" in change.note
        assert change.undo in change.note
        assert world.store.lease(change.lever, change.resource) is None
    assert not changes.put_back(world.aws, world.run)
    assert len(world.texts("put_back")) == 2


def test_a_wound_down_run_puts_back_after_its_lock_has_gone_to_another() -> None:
    world = world_before(RESERVED)
    make(world, RESERVED)
    ended = replace(world.run, round=0, winding_down=True)
    world.clock.forward(hours=4)
    world.open("orders-2")
    changes.put_back(world.aws, ended)
    assert live(world, RESERVED) == 20
    assert world.store.lease(RESERVED.lever, FUNCTION) is None
    assert world.store.holder(world.run.target) == "orders-2"


def test_the_lease_lasts_as_long_as_the_incidents_own() -> None:
    world = world_before(RESERVED)
    make(world, RESERVED)
    due = world.clock() + timedelta(hours=3)
    assert [row["resource"] for row in world.store.opened("change", due)] == [FUNCTION]
    assert not world.store.opened("change", due - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "none"), (True, "on"), (False, "off"), (0, "0"), (20, "20"), ("off", "off")],
)
def test_a_value_is_told_in_words(value: Any, words: str) -> None:
    assert tell(value) == words


def test_a_value_that_aws_refuses_means_that_the_world_has_moved() -> None:
    world = world_before(RESERVED)
    world.cloud.failing["put_function_concurrency"] = refused("InvalidParameterValueException")
    with pytest.raises(WorldMoved, match=r"AWS refuses to set .* I look again"):
        make(world, RESERVED)
    changes.put_back(world.aws, world.run)
    assert [change.state for change in world.load().changes] == ["not_made"]
