"""Look whether clients have moved and the service works where they went.

Called as ``looking.take`` says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import failover_looks, failover_watch, looking, service
from oncall.failover import DIRECTIONS, FAILBACK, FAILOVER, home_share
from oncall.step import step
from oncall.targets import service_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.incident import Incident
    from oncall.plans import Look
    from oncall.service import Role
    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Look once. Raises what ``looking.take`` raises."""
    rules = contracts.load(call.run.runbook).verification
    about = service.load(service_name(call.run.target))
    direction = DIRECTIONS[call.run.runbook]
    goes_to: Role = "standby" if direction == FAILOVER else "primary"

    def seen(incident: Incident) -> failover_looks.Seen:
        changes = [entry.data.get("change_id", "") for entry in incident.entries]
        made = [one for one in changes if one]
        return failover_watch.look(
            aws, about, rules, goes_to=goes_to, change_id=made[-1] if made else ""
        )

    def planned(incident: Incident) -> Mapping[str, Any]:
        if incident.plan["order"]:
            return incident.plan
        # It has moved already and is only watched.
        order = {
            "direction": direction,
            "steps": [],
            "record": about.record,
            "loss_seconds": 0,
            "to": about.regions[goes_to],
            "share": round(100 * home_share(about)) if direction == FAILBACK else 100,
        }
        return {**incident.plan, "order": order}

    def told(before: Look, incident: Incident) -> Look:
        effect = failover_looks.effect_of(incident.entries, planned(incident)["order"])
        return replace(before, carry={**before.carry, "effect": effect})

    def relief(before: Look, incident: Incident) -> Look:
        return failover_looks.assess(
            told(before, incident), seen(incident), planned(incident), rules
        )

    def calm(before: Look, incident: Incident) -> Look:
        return failover_looks.assess_calm(
            told(before, incident), seen(incident), planned(incident), rules
        )

    return looking.take(call, aws, relief, calm)


handler = step(work)
