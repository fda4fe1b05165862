"""Plan relief for a queue: name the cause, plan with numbers, write both into the record.

Called with ``{"run", "state", "facts"}``; returns what the machine goes by (``planning.write``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import planning, queues
from oncall.step import step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Plan. Raises what ``planning.write`` raises."""
    contract = contracts.load(call.run.runbook)
    facts = queues.facts_from(call.payload["facts"])
    diagnosis = queues.diagnose(facts, contract.verification)
    plan = queues.plan(diagnosis, facts, contract.limits)
    return planning.write(call, aws, diagnosis, plan, queues.seen(facts))


handler = step(work)
