"""The way a run has gone: its machine, drawn with the states that its execution has entered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from oncall.machine_svg import machine_svg
from oncall.step import logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy_boto3_stepfunctions.type_defs import HistoryEventTypeDef

    from oncall.incident import Incident
    from oncall.services import Services
    from oncall.svg import Theme

_EVENTS = 1000
"""Of a history, the latest: all that GetExecutionHistory returns at once."""


def run_graph(aws: Services, incident: Incident, *, theme: Theme | None = "auto") -> str:
    """Draw an incident's machine with the way that its execution has gone; ``""`` without one.

    Raises AWS's errors. Of a closed incident no state is the current one, though its execution may
    still have to leave the last.
    """
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
        current=current if incident.status == "open" else "",
        title=f"{incident.runbook} on {incident.target_name}",
        theme=theme,
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
