"""Look whether a queue is relieved: judged on metrics, against the numbers before the change.

Called and answering as ``looking.take`` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import looking, queues
from oncall.levers import BACK_PRESSURE
from oncall.queue_facts import read_facts
from oncall.step import step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.incident import Incident
    from oncall.plans import Look
    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Look once. Raises what ``looking.take`` raises."""
    rules = contracts.load(call.run.runbook).verification

    def facts() -> queues.Facts:
        return read_facts(aws, call.run.runbook, call.run.target)

    def relief(before: Look, incident: Incident) -> Look:
        shed = any(change.lever == BACK_PRESSURE for change in incident.standing_changes)
        return queues.assess(before, facts(), incident.plan, rules, shed=shed)

    def calm(before: Look, incident: Incident) -> Look:
        return queues.assess_calm(before, facts(), incident.plan, rules)

    return looking.take(call, aws, relief, calm)


handler = step(work)
