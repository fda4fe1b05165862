"""Look how a replay goes: what comes back, how the consumer bears it, and how fast to go on.

Called as ``looking.take`` says, and with ``tallies``: those of the workers since the look before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import looking, replays
from oncall.dlq_facts import look_again
from oncall.step import step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncall.incident import Incident
    from oncall.plans import Look
    from oncall.replays import Facts
    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Look once. Raises what ``looking.take`` raises."""
    rules = contracts.load(call.run.runbook).verification
    tallies = call.payload.get("tallies", [])
    if tallies:
        _tell(call, aws, tallies)

    def facts_now(before: Look, incident: Incident) -> Facts:
        total = before.carry.get("total", {})
        total = replays.add_up(total, tallies) if tallies else total
        return look_again(
            aws,
            call.run,
            incident,
            lambda facts: replays.needs_sample(total, facts, incident.plan, rules),
        )

    def relief(before: Look, incident: Incident) -> Look:
        facts = facts_now(before, incident)
        return replays.assess(before, facts, tallies, incident.plan, rules, incident=incident.id)

    def calm(before: Look, incident: Incident) -> Look:
        facts = facts_now(before, incident)
        return replays.assess_calm(before, facts, incident.plan, rules, incident=incident.id)

    return looking.take(call, aws, relief, calm)


def _tell(call: Call, aws: Services, tallies: Sequence[Mapping[str, Any]]) -> None:
    """Write what the workers have done, before a stop can end the run without a look."""
    incident = aws.store.load(call.run.incident)
    carry = call.payload["look"].get("carry") or {}
    total = replays.add_up(carry.get("total", {}), tallies)
    said = replays.effect(total, call.run.target.rsplit(":", 1)[-1], incident.id)
    aws.store.note(call.run, None, progress={**incident.progress, "effect": said})


handler = step(work)
