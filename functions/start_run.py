"""Start a runbook from the CloudWatch dashboard: what its buttons Run and Dry run invoke.

Called as ``{"runbook", "mode", "widgetContext"}``, the latter with ``forms.all`` as ``{"<runbook>.
<input>": target}``, in the name of whoever has clicked; Lambda does not say who that is. Who may
invoke this function may start runbooks: that is for IAM to say. It starts none unless the stack's
parameter ``DashboardButtons`` is on.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from oncall import alarms, dashboard
from oncall import contract as contracts
from oncall.errors import BadInput, Denied, OnCallError
from oncall.step import logged, services

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services

BY = "dashboard"
_OFF = (
    "Buttons are off; start the machine in Step Functions, or set the stack's parameter "
    "DashboardButtons to on."
)


def handler(event: Mapping[str, Any], _context: object) -> str:
    """Start a run and return HTML that says so; or why none was started."""
    try:
        with logged(function="start_run"):
            if os.environ["DASHBOARD_BUTTONS"] != "on":
                raise Denied(_OFF)
            started = start_run(event, services(), json.loads(os.environ["STATE_MACHINES"]))
    except OnCallError as error:
        return dashboard.notice(f"Not started. {error}", good=False)
    return dashboard.notice(f"Started {started}. Refresh the widget to see it.", good=True)


def start_run(event: Mapping[str, Any], aws: Services, machines: Mapping[str, str]) -> str:
    """Start the execution and return its name, the incident's id. Raises ``BadInput``."""
    runbook = str(event.get("runbook", ""))
    if runbook not in machines:
        raise BadInput(
            f"runbook: {runbook!r} is not deployed. Give one of {', '.join(sorted(machines))}."
        )
    contract = contracts.load(runbook)
    key = contract.target_input
    forms = event.get("widgetContext", {}).get("forms", {}).get("all", {})
    target = str(forms.get(dashboard.field_of(runbook, key), "")).strip()
    given = {**({key: target} if target else {}), "mode": event.get("mode", ""), "by": BY}
    request = contracts.parse_input(contract, given)
    short = re.split("[:/]", request.target)[-1]
    name = alarms.execution_name(f"{BY}-{short}", aws.clock())
    aws.client("stepfunctions").start_execution(
        stateMachineArn=machines[runbook], name=name, input=json.dumps(given)
    )
    return name
