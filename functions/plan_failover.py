"""Plan a failover or a failback: whether it is called for, what it takes and by which lever.

Called with ``{"run", "state", "facts"}``; returns what the machine goes by (``planning.write``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import failover, failover_plan, planning, service
from oncall.step import step
from oncall.targets import service_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Plan. Raises what ``planning.write`` raises."""
    contract = contracts.load(call.run.runbook)
    about = service.load(service_name(call.run.target))
    facts = failover.facts_from(call.payload["facts"])
    diagnosis = failover.diagnose(about, facts, contract.verification)
    plan = failover_plan.plan(about, diagnosis, facts, contract.limits, contract.verification)
    return planning.write(call, aws, diagnosis, plan, failover_plan.seen(about, facts))


handler = step(work)
