"""Plan a replay of dead letters: what they are, whether they may go back, and how fast.

Called with ``{"run", "state", "facts"}``; returns what the machine goes by (``planning.write``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import planning, replays
from oncall.step import step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Plan. Raises what ``planning.write`` raises."""
    contract = contracts.load(call.run.runbook)
    facts = replays.facts_from(call.payload["facts"])
    diagnosis = replays.diagnose(facts, contract.verification)
    plan = replays.plan(diagnosis, facts, contract.limits)
    return planning.write(call, aws, diagnosis, plan, replays.seen(facts))


handler = step(work)
