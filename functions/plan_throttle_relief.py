"""Plan relief for a throttled function: name the cause, plan with numbers, write both down.

Called with ``{"run", "state", "facts"}``; returns what the machine goes by (``planning.write``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import planning, throttle_relief, throttles
from oncall.step import step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Plan. Raises what ``planning.write`` raises."""
    contract = contracts.load(call.run.runbook)
    facts = throttles.facts_from(call.payload["facts"])
    diagnosis = throttles.diagnose(facts, contract.verification)
    plan = throttle_relief.plan(diagnosis, facts, contract.limits)
    return planning.write(call, aws, diagnosis, plan, throttles.seen(facts))


handler = step(work)
