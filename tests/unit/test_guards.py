"""Guards: each refuses with its numbers and says how to lift it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncall import guards
from oncall.errors import Aborted, GuardRefused, TakenOver
from oncall.guards import GuardFacts, GuardLimits, refusal_to_change, refusal_to_open
from oncall.times import iso
from tests.unit.world import CALENDAR, CONTRACT, OPTED_IN, RUNBOOK, SWITCHES, a_world

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
LIMITS = GuardLimits(cooldown_minutes=15, breaker_failures=3, breaker_hours=24, runs_per_hour=30)
OPEN = GuardFacts(
    runbook=RUNBOOK,
    target_name="orders",
    switches={f"{SWITCHES}/all": "run", f"{SWITCHES}/{RUNBOOK}": "run"},
    tags=OPTED_IN,
)


def past(outcome: str, minutes: float, runbook: str = RUNBOOK, name: str = "orders-0") -> Any:
    closed = iso(NOW - timedelta(minutes=minutes))
    return {"runbook": runbook, "outcome": outcome, "closed_at": closed, "incident": name}


def test_nothing_in_the_way_is_no_refusal() -> None:
    assert not refusal_to_change(OPEN)
    assert not refusal_to_open(OPEN, LIMITS, NOW)


@pytest.mark.parametrize(
    ("facts", "guard"),
    [
        (replace(OPEN, switches={"all": "stop"}), "kill switch"),
        (replace(OPEN, closed_calendars=(CALENDAR,)), "freeze"),
        (replace(OPEN, tags={}), "no opt-in"),
        (replace(OPEN, past_runs=[past("resolved", 5)]), "cooldown"),
        (replace(OPEN, past_runs=[past("failed", 60 + n) for n in range(3)]), "breaker"),
        (replace(OPEN, runs_this_hour=31), "rate"),
    ],
)
def test_the_sentence_of_every_guard_tells_which_it_is(facts: GuardFacts, guard: str) -> None:
    said = refusal_to_change(facts) or refusal_to_open(facts, LIMITS, NOW)
    assert guards.guard_of(said) == guard
    assert guards.guard_of(f"Alarm orders-backlog fired. I may not act: {said}") == guard
    assert guards.guard_of("Somebody said no.") == "other"


@pytest.mark.parametrize("switch", ["all", RUNBOOK])
@pytest.mark.parametrize(
    ("value", "said"),
    [("stop", "says 'stop'"), ("RUN", "says 'RUN'"), ("run ", "says 'run '"), ("", "is missing")],
)
def test_only_a_kill_switch_that_says_run_lets_run(switch: str, value: str, said: str) -> None:
    name = f"{SWITCHES}/{switch}"
    refusal = refusal_to_change(replace(OPEN, switches={**OPEN.switches, name: value}))
    assert refusal.startswith(f"The kill switch {name} {said}, so I change nothing.")
    assert f"`aws ssm put-parameter --overwrite --name {name} --value run`" in refusal


@pytest.mark.parametrize(
    ("opening", "until"), [("2026-11-23T06:00:00Z", " until 2026-11-23T06:00:00Z"), ("", "")]
)
def test_a_closed_calendar_is_named_with_its_next_opening(opening: str, until: str) -> None:
    facts = replace(OPEN, closed_calendars=(CALENDAR, "release"), next_opening=opening)
    refusal = refusal_to_change(facts)
    assert refusal.startswith(f"The change calendar {CALENDAR}, release is closed{until}, so I")
    assert "Add an open event to the calendar, or act by hand." in refusal


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({}, "no such tag"),
        ({"runbook-automation": "disabled"}, "disabled"),
        ({"runbook-automation": "Enabled"}, "Enabled"),
        ({"Runbook-Automation": "enabled"}, "no such tag"),
    ],
)
def test_a_target_that_is_not_opted_in_is_told_with_its_tag(
    tags: dict[str, str], found: str
) -> None:
    refusal = refusal_to_change(replace(OPEN, tags=tags))
    assert refusal == (
        f"orders is not opted in to automation (tag runbook-automation: {found}). Its owner can "
        f"opt in with the tag runbook-automation=enabled."
    )


@pytest.mark.parametrize(
    "outcome",
    ["resolved", "ineffective", "failed", "rejected", "aborted", "handed_over"],
)
def test_a_target_cools_down_after_a_run(outcome: str) -> None:
    facts = replace(OPEN, past_runs=[past(outcome, 14.9)])
    refusal = refusal_to_open(facts, LIMITS, NOW)
    closed = past(outcome, 14.9)["closed_at"]
    assert refusal == (
        f"orders is cooling down until 2026-11-23T03:00:06.000Z: incident orders-0 ended "
        f"{outcome} at {closed}. Start the run by hand if it is needed sooner."
    )
    assert not refusal_to_open(replace(OPEN, past_runs=[past(outcome, 15)]), LIMITS, NOW)


@pytest.mark.parametrize(
    "run", [past("refused", 1), past("observed", 1), past("failed", 1, "another-runbook")]
)
def test_what_has_done_nothing_here_cools_nothing_down(run: Any) -> None:
    assert not refusal_to_open(replace(OPEN, past_runs=[run]), LIMITS, NOW)


def test_the_last_run_is_the_one_that_counts() -> None:
    runs = [
        past("resolved", 12, name="b"),
        past("failed", 3, name="c"),
        past("failed", 9, name="a"),
    ]
    found = guards.cooling_down(runs, RUNBOOK, 15, NOW)
    assert found is not None
    assert found["incident"] == "c"
    assert guards.cooling_down([], RUNBOOK, 15, NOW) is None


def test_the_breaker_opens_with_its_numbers() -> None:
    runs = [past("failed", 60), past("ineffective", 120), past("failed", 24 * 60 - 1)]
    refusal = refusal_to_open(replace(OPEN, past_runs=runs), LIMITS, NOW)
    assert refusal == (
        f"The breaker for {RUNBOOK} on orders is open: 3 runs in 24 hours did not help (limit 3). "
        f"Find out why, then start the run by hand."
    )


@pytest.mark.parametrize(
    "third",
    [
        past("failed", 24 * 60 + 1),
        past("resolved", 90),
        past("handed_over", 90),
        past("aborted", 90),
        past("failed", 90, "another-runbook"),
    ],
)
def test_the_breaker_counts_only_runs_that_did_not_help_within_its_window(third: Any) -> None:
    runs = [past("failed", 60), past("ineffective", 120), third]
    assert not refusal_to_open(replace(OPEN, past_runs=runs), LIMITS, NOW)


def test_too_many_runs_in_the_account_are_told_with_the_limit() -> None:
    assert not refusal_to_open(replace(OPEN, runs_this_hour=30), LIMITS, NOW)
    refusal = refusal_to_open(replace(OPEN, runs_this_hour=31), LIMITS, NOW)
    assert refusal.startswith("31 runs in this account within the hour (limit 30)")
    assert "by hand" in refusal
    assert "RunsPerHour" in refusal


@given(
    switches=st.dictionaries(st.sampled_from(["/a", "/b"]), st.sampled_from(["run", "stop", ""])),
    closed=st.booleans(),
    opted_in=st.booleans(),
)
def test_a_change_is_allowed_only_when_every_guard_is(
    switches: dict[str, str],
    closed: bool,  # noqa: FBT001 -- drawn
    opted_in: bool,  # noqa: FBT001 -- drawn
) -> None:
    facts = replace(
        OPEN,
        switches=switches,
        closed_calendars=(CALENDAR,) if closed else (),
        tags=OPTED_IN if opted_in else {},
    )
    allowed = set(switches.values()) <= {"run"} and not closed and opted_in
    assert (refusal_to_change(facts) == "") is allowed


def test_a_kill_switch_that_is_not_there_refuses() -> None:
    world = a_world()
    run = world.open()
    guards.check_before_change(world.aws, run, "worker", OPTED_IN)
    del world.cloud.parameters[f"{SWITCHES}/all"]
    with pytest.raises(GuardRefused, match=f"{SWITCHES}/all is missing"):
        guards.check_before_change(world.aws, run, "worker", OPTED_IN)


def test_every_calendar_is_asked_and_the_closed_ones_are_named() -> None:
    world = a_world(calendars=("first", "second", "third"))
    run = world.open()
    guards.check_before_change(world.aws, run, "worker", OPTED_IN)
    world.cloud.closed = {"first": "2026-11-23T05:00Z", "third": "2026-11-23T07:00Z"}
    with pytest.raises(GuardRefused, match="first, third is closed until 2026-11-23T07:00Z"):
        guards.check_before_change(world.aws, run, "worker", OPTED_IN)


def test_the_resource_that_is_changed_has_to_be_opted_in_itself() -> None:
    world = a_world()
    with pytest.raises(GuardRefused, match="worker is not opted in"):
        guards.check_before_change(world.aws, world.open(), "worker", {})


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [("abort", Aborted, "aborted the run"), ("take_over", TakenOver, "took over")],
)
@pytest.mark.parametrize(("reason", "told"), [("wrong queue", ": wrong queue."), ("", ".")])
def test_a_stop_is_told_with_who_and_why(
    kind: str, error: type[Exception], words: str, reason: str, told: str
) -> None:
    world = a_world()
    run = world.open()
    guards.heed_stop(world.store.load(run.incident))
    world.store.note(run, None, stop={"kind": kind, "by": "Alice", "at": "03:02", "reason": reason})
    with pytest.raises(error) as stopped:
        guards.heed_stop(world.store.load(run.incident))
    with pytest.raises(error):
        guards.check_before_change(world.aws, run, "worker", OPTED_IN)
    assert str(stopped.value) == f"Alice {words}{told}"


def test_limits_come_from_the_contract_and_the_deployment() -> None:
    assert guards.limits_of(CONTRACT, a_world(runs_per_hour=7).aws) == GuardLimits(
        cooldown_minutes=CONTRACT.limits["cooldown_minutes"],
        breaker_failures=CONTRACT.limits["breaker_failures"],
        breaker_hours=CONTRACT.limits["breaker_hours"],
        runs_per_hour=7,
    )
