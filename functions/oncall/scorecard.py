"""What the runbooks were worth: counted from incidents, with proposals of more or less. Pure.

A proposal is never carried out by itself: a human tags the alarm, by the command that it brings.
What is counted is in ``docs/scorecard.md``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

from oncall.guards import guard_of
from oncall.times import iso, parse
from oncall.words import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from oncall.contract import Contract
    from oncall.incident import Incident

SCORECARD = "scorecard"
"""The runbook of the record that tells it; no machine runs it."""
WEEK = timedelta(days=7)
WINDOW = timedelta(days=28)
"""What a proposal rests on; CloudWatch keeps an alarm's history for 30 days
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarmHistory.html)."""
ENOUGH = 5
"""So many runs in the window, all good, speak for more autonomy."""
TROUBLE = 2
"""So many runs in the window that did not help speak for less."""
FALSE_FIRES = 3
"""So many in the window, and half of all runs, say that the alarm needs mending."""
_UNHELPFUL = frozenset({"ineffective", "failed"})
_LADDER = ("observe", "ask", "auto")
_DONE = frozenset({"changed", "moved"})


@dataclass(frozen=True, slots=True)
class Run:
    """A closed incident, with its timeline, and when its alarm was OK again."""

    incident: Incident
    ok_at: str = ""
    """``""`` where CloudWatch does not tell, or no alarm started it."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """More or less autonomy for a runbook on a target."""

    mode: str
    up: bool
    why: str
    command: str


@dataclass(frozen=True, slots=True)
class Line:
    """A runbook on a target: counts of a week, medians in seconds, a proposal of four weeks."""

    runbook: str
    target: str
    name: str
    mode: str
    """Of its latest run that an alarm started; ``""`` where there was none."""
    runs: int = 0
    verified: int = 0
    """Changed something, and metrics proved that it helped."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """The others, refused ones aside."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """By guard."""
    false_fires: int = 0
    relief_seconds: float | None = None
    by_hand_seconds: float | None = None
    proposal: Proposal | None = None
    note: str = ""


def record_id(moment: datetime) -> str:
    """Name the record of the ISO week that ``moment`` is in: ``scorecard-2026-W48``."""
    return f"{SCORECARD}-{moment:%G-W%V}"


# One run


def acted(incident: Incident) -> bool:
    """Whether the run has done anything to production."""
    return any(change.state != "not_made" for change in incident.changes) or any(
        entry.kind in _DONE for entry in incident.entries
    )


def fired_at(incident: Incident) -> str:
    """Return when its trouble began to be known: the alarm's change, or the start by hand."""
    alarm = incident.trigger.get("alarm") or {}
    return str(alarm.get("changed_at") or incident.started_at)


def relieved_at(incident: Incident) -> str:
    """Return when the run saw that what it did had helped; ``""`` unless it was resolved so.

    The last ``verified`` entry of the phase ``relief`` (``oncall.looking``); watching that it stays
    calm with settings put back comes after it.
    """
    if incident.outcome != "resolved" or not acted(incident):
        return ""
    seen = [e.at for e in incident.entries if e.kind == "verified" and e.id.startswith("relief-")]
    return seen[-1] if seen else incident.closed_at


def relief_seconds(incident: Incident) -> float | None:
    """Return the seconds from alarm to relief; ``None`` unless this run brought it."""
    relieved = relieved_at(incident)
    return _between(fired_at(incident), relieved) if relieved else None


def false_fire(run: Run) -> bool:
    """Whether an alarm started a run that had nothing to do.

    It was resolved without any change, or its alarm was OK again while it still did nothing.
    """
    incident = run.incident
    if incident.trigger.get("kind") != "alarm" or incident.outcome == "refused" or acted(incident):
        return False
    over = bool(run.ok_at) and parse(run.ok_at) <= parse(incident.closed_at)
    plan = incident.plan
    idle = plan.get("action") != "human" and not plan.get("changes") and not plan.get("order")
    return over or (idle and incident.outcome in {"resolved", "observed"})


