"""Look whether a function is relieved: judged on metrics, against the numbers before the change.

Called and answering as ``looking.take`` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import looking, throttle_relief
from oncall.function_facts import look_again
from oncall.step import step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oncall.incident import Incident
    from oncall.looking import Judge
    from oncall.plans import Look
    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Look once. Raises what ``looking.take`` raises."""
    rules = contracts.load(call.run.runbook).verification

    def by(assess: Callable[..., Look]) -> Judge:
        def judge(before: Look, incident: Incident) -> Look:
            facts = look_again(aws, call.run.runbook, call.run.target)
            return assess(before, facts, incident.plan, rules)

        return judge

    return looking.take(call, aws, by(throttle_relief.assess), by(throttle_relief.assess_calm))


handler = step(work)
