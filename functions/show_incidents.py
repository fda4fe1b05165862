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

from oncall import contract as contracts
from oncall import dashboard
from oncall.alarms import MODE_TAG, RUNBOOK_TAG
from oncall.dashboard import Deployment, Seen
from oncall.headline import needs_human
from oncall.run_graph import run_graph
from oncall.scorecard import SCORECARD, WEEK, record_id
from oncall.step import logged, services

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services
    from oncall.svg import Theme

_DETAILED = 10
"""So many open incidents are read with their timelines; a storm has hundreds."""
_ENDED = 15
_GRAPHS = 3
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
            graphs={one.id: run_graph(aws, one, theme=None) for one in running[:_GRAPHS]},
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