def _by_hand_seconds(run: Run) -> float | None:
    """Return the seconds from alarm to OK where the run did not bring it; ``None`` if unknown."""
    left = run.incident.outcome not in {"resolved", "observed"} and not _joined(run.incident)
    if not left or not run.ok_at or false_fire(run):
        return None
    return _between(fired_at(run.incident), run.ok_at)


def _joined(incident: Incident) -> bool:
    """Whether it met a busy target, so that the run which it joined counts."""
    return incident.outcome == "refused" and guard_of(incident.doing) == "busy target"


def _between(start: str, end: str) -> float:
    return max(0.0, (parse(end) - parse(start)).total_seconds())


# All runs


def score(
    runs: Iterable[Run], now: datetime, contract_of: Callable[[str], Contract | None]
) -> list[Line]:
    """Count the week's runs by runbook and target; propose from those of ``WINDOW``.

    ``contract_of`` is ``None`` for what has no contract, which is not counted (a storm, a
    scorecard). What has neither run this week nor a proposal has no line.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.incident.closed_at):
        if now - WINDOW < parse(run.incident.closed_at) <= now:
            groups.setdefault((run.incident.runbook, run.incident.target), []).append(run)
    lines = []
    for (runbook, _), group in sorted(groups.items()):
        contract = contract_of(runbook)
        if contract is not None:
            line = _line(group, now, contract)
            if line.runs or line.proposal:
                lines.append(line)
    return sorted(lines, key=lambda line: (line.proposal is None, -line.runs))


def _line(group: Sequence[Run], now: datetime, contract: Contract) -> Line:
    week = [run for run in group if parse(run.incident.closed_at) > now - WEEK]
    refused = [run.incident for run in week if run.incident.outcome == "refused"]
    others = [run for run in week if run.incident.outcome != "refused"]
    verified = [run for run in others if relieved_at(run.incident)]
    last = group[-1].incident
    by_alarm = _by_alarm(group)
    proposal = _propose(group, contract)
    return Line(
        runbook=last.runbook,
        target=last.target,
        name=last.target_name,
        mode=by_alarm[-1].incident.mode if by_alarm else "",
        runs=len(week),
        verified=len(verified),
        outcomes=dict(Counter(r.incident.outcome for r in others if r not in verified)),
        refused=dict(Counter(guard_of(incident.doing) for incident in refused)),
        false_fires=sum(map(false_fire, others)),
        relief_seconds=_median(relief_seconds(run.incident) for run in verified),
        by_hand_seconds=_median(map(_by_hand_seconds, week)),
        proposal=proposal,
        note=_note(by_alarm),
    )


def _median(seconds: Iterable[float | None]) -> float | None:
    known = [one for one in seconds if one is not None]
    return median(known) if known else None


def _by_alarm(group: Sequence[Run]) -> list[Run]:
    """Return the runs that tell what mode their alarm sets; a storm makes every run ask."""
    return [
        run
        for run in group
        if run.incident.trigger.get("kind") == "alarm"
        and not run.incident.parent
        and run.incident.outcome != "refused"
    ]


def _note(by_alarm: Sequence[Run]) -> str:
    fires = sum(map(false_fire, by_alarm))
    if fires < FALSE_FIRES or fires * 2 < len(by_alarm):
        return ""
    return (
        f"{fires} of {len(by_alarm)} alarms in four weeks were over before anything was done: "
        f"raise the alarm's threshold or its evaluation periods."
    )


# Proposals


def _propose(group: Sequence[Run], contract: Contract) -> Proposal | None:
    """Propose one step down where runs did not help, one up where all did; else nothing."""
    by_alarm = _by_alarm(group)
    if not by_alarm:
        return None
    mode = by_alarm[-1].incident.mode
    same = [run.incident for run in by_alarm if run.incident.mode == mode]
    why = _why_less(mode, same)
    step = -1
    if not why:
        why, step = _why_more(mode, [r for r in by_alarm if r.incident.mode == mode], contract), 1
    at = _LADDER.index(mode) + step
    if not why or not 0 <= at < len(_LADDER):
        return None
    alarm = str((same[-1].trigger.get("alarm") or {}).get("arn", ""))
    return Proposal(
        mode=_LADDER[at],
        up=step > 0,
        why=why,
        command=f"aws cloudwatch tag-resource --resource-arn {alarm} "
        f"--tags Key=runbook:mode,Value={_LADDER[at]}",
    )


def _why_less(mode: str, incidents: Sequence[Incident]) -> str:
    bad = [one for one in incidents if one.outcome in _UNHELPFUL]
    if len(bad) >= TROUBLE:
        return f"{len(bad)} of {len(incidents)} runs in four weeks did not help."
    rejected = [one for one in incidents if one.outcome == "rejected"]
    if mode == "ask" and len(rejected) >= TROUBLE and len(rejected) * 2 >= len(incidents):
        return f"{len(rejected)} of {len(incidents)} plans in four weeks were rejected."
    return ""


def _why_more(mode: str, runs: Sequence[Run], contract: Contract) -> str:
    """Say what speaks for more; a plan that always asks, or that two approve, gains nothing."""
    held = {*contract.modes["always_ask"], *contract.two_people}
    real = [run.incident for run in runs if not false_fire(run)]
    if any(str(one.plan.get("action")) in held for one in real):
        return ""
    if mode == "ask":
        good = [one for one in real if relieved_at(one)]
        if len(good) >= ENOUGH and len(good) == len(real):
            return f"All {len(good)} plans of four weeks were approved and proved to help."
    if mode == "observe":
        would = [one for one in real if one.plan.get("changes") or one.plan.get("order")]
        if len(would) >= ENOUGH and len(would) == len(real):
            return f"It had a plan for each of {len(would)} alarms in four weeks."
    return ""


# Words


def sentence(line: Line) -> str:
    """Say a line in words, its proposal and how to follow it included."""
    what = [f"{line.verified} verified"]
    what += [f"{n} {outcome.replace('_', ' ')}" for outcome, n in sorted(line.outcomes.items())]
    if line.refused:
        why = ", ".join(f"{n} by {guard}" for guard, n in sorted(line.refused.items()))
        what.append(f"{sum(line.refused.values())} refused ({why})")
    mode = f" ({line.mode})" if line.mode else ""
    parts = [f"{line.runbook} on {line.name}{mode}: {counted(line.runs)}, {', '.join(what)}."]
    if line.false_fires:
        parts.append(f"The alarm fired {line.false_fires} times with nothing to do.")
    times = [
        f"{words} {duration(seconds)}"
        for words, seconds in (
            ("relief in", line.relief_seconds),
            ("by hand", line.by_hand_seconds),
        )
        if seconds is not None
    ]
    if times:
        parts.append(f"{', '.join(times).capitalize()} (median).")
    if line.proposal:
        more = "more" if line.proposal.up else "less"
        parts.append(
            f"I propose {more} autonomy, mode {line.proposal.mode}: {line.proposal.why} "
            f"If you agree: {line.proposal.command}"
        )
    if line.note:
        parts.append(line.note)
    return " ".join(parts)


def counted(runs: int) -> str:
    """Say how many runs."""
    return f"{runs} run" if runs == 1 else f"{runs} runs"


def document(lines: Sequence[Line], now: datetime) -> dict[str, Any]:
    """Return what the record holds, for the dashboard: ``{"since", "until", "lines": [...]}``."""
    return {"since": iso(now - WEEK), "until": iso(now), "lines": [asdict(one) for one in lines]}


def read(document: Mapping[str, Any]) -> list[Line]:
    """Read the lines back."""
    return [
        Line(**{**line, "proposal": Proposal(**line["proposal"]) if line["proposal"] else None})
        for line in document.get("lines", [])
    ]


def total(lines: Sequence[Line], now: datetime) -> str:
    """Say the week in a sentence."""
    runs = sum(line.runs for line in lines)
    week = f"{counted(runs)} in the week to {now:%d %b %Y}"
    if not runs:
        return f"{week}."
    verified = sum(line.verified for line in lines)
    refused = sum(sum(line.refused.values()) for line in lines)
    bad = sum(n for line in lines for word, n in line.outcomes.items() if word in _UNHELPFUL)
    fires = sum(line.false_fires for line in lines)
    return (
        f"{week}: {verified} verified, {bad} ineffective or failed, {refused} refused, "
        f"{fires} false fires."
    )
