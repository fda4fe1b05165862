"""Guards: reasons not to act, read when an incident opens and again right before every change."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from oncall.errors import Aborted, GuardRefused, TakenOver
from oncall.times import iso, parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from oncall.contract import Contract
    from oncall.incident import Incident, Run
    from oncall.services import Services

OPT_IN_TAG = "runbook-automation"
OPT_IN_VALUE = "enabled"
RUN = "run"
"""The kill switch's value that lets runbooks act; anything else stops them."""
_TROUBLE = frozenset({"ineffective", "failed"})
_SENTENCES: Mapping[str, str] = {
    "The kill switch ": "kill switch",
    "The change calendar ": "freeze",
    " is not opted in to automation": "no opt-in",
    " is cooling down until ": "cooldown",
    "The breaker for ": "breaker",
    " runs in this account within the hour": "rate",
    " is already working on ": "busy target",
    " is leased to incident ": "leased setting",
}
"""What only a guard's own sentence says; a test holds it against the guards."""


@dataclass(frozen=True, slots=True)
class GuardFacts:
    """What the guards judge: plain values, read just before."""

    runbook: str
    target_name: str
    switches: Mapping[str, str]
    """Kill switch parameters by name; ``""`` where one could not be found."""
    closed_calendars: Sequence[str] = ()
    next_opening: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    past_runs: Sequence[Mapping[str, Any]] = ()
    """``{"runbook", "outcome", "closed_at", "incident"}``"""
    runs_this_hour: int = 0


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """The numbers that the guards hold the facts against."""

    cooldown_minutes: float
    breaker_failures: float
    breaker_hours: float
    runs_per_hour: int


def refusal_to_change(facts: GuardFacts) -> str:
    """Return why nothing may be changed now, ``""`` when it may: kill switch, freeze, opt-in."""
    stopped = _refusal_of_switch(facts.switches, "I change nothing")
    if stopped:
        return stopped
    if facts.closed_calendars:
        until = f" until {facts.next_opening}" if facts.next_opening else ""
        return (
            f"The change calendar {', '.join(facts.closed_calendars)} is closed{until}, so I "
            f"change nothing. Add an open event to the calendar, or act by hand."
        )
    if facts.tags.get(OPT_IN_TAG) != OPT_IN_VALUE:
        found = facts.tags.get(OPT_IN_TAG, "no such tag")
        return (
            f"{facts.target_name} is not opted in to automation (tag {OPT_IN_TAG}: {found}). "
            f"Its owner can opt in with the tag {OPT_IN_TAG}={OPT_IN_VALUE}."
        )
    return ""


def refusal_to_open(facts: GuardFacts, limits: GuardLimits, now: datetime) -> str:
    """Return why an alarm may not open a run now: cooldown, breaker, the account's rate.

    A run that a person starts passes these three: the person is the answer to them.
    """
    runs = [run for run in facts.past_runs if run["runbook"] == facts.runbook]
    last = cooling_down(runs, facts.runbook, limits.cooldown_minutes, now)
    if last:
        ends = parse(last["closed_at"]) + timedelta(minutes=limits.cooldown_minutes)
        return (
            f"{facts.target_name} is cooling down until {iso(ends)}: incident {last['incident']} "
            f"ended {last['outcome']} at {last['closed_at']}. Start the run by hand if it is "
            f"needed sooner."
        )
    since = now - timedelta(hours=limits.breaker_hours)
    bad = [run for run in runs if run["outcome"] in _TROUBLE and parse(run["closed_at"]) > since]
    if len(bad) >= limits.breaker_failures:
        return (
            f"The breaker for {facts.runbook} on {facts.target_name} is open: {len(bad)} runs in "
            f"{limits.breaker_hours} hours did not help (limit {limits.breaker_failures}). Find "
            f"out why, then start the run by hand."
        )
    if facts.runs_this_hour > limits.runs_per_hour:
        return (
            f"{facts.runs_this_hour} runs in this account within the hour (limit "
            f"{limits.runs_per_hour}): something larger is wrong. Start the run by hand, or raise "
            f"the parameter RunsPerHour."
        )
    return ""


