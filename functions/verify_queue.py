"""Look whether the plan helps: judged on metrics, against the numbers from before the change.

Called with ``{"run", "state", "phase": "relief"|"calm", "look"}``, where ``look`` is what the look
before has returned (``{}`` at first); returns ``{"look": {...}, "verdict"}``.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import endings, queues
from oncall.errors import Ineffective, Recurred, WorldMoved
from oncall.guards import heed_stop, heed_switches
from oncall.queue_facts import read_facts
from oncall.record import Entry
from oncall.step import step
from oncall.times import iso

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.queues import Look
    from oncall.record import Incident
    from oncall.services import Services
    from oncall.step import Call

_MARKS = (0.25, 0.5, 0.75)
"""Progress told in the thread; the header shows every look."""


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Look once.

    Raises ``GuardRefused`` (a kill switch was thrown), ``Ineffective``, ``Recurred``,
    ``WorldMoved`` (a queue that was to drain by itself does not: look again), ``Aborted`` or
    ``TakenOver``.
    """
    heed_stop(aws, call.run)
    rules = contracts.load(call.run.runbook).verification
    before = queues.Look(**call.payload["look"])
    incident = aws.store.load(call.run.incident)
    if incident.standing_changes:
        heed_switches(aws, call.run)
    facts = read_facts(aws, call.run.runbook, call.run.target)
    calms = call.payload["phase"] == "calm"
    if calms:
        look = queues.assess_calm(before, facts, incident.plan, rules)
    else:
        shed = any(change.lever == queues.BACK_PRESSURE for change in incident.standing_changes)
        look = queues.assess(before, facts, incident.plan, rules, shed=shed)
    _write(call, aws, incident, before, look)
    _raise_for(look, incident)
    return {"look": asdict(look), "verdict": look.verdict}


def _write(call: Call, aws: Services, incident: Incident, before: Look, look: Look) -> None:
    """Show every look in the header; tell verdicts and quarters of the way in the thread."""
    phase = call.payload["phase"]
    entry = None
    passed = [mark for mark in _MARKS if before.done < mark <= look.done]
    ends_well = phase == "calm" and look.verdict == "drained"  # the closing line says it
    if (look.verdict != "wait" and not ends_well) or (passed and phase == "relief"):
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
        progress={"done": look.done, "text": look.sentence, "eta": eta},
    )


def _changed(incident: Incident) -> str:
    return " ".join(endings.told(change) for change in incident.changes)


def _raise_for(look: Look, incident: Incident) -> None:
    if look.verdict == "recurred":
        raise Recurred(look.sentence)
    if look.verdict == "ineffective" and not incident.plan["changes"]:
        raise WorldMoved(f"It does not drain by itself: {look.sentence} I look again.")
    if look.verdict in {"ineffective", "worse"}:
        raise Ineffective(look.sentence)


handler = step(work)
