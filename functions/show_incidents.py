"""Show incidents on the CloudWatch dashboard: a custom widget's function. Reads, changes nothing.

CloudWatch calls it in the name of whoever looks at the dashboard, with ``widgetContext`` and the
widget's parameters; ``{"describe": true}`` asks for its documentation
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard_about.html).
Buttons lead to other functions, which whoever looks has to be allowed to invoke as well.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from oncall import contract as contracts
from oncall import dashboard
from oncall.alarms import MODE_TAG, RUNBOOK_TAG
from oncall.dashboard import Deployment, Seen
from oncall.headline import needs_human
from oncall.machine_svg import machine_svg
from oncall.scorecard import SCORECARD, WEEK, record_id
from oncall.step import logged, logger, services

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mypy_boto3_stepfunctions.type_defs import HistoryEventTypeDef

    from oncall.incident import Incident
    from oncall.services import Services
    from oncall.svg import Theme

_DETAILED = 10
"""So many open incidents are read with their timelines; a storm has hundreds."""
_ENDED = 15
_GRAPHS = 3
_EVENTS = 1000
"""Of a history, the latest: all that GetExecutionHistory returns at once."""
_LOOKED_AT = 50
"""So many that started last are looked at for closed ones."""


def handler(event: Mapping[str, Any], _context: object) -> Any:
    """Return the widget's HTML, or its documentation as Markdown."""
    if event.get("describe"):
        return dashboard.DESCRIPTION
    with logged(function="show_incidents"):
        theme: Theme = "dark" if event.get("widgetContext", {}).get("theme") == "dark" else "light"
        return show(services(), _deployment(), theme)


def _deployment() -> Deployment:
    names = os.environ
    return Deployment(
        buttons=names["DASHBOARD_BUTTONS"] == "on",
        decide=names["DECISION_FUNCTION"],
        start=names["START_FUNCTION"],
        machines=json.loads(names["STATE_MACHINES"]),
        docs_url=names.get("RUNBOOK_DOCS_URL", ""),
    )


def show(aws: Services, stack: Deployment, theme: Theme = "light") -> str:
    """Read what there is and render it."""
    latest = [one for one in aws.store.latest(_LOOKED_AT) if one.runbook != SCORECARD]
    weeks = (aws.clock(), aws.clock() - WEEK)
    cards = [card for at in weeks if (card := aws.store.find(record_id(at)))]
    opened = sorted({str(row["id"]) for row in aws.store.opened("incident")}, reverse=True)
    running = [aws.store.load(name) for name in opened[:_DETAILED]]
    running += [one for name in opened[_DETAILED:] if (one := aws.store.find(name))]
    running = sorted(
        (incident for incident in running if incident.status == "open"),
        key=lambda incident: (needs_human(incident), incident.started_at),
        reverse=True,
    )
    return dashboard.page(
        Seen(
            now=aws.clock(),
            running=running,
            ended=[incident for incident in latest if incident.status != "open"][:_ENDED],
            armed=armed(aws),
            graphs={one.id: graph(aws, one) for one in running[:_GRAPHS]},
            card=cards[0].plan if cards else {},
            theme=theme,
        ),
        {name: contracts.load(name) for name in stack.machines},
        stack,
    )


def armed(aws: Services) -> list[tuple[str, str]]:
    """Return runbook and mode of each alarm that is tagged with a runbook."""
    pages = aws.client("resourcegroupstaggingapi").get_paginator("get_resources")
    found = []
    for page in pages.paginate(
        ResourceTypeFilters=["cloudwatch:alarm"], TagFilters=[{"Key": RUNBOOK_TAG}]
    ):
        for alarm in page["ResourceTagMappingList"]:
            tags = {tag["Key"]: tag["Value"] for tag in alarm["Tags"]}
            found.append((tags[RUNBOOK_TAG], tags.get(MODE_TAG, "")))
    return found


def graph(aws: Services, incident: Incident) -> str:
    """Draw an incident's machine with the way that its execution has gone; ``""`` without one."""
    if not incident.execution:
        return ""
    states = aws.client("stepfunctions")
    try:
        machine = states.describe_state_machine_for_execution(executionArn=incident.execution)
        history = states.get_execution_history(
            executionArn=incident.execution,
            maxResults=_EVENTS,
            reverseOrder=True,
            includeExecutionData=False,
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ExecutionDoesNotExist":
            raise
        logger.warning("no execution", extra={"execution": incident.execution})
        return ""
    entered, current = way(history["events"])
    return machine_svg(
        json.loads(machine["definition"]),
        entered=entered,
        current=current,
        title=f"{incident.runbook} on {incident.target_name}",
        theme=None,
    )


def way(events: Sequence[HistoryEventTypeDef]) -> tuple[list[str], str]:
    """Read from the latest events, latest first: states entered in order, and which is not left."""
    entered: list[str] = []
    left: set[str] = set()
    current = ""
    for event in events:
        if "stateExitedEventDetails" in event:
            left.add(event["stateExitedEventDetails"]["name"])
        elif "stateEnteredEventDetails" in event:
            name = event["stateEnteredEventDetails"]["name"]
            if not entered and name not in left:
                current = name
            entered.append(name)
    return entered[::-1], current
