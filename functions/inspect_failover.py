"""Inspect a service in both its Regions, as far as they answer, before a failover or a failback.

Called with ``{"run", "state"}``; returns ``{"facts": {...}}``, the fields of
``oncall.failover.Facts``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import failover_facts, service
from oncall.failover import DIRECTIONS
from oncall.step import step
from oncall.targets import service_name
from oncall.times import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Read everything that diagnosis and plan go by."""
    incident = aws.store.load(call.run.incident)
    trigger = incident.trigger
    options = trigger.get("options", {})
    # A game day has no outage; its clock runs from when somebody has called it.
    called = incident.started_at if trigger.get("game_day") else ""
    changed = trigger.get("alarm", {}).get("changed_at", "") or called
    facts = failover_facts.read_facts(
        aws,
        service.load(service_name(call.run.target)),
        contracts.load(call.run.runbook).verification,
        direction=DIRECTIONS[call.run.runbook],
        sick_since=parse(changed).timestamp() if changed else None,
        execution=incident.execution,
        not_the_deploy=options.get("not_the_deploy") == "yes",
    )
    return {"facts": asdict(facts)}


handler = step(work)
