"""Plan relief for a queue: name the cause, plan with numbers, write both into the record.

Called with ``{"run", "state", "facts"}``; returns what the machine goes by:
``{"action", "levers": [ids in order], "needs_yes", "plan_hash", "period_seconds"}``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import queues
from oncall.errors import NeedsHuman
from oncall.guards import heed_stop
from oncall.record import Entry
from oncall.step import step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Plan. Raises ``NeedsHuman`` when the evidence calls for one, or after too many plans."""
    heed_stop(aws, call.run)
    contract = contracts.load(call.run.runbook)
    facts = queues.facts_from(call.payload["facts"])
    diagnosis = queues.diagnose(facts, contract.verification)
    plan = queues.plan(diagnosis, facts, contract.limits)
    document = plan.document(diagnosis, facts)
    observes = call.run.mode == "observe"
    would = "I would: " if observes and plan.changes else ""
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
        happened=f"{facts.queue} had {diagnosis.evidence[0]} when I looked. {diagnosis.sentence}",
        doing=f"{would}{plan.sentence}",
        diagnosis=diagnosis.cause,
        plan=document,
    )
    if not observes:
        if call.run.round > contract.limits["plans"]:
            raise NeedsHuman(
                f"{call.run.round - 1} plans have not relieved {facts.queue}. {plan.sentence}"
            )
        if plan.action == "human":
            raise NeedsHuman(plan.sentence)
    always_ask = plan.action in contract.modes["always_ask"]
    return {
        "action": plan.action,
        "levers": [change.lever for change in plan.changes],
        "needs_yes": bool(plan.changes) and (call.run.mode == "ask" or always_ask),
        "plan_hash": document["hash"],
        "period_seconds": facts.period_seconds,
    }


handler = step(work)
