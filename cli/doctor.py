"""What `runbook doctor` does: read services with the caller's credentials, and show findings."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import boto3
import click
from rich.console import Console
from rich.table import Table

from cli.outcomes import FAILED
from oncall import service
from oncall.errors import BadInput
from oncall.failover import FAILOVER
from oncall.failover_facts import read_facts
from oncall.readiness import broken_file, findings
from oncall.readiness_facts import read_inventory
from oncall.readiness_seen import BAD, OK, RULES, WARN, Finding
from oncall.services import Services, Settings
from oncall.words import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncall.service import Service

_WIDE = 220
_WORST_FIRST = (BAD, UNKNOWN, WARN, OK)
_SETTINGS = Settings(
    table="",
    stack="",
    kill_switch="",
    period_seconds=60,
    calendars=(),
    runs_per_hour=0,
    approvers=(),
    account_floor=100,
    region="",
)
"""What reading goes by, as the template has it; nothing here has an incident."""


def examine(
    asked: Sequence[str], stack: str, profile: str | None
) -> dict[str, tuple[Finding, ...]]:
    """Return the findings of services by name; of every service file if none is asked for.

    ``stack``: the name of the stack of runbooks in both Regions.

    Raises ``BadInput`` for a service that there is no file of, and botocore's errors for
    credentials that are missing or refused. A file that cannot be read is a finding of its own.
    """
    names = [_known(one) for one in asked] or list(service.names())
    if not names:
        raise BadInput(
            "There are no service files, so nothing could be failed over. Copy "
            "runbooks/sample/services/shop.yaml to runbooks/services/<name>.yaml."
        )
    session = boto3.session.Session(profile_name=profile)
    return {name: _findings(name, stack, session) for name in dict.fromkeys(names)}


def _known(name: str) -> str:
    """Return the service's name for its own or its record's."""
    return name if name in service.names() else service.load(name).name


def _findings(name: str, stack: str, session: boto3.session.Session) -> tuple[Finding, ...]:
    try:
        one = service.load(name)
    except BadInput as error:
        return (broken_file(str(error)),)
    return _look(one, stack, session)


def _look(one: Service, stack: str, session: boto3.session.Session) -> tuple[Finding, ...]:
    region = one.regions["standby"]
    # Who has no credentials would otherwise be told that everything is unknown.
    session.client("sts", region_name=region).get_caller_identity()
    aws = Services(replace(_SETTINGS, region=region), session)
    facts = read_facts(aws, one, RULES, direction=FAILOVER)
    return findings(one, facts, read_inventory(aws, one, stack))


def exit_code(found: Mapping[str, Sequence[Finding]]) -> int:
    """Return 0 if all is ok or a warning, 1 if anything is bad or was not seen."""
    verdicts = {one.verdict for listed in found.values() for one in listed}
    return 0 if verdicts <= {OK, WARN} else FAILED


def show(found: Mapping[str, Sequence[Finding]], output: str) -> None:
    """Print findings as a table, the worst first, as text for a log, or as a JSON list."""
    rows = [(name, one) for name, listed in found.items() for one in listed]
    if output == "json":
        told = [{"service": name, **asdict(one)} for name, one in rows]
        click.echo(json.dumps(told, indent=2))
        return
    if output == "text":
        for name, one in rows:
            click.echo(f"{one.verdict:<7}  {name}  {one.name}: {one.sentence}")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("service", "verdict", "what", "number", ""):
        table.add_column(heading, overflow="fold")
    for name, one in sorted(rows, key=lambda row: _WORST_FIRST.index(row[1].verdict)):
        table.add_row(name, one.verdict, one.name, _number(one.number), one.sentence)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    console.print(table, highlight=False, markup=False)
    click.echo(_summary([one.verdict for _, one in rows]), err=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _summary(verdicts: Sequence[str]) -> str:
    words = [f"{verdicts.count(word)} {word}" for word in _WORST_FIRST if word in verdicts]
    return f"{', '.join(words)}."