def cooling_down(
    past_runs: Sequence[Mapping[str, Any]], runbook: str, minutes: float, now: datetime
) -> Mapping[str, Any] | None:
    """Return the last run that makes its target cool down now, ``None`` when none does."""
    recent = [
        run
        for run in past_runs
        if run["runbook"] == runbook
        and parse(run["closed_at"]) > now - timedelta(minutes=minutes)
        and run["outcome"] not in {"refused", "observed"}
    ]
    return max(recent, key=lambda run: str(run["closed_at"]), default=None)


def read_facts(
    aws: Services, runbook: str, target_name: str, tags: Mapping[str, str]
) -> GuardFacts:
    """Read kill switches and change calendars now."""
    closed, opening = _closed_calendars(aws)
    return GuardFacts(
        runbook=runbook,
        target_name=target_name,
        switches=_switches(aws, runbook),
        closed_calendars=closed,
        next_opening=opening,
        tags=tags,
    )


def limits_of(contract: Contract, aws: Services) -> GuardLimits:
    """Return the numbers that a contract and the deployment set."""
    return GuardLimits(
        cooldown_minutes=contract.limits["cooldown_minutes"],
        breaker_failures=contract.limits["breaker_failures"],
        breaker_hours=contract.limits["breaker_hours"],
        runs_per_hour=aws.settings.runs_per_hour,
    )


def check_before_change(aws: Services, run: Run, name: str, tags: Mapping[str, str]) -> None:
    """Read every guard again and raise ``GuardRefused``, ``Aborted`` or ``TakenOver``.

    ``name`` and ``tags`` are those of the resource that is about to be changed.
    """
    incident = aws.store.find(run.incident)
    if incident:
        heed_stop(incident)
    refusal = refusal_to_change(read_facts(aws, run.runbook, name, tags))
    if refusal:
        raise GuardRefused(refusal)


def guard_of(refusal: str) -> str:
    """Name the guard that a refusal's sentence is of, in a word or two; ``other`` for none."""
    return next((guard for words, guard in _SENTENCES.items() if words in refusal), "other")


def heed_stop(incident: Incident) -> None:
    """Raise ``Aborted`` or ``TakenOver`` when a person has stopped the run."""
    stop = incident.stop
    if not stop:
        return
    reason = f": {stop['reason']}" if stop.get("reason") else ""
    if stop["kind"] == "take_over":
        raise TakenOver(f"{stop['by']} took over{reason}.")
    raise Aborted(f"{stop['by']} aborted the run{reason}.")


def heed_switches(aws: Services, run: Run, therefore: str) -> None:
    """Raise ``GuardRefused`` when a kill switch was thrown; ``therefore`` says what follows."""
    refusal = _refusal_of_switch(_switches(aws, run.runbook), therefore)
    if refusal:
        raise GuardRefused(refusal)


def _refusal_of_switch(switches: Mapping[str, str], therefore: str) -> str:
    for name, value in switches.items():
        if value != RUN:
            said = f"says {value!r}" if value else "is missing"
            return (
                f"The kill switch {name} {said}, so {therefore}. Lift it with "
                f"`aws ssm put-parameter --overwrite --name {name} --value {RUN}`."
            )
    return ""


def _switches(aws: Services, runbook: str) -> Mapping[str, str]:
    path = aws.settings.kill_switch
    names = [f"{path}/all", f"{path}/{runbook}"]
    answer = aws.client("ssm").get_parameters(Names=names)
    found = {item["Name"]: item["Value"] for item in answer["Parameters"]}
    return {name: found.get(name, "") for name in names}


def _closed_calendars(aws: Services) -> tuple[tuple[str, ...], str]:
    """Ask Change Calendar (``ssm:GetCalendarState``) about each calendar by itself, to name it."""
    closed: list[str] = []
    opening = ""
    for calendar in aws.settings.calendars:
        answer = aws.client("ssm").get_calendar_state(CalendarNames=[calendar])
        if answer["State"] == "CLOSED":
            closed.append(calendar)
            opening = max(opening, answer.get("NextTransitionTime", ""))
    return tuple(closed), opening
