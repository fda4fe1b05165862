"""Write a diagnosis and its plan into the record, and tell the machine how to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall.errors import NeedsHuman
from oncall.guards import heed_stop
from oncall.incident import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.plans import Diagnosis, Plan
    from oncall.services import Services
    from oncall.step import Call


def write(
    call: Call, aws: Services, diagnosis: Diagnosis, plan: Plan, seen: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Write the plan; ``seen`` are the numbers that later looks compare with.

    Returns ``{"action", "levers": [ids in order], "needs_yes", "plan_hash", "period_seconds"}``;
    an order that is no lever comes last, as ``order``.
    Raises ``NeedsHuman`` when the evidence calls for one, or after too many plans, and
    ``Aborted`` or ``TakenOver`` when a person has stopped the run.
    """
    incident = aws.store.load(call.run.incident)
    heed_stop(incident)
    contract = contracts.load(call.run.runbook)
    document = plan.document(diagnosis, seen)
    name = incident.target_name
    observes = call.run.mode == "observe"
    would = "I would: " if observes and plan.acts else ""
    aws.store.note(
        call.run,
        Entry(
            id=f"planned-{call.run.round}",
            kind="planned",
            text=f"{diagnosis.sentence} {would}{plan.sentence}"
            if plan.action != "human"
            else plan.sentence,
            data={"cause": diagnosis.cause, "evidence": list(diagnosis.evidence)},
        ),
        happened=f"{name} had {diagnosis.evidence[0]} when I looked. {diagnosis.sentence}",
        doing=f"{would}{plan.sentence}",
        diagnosis=diagnosis.cause,
        plan=document,
    )
    if not observes:
        if call.run.round > contract.limits["plans"]:
            raise NeedsHuman(
                f"{call.run.round - 1} plans have not relieved {name}. {diagnosis.sentence}"
            )
        if plan.action == "human":
            raise NeedsHuman(plan.sentence)
    always_ask = plan.action in contract.modes["always_ask"]
    return {
        "action": plan.action,
        "levers": [*(change.lever for change in plan.changes), *(["order"] if plan.order else [])],
        "needs_yes": plan.acts and (call.run.mode == "ask" or always_ask),
        "plan_hash": document["hash"],
        "period_seconds": aws.settings.period_seconds,
    }
