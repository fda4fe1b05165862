"""What the commands on incidents do: list, follow, start, decide, report."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click
from botocore.exceptions import ClientError
from rich.console import Console
from rich.table import Table

from cli.outcomes import BAD_INPUT, FAILED, exit_code
from oncall import contract as contracts
from oncall.errors import BadInput, NotFound
from oncall.links import links_of
from oncall.reports import report_json, report_key, report_markdown
from oncall.times import parse, utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cli.connection import Deployed
    from oncall.incident import Incident

_LOOK_SECONDS = 1.0
_WIDE = 220
"""Columns of a table that goes into a file or a pipe: nothing is folded."""
_RUNNING = "RUNNING"


def duration(seconds: float) -> str:
    """Return for example ``8 s``, ``3 min 5 s`` or ``1 h 2 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def row(incident: Incident) -> dict[str, Any]:
    """Return what the list shows of an incident; ``took`` in seconds."""
    end = parse(incident.closed_at) if incident.closed_at else utc_now()
    closed = incident.status != "open"
    return {
        "incident": incident.id,
        "runbook": incident.runbook,
        "target": incident.target_name,
        "mode": incident.mode,
        "state": incident.outcome if closed else incident.phase,
        "open": not closed,
        "started": incident.started_at,
        "took": round((end - parse(incident.started_at)).total_seconds(), 1),
    }


def show_list(incidents: Sequence[Incident], output: str) -> None:
    """Print incidents as a table or as a JSON list."""
    rows = [row(incident) for incident in incidents]
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("There are no incidents.", err=True)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("incident", "runbook", "target", "state", "started (UTC)", "took"):
        table.add_column(heading, overflow="fold")
    for one in rows:
        started = parse(one["started"]).strftime("%Y-%m-%d %H:%M:%S")
        took = duration(one["took"]) + (" so far" if one["open"] else "")
        state = str(one["state"]).replace("_", " ")
        table.add_row(one["incident"], one["runbook"], one["target"], state, started, took)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    console.print(table, highlight=False, markup=False)


def follow(deployed: Deployed, incident_id: str, output: str) -> int:
    """Print the timeline as it grows until the incident closes; return its exit code.

    Raises ``NotFound``. Ctrl-C ends the watching alone.
    """
    talk = Console(stderr=True)
    shown = 0
    try:
        with talk.status("Looking …") as status:
            while True:
                incident = deployed.store.load(incident_id)
                for entry in incident.entries[shown:]:
                    _timeline_line(f"{parse(entry.at):%H:%M:%S}", entry.kind, entry.text, output)
                shown = len(incident.entries)
                if incident.status != "open":
                    break
                status.update(f"{incident.phase}: {incident.doing} {incident.need}")
                time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        click.echo(
            f"Stopped watching; the run goes on. Watch it again: runbook watch {incident_id}",
            err=True,
        )
        raise
    if output == "json":
        click.echo(report_json(incident), nl=False)
    else:
        click.echo(f"{incident.outcome.replace('_', ' ').capitalize()}: {incident.summary}")
    return exit_code(incident.outcome)


def _timeline_line(clock: str, kind: str, text: str, output: str) -> None:
    words = text.replace("\n", "\n" + " " * 21)
    click.echo(f"{clock}  {kind.replace('_', ' '):<9}  {words}", err=output == "json")


def read_input(runbook: str, pairs: Sequence[str], mode: str | None, reason: str) -> dict[str, Any]:
    """Return a run's input from ``key=value`` words, checked against the runbook's contract.

    Raises ``BadInput``, which names the field and shows an input that works.
    """
    contract = contracts.load(runbook)
    example = " ".join(f"{key}={value}" for key, value in json.loads(contract.example()).items())
    raw: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise BadInput(f"input: {pair!r} is not key=value. Give for example {example}.")
        typed = contract.inputs.get(key, {}).get("type", "string") != "string"
        try:
            raw[key] = json.loads(value) if typed else value
        except ValueError as error:
            raise BadInput(f"{key}: {value!r} is no {contract.inputs[key]['type']}.") from error
    if mode:
        raw["mode"] = mode
    if reason:
        raw["reason"] = reason
    try:
        contracts.parse_input(contract, raw)
    except BadInput as error:
        raise BadInput(str(error).replace(contract.example(), example)) from error
    return raw


def start(deployed: Deployed, runbook: str, given: Mapping[str, Any]) -> str:
    """Start a runbook and return its execution's ARN."""
    sfn = deployed.session.client("stepfunctions", endpoint_url=deployed.endpoint_url)
    machine = deployed.machine(runbook)
    body = json.dumps({**given, "by": deployed.caller()})
    return sfn.start_execution(stateMachineArn=machine, input=body)["executionArn"]


def wait_until_opened(deployed: Deployed, execution: str) -> Incident:
    """Wait for the incident of an execution, which bears its name.

    Raises ``BadInput`` with the machine's sentence when it ends without one.
    """
    sfn = deployed.session.client("stepfunctions", endpoint_url=deployed.endpoint_url)
    name = execution.rsplit(":", 1)[-1]
    while True:
        # In this order: a run that has ended has written its incident before.
        run = sfn.describe_execution(executionArn=execution)
        incident = deployed.store.find(name)
        if incident is not None:
            return incident
        if run["status"] != _RUNNING:
            raise BadInput(str(run.get("cause") or run.get("error") or run["status"]))
        time.sleep(_LOOK_SECONDS / 4)


def decide(deployed: Deployed, decision: Mapping[str, str], output: str) -> int:
    """Send a decision to the function that takes them; return 0 when it was recorded."""
    client = deployed.session.client("lambda", endpoint_url=deployed.endpoint_url)
    answer = client.invoke(
        FunctionName=deployed.outputs["DecisionFunction"], Payload=json.dumps(decision).encode()
    )
    said = json.loads(answer["Payload"].read())
    if answer.get("FunctionError"):
        click.echo(f"runbook: {said.get('errorMessage', said)}", err=True)
        wrong = said.get("errorType") in {BadInput.__name__, NotFound.__name__}
        return BAD_INPUT if wrong else FAILED
    click.echo(json.dumps(said) if output == "json" else said["text"])
    return 0 if said["recorded"] else FAILED


def report(deployed: Deployed, incident_id: str, output: str) -> str:
    """Return an incident's report: Markdown, or the whole record as JSON.

    As it was written at the end; from the record as long as there is none. Raises ``NotFound``.
    """
    incident = deployed.store.load(incident_id)
    name = "record.json" if output == "json" else "report.md"
    s3 = deployed.session.client("s3", endpoint_url=deployed.endpoint_url)
    try:
        stored = s3.get_object(
            Bucket=deployed.outputs["ReportBucket"], Key=report_key(incident, name)
        )
        return stored["Body"].read().decode()
    except ClientError as error:
        # Without s3:ListBucket a missing key is denied (S3 API reference, GetObject).
        if error.response["Error"]["Code"] not in {"NoSuchKey", "AccessDenied"}:
            raise
    if output == "json":
        return report_json(incident)
    return report_markdown(incident, links_of(incident, docs_url=""))
