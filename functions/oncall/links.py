"""Where to look: the addresses that belong to an incident. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from oncall.headline import is_storm

if TYPE_CHECKING:
    from oncall.incident import Incident


@dataclass(frozen=True, slots=True)
class Links:
    """Addresses that belong to an incident; ``""`` where there is none."""

    execution: str = ""
    alarm: str = ""
    runbook: str = ""
    report: str = ""
    thread: str = ""

    def named(self) -> list[tuple[str, str]]:
        """Return ``(name, address)`` of those there are."""
        pairs = [
            ("Slack thread", self.thread),
            ("Report", self.report),
            ("Execution", self.execution),
            ("Alarm", self.alarm),
            ("Runbook", self.runbook),
        ]
        return [(name, address) for name, address in pairs if address]


def links_of(incident: Incident, *, docs_url: str, report: str = "", thread: str = "") -> Links:
    """Return the addresses that belong to an incident.

    ``docs_url`` names the runbook's document and may hold ``{runbook}``; a storm has none.
    """
    runbook = "" if is_storm(incident) else quote(incident.runbook, safe="")
    alarm = incident.trigger.get("alarm") or {}
    return Links(
        execution=_execution_link(incident.execution),
        alarm=_alarm_link(str(alarm.get("arn", ""))),
        runbook=docs_url.replace("{runbook}", runbook) if runbook else "",
        report=report or incident.report_url,
        thread=thread,
    )


def console(partition: str, region: str) -> str:
    """Return the console's address in a partition (AWS partitions: aws, aws-cn, aws-us-gov)."""
    match partition:
        case "aws-cn":
            return f"https://{region}.console.amazonaws.cn"
        case "aws-us-gov":
            return f"https://{region}.console.amazonaws-us-gov.com"
    return f"https://{region}.console.aws.amazon.com"


def _execution_link(arn: str) -> str:
    parts = arn.split(":")
    if len(parts) != 8 or parts[2] != "states":  # noqa: PLR2004 -- arn:p:states:r:a:execution:m:n
        return ""
    where = console(parts[1], parts[3])
    address = quote(arn, safe=":")
    return f"{where}/states/home?region={parts[3]}#/v2/executions/details/{address}"


def _alarm_link(arn: str) -> str:
    parts = arn.split(":", 6)
    if len(parts) != 7 or parts[2] != "cloudwatch":  # noqa: PLR2004 -- arn:p:cloudwatch:r:a:alarm:n
        return ""
    where = console(parts[1], parts[3])
    name = quote(parts[6], safe="")
    return f"{where}/cloudwatch/home?region={parts[3]}#alarmsV2:alarm/{name}"
