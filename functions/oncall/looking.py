"""Take one look after a plan: heed stops, judge, tell, and raise what ends the watch.

A verifying function is called with ``{"run", "state", "phase": "relief"|"calm", "look"}``, where
``look`` is what the look before has returned (``{}`` at first).
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from oncall import endings
from oncall.errors import Contained, Ineffective, Recurred, WorldMoved
from oncall.guards import heed_stop, heed_switches
from oncall.incident import Entry
from oncall.plans import Look
from oncall.times import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oncall.incident import Incident
    from oncall.services import Services
    from oncall.step import Call

_MARKS = (0.25, 0.5, 0.75)
_UNDER_WAY = frozenset({"wait", "go"})
_UNHELPFUL = frozenset({"ineffective", "worse"})

type Judge = Callable[[Look, Incident], Look]
"""From the look before and the incident to this look."""


def take(call: Call, aws: Services, relief: Judge, calm: Judge) -> Mapping[str, Any]:
    """Look once, by ``relief`` while changes stand and by ``calm`` once they are back.

    Returns ``{"look": {...}, "verdict"}``. Raises ``GuardRefused`` (a kill switch was thrown),
    ``Ineffective``, ``Recurred``, ``Contained``, ``WorldMoved`` (what was to pass by itself does
    not: look again), ``Aborted`` or ``TakenOver``.
    """
    before = Look(**call.payload["look"])
    incident = aws.store.load(call.run.incident)
    heed_stop(incident)
    if incident.standing_changes:
        heed_switches(aws, call.run, "I put back what I have changed")
    elif incident.plan.get("order"):
        heed_switches(aws, call.run, "I stop")
    judge = calm if call.payload["phase"] == "calm" else relief
    look = judge(before, incident)
    _write(call, aws, incident, before, look)
    _raise_for(look, incident)
    return {"look": asdict(look), "verdict": look.verdict}


def _write(call: Call, aws: Services, incident: Incident, before: Look, look: Look) -> None:
    """Show every look in the header; tell verdicts and quarters of the way in the thread."""
    phase = call.payload["phase"]
    entry = None
    passed = [mark for mark in _MARKS if before.done < mark <= look.done]
    ends_well = phase == "calm" and look.verdict == "relieved"  # the closing line says it
    if (look.verdict not in _UNDER_WAY and not ends_well) or (passed and phase == "relief"):
        entry = Entry(
            id=f"{phase}-{call.run.round}-{look.number}", kind="verified", text=look.sentence
        )
    eta = ""
    if look.eta_seconds is not None:
        eta = iso(aws.clock() + timedelta(seconds=look.eta_seconds))
    aws.store.note(
        call.run,
        entry,
        phase="watching",
        doing=f"{look.sentence} {_changed(incident)}".strip(),
        need="Nothing. I page you if it does not help.",
        progress={
            "done": look.done,
            "text": look.sentence,
            "eta": eta,
            "effect": str(look.carry.get("effect", "")),
        },
    )


def _changed(incident: Incident) -> str:
    return " ".join(endings.told(change) for change in incident.changes)


def _raise_for(look: Look, incident: Incident) -> None:
    if look.verdict == "recurred":
        raise Recurred(look.sentence)
    if look.verdict == "contained":
        raise Contained(look.sentence)
    nothing_done = not incident.plan["changes"] and not incident.plan.get("order")
    if look.verdict == "ineffective" and nothing_done:
        raise WorldMoved("It does not pass by itself, so I look again.")
    if look.verdict in _UNHELPFUL:
        raise Ineffective(look.sentence)
