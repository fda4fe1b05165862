"""What the commands on incidents do: list, start, decide, report."""

from __future__ import annotations

import json
import re
import secrets
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from cli import show
from oncall import contract as contracts
from oncall.errors import BadInput
from oncall.headline import emoji, waiting
from oncall.links import links_of
from oncall.reports import report_json, report_key, report_markdown
from oncall.scorecard import SCORECARD
from oncall.texts import clock_utc
from oncall.times import parse, utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cli.connection import Deployed
    from oncall.contract import Contract
    from oncall.incident import Incident

_SLUG_LENGTH = 40
_NOTHING = "Nothing"
"""How `Incident.need` begins where nobody has to do anything."""


def id_of(text: str) -> str:
    """Return an incident's id for itself or its execution's ARN, which the console shows."""
    return text.rsplit(":", 1)[-1] if text.startswith("arn:") else text


def duration(seconds: float) -> str:
    """Return for example ``8 s``, ``3 min 5 s``, ``1 h 2 min`` or ``3 d 4 h``."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min {rest} s"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min"


# The list


def needed(incident: Incident) -> str:
    """Return what a human has to do about an incident; ``""`` for nothing."""
    if waiting(incident):
        return f"Approve or reject by {clock_utc(str(incident.ask['deadline']))}."
    return "" if incident.need.startswith(_NOTHING) else incident.need


def needs_you_now(incident: Incident) -> bool:
    """Whether an incident is open and stands still until a human does something."""
    stands = waiting(incident) or incident.phase == "handed_over"
    return incident.status == "open" and stands


def row(incident: Incident, now: datetime | None = None) -> dict[str, Any]:
    """Return what the list shows of an incident; ``took`` and ``age`` in seconds."""
    now = now or utc_now()
    started = parse(incident.started_at)
    closed = incident.status != "open"
    end = parse(incident.closed_at) if incident.closed_at else now
    return {
        "incident": incident.id,
        "runbook": incident.runbook,
        "target": incident.target_name,
        "mode": incident.mode,
        "state": incident.outcome if closed else incident.phase,
        "open": not closed,
        "started": incident.started_at,
        "took": round((end - started).total_seconds(), 1),
        "age": round((now - started).total_seconds(), 1),
        "needs_you_now": needs_you_now(incident),
        "need": needed(incident),
    }


def listed(
    deployed: Deployed, *, limit: int, runbook: str = "", only_open: bool = False
) -> list[Incident]:
    """Return incidents, those that need a human now first, then the latest first.

    What is open is listed however old it is; a week's scorecard is none.
    """
    mine = [one for one in deployed.open_incidents() if not runbook or one.runbook == runbook]
    latest = [] if only_open else deployed.store.latest(limit, runbook)
    # A scorecard is a record, but nothing has happened.
    found = {one.id: one for one in [*latest, *mine] if one.runbook != SCORECARD}
    newest = sorted(found.values(), key=lambda one: one.started_at, reverse=True)
    # What needs you stays, whatever the limit is.
    return sorted(newest, key=lambda one: not needs_you_now(one))[: max(limit, len(mine))]


def show_list(incidents: Sequence[Incident], output: str) -> None:
    """Print incidents as a table, a JSON list or lines."""
    now = utc_now()
    rows = [row(incident, now) for incident in incidents]
    if output == "json":
        show.document(rows)
        return
    if output == "text":
        show.lines(list(one.values()) for one in rows)
        return
    if not rows:
        show.say("There are no incidents.")
        return
    show.table(
        ("", "incident", "runbook", "target", "state", "age", "took", "needs you"),
        [
            (
                emoji(incident),
                show.safe(incident.id),
                incident.runbook,
                show.safe(incident.target_name),
                str(one["state"]).replace("_", " "),
                duration(one["age"]),
                duration(one["took"]) + (" so far" if one["open"] else ""),
                show.safe(one["need"]),
            )
            for incident, one in zip(incidents, rows, strict=True)
        ],
    )
    waits = [one["incident"] for one in rows if one["needs_you_now"]]
    if waits:
        many = "1 needs you now" if len(waits) == 1 else f"{len(waits)} need you now"
        show.say(f"{many}: runbook explain {waits[0]}")


def runbooks(deployed: Deployed) -> list[dict[str, Any]]:
    """Return which runbooks there are, what they are started with and whether they are deployed."""
    rows = []
    for contract in map(contracts.load, contracts.names()):
        machine = deployed.machine_if_any(contract.id)
        rows.append(
            {
                "runbook": contract.id,
                "deployed": machine is not None,
                "mode": contract.modes["hand"],
                "input": contract.target_input,
                "run": command_of(contract),
                "title": contract.title,
            }
        )
    return rows


# A run


def command_of(contract: Contract, given: Mapping[str, Any] | None = None) -> str:
    """Return the command that runs a runbook, with its smallest input unless one is given."""
    words = given or json.loads(contract.example())
    pairs = [f"{key}={_word(value)}" for key, value in words.items()]
    return " ".join(["runbook run", contract.id, *pairs])


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def read_input(runbook: str, words: Sequence[str], mode: str | None, reason: str) -> dict[str, Any]:
    """Return a run's input from ``key=value`` words or one JSON object, checked by the contract.

    Raises ``BadInput``, which names the field and shows a command that works.
    """
    contract = contracts.load(runbook)
    example = command_of(contract)
    as_json = bool(words) and words[0].startswith("{")
    raw = _document(words, example) if as_json else _pairs(contract, words, example)
    key = contract.target_input
    if key not in raw:
        given = f"; you gave {', '.join(sorted(raw))}" if raw else ""
        what = str(contract.inputs[key]["description"]).rstrip(".")
        what = what[0].lower() + what[1:]
        raise BadInput(f"{key}: it is missing ({what}){given}. Give for example {example}.")
    if mode:
        raw["mode"] = mode
    if reason:
        raw["reason"] = reason
    try:
        contracts.parse_input(contract, raw)
    except BadInput as error:
        raise BadInput(str(error).replace(contract.example(), example)) from error
    return raw


def _document(words: Sequence[str], example: str) -> dict[str, Any]:
    """Read the input as the console takes it."""
    try:
        raw = json.loads(" ".join(words))
    except json.JSONDecodeError as error:
        raise BadInput(
            f"input: it is no JSON ({error.msg}). Give for example {example}."
        ) from error
    return dict(raw)


def _pairs(contract: Contract, words: Sequence[str], example: str) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise BadInput(f"input: {word!r} is not key=value. Give for example {example}.")
        if key in raw:
            raise BadInput(f"{key}: it is given twice. Give for example {example}.")
        kind = contract.inputs.get(key, {}).get("type", "string")
        try:
            raw[key] = value if kind == "string" else json.loads(value)
        except ValueError as error:
            raise BadInput(f"{key}: {value!r} is no {kind}. Give for example {example}.") from error
    return raw


def name_of_run(target: str, now: datetime) -> str:
    """Name a run that a person starts: ``orders-20261123T030211Z-1f0c9a3b``, like an alarm's."""
    last = re.split(r"[:/]", target)[-1]
    slug = re.sub(r"[^0-9A-Za-z_]+", "-", last)[:_SLUG_LENGTH].strip("-") or "run"
    return f"{slug}-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def start(deployed: Deployed, runbook: str, given: Mapping[str, Any]) -> str:
    """Start a runbook and return its execution's ARN."""
    machine = deployed.machine(runbook)
    target = str(given[contracts.load(runbook).target_input])
    started = deployed.client("stepfunctions").start_execution(
        stateMachineArn=machine,
        name=name_of_run(target, utc_now()),
        input=json.dumps({**given, "by": deployed.caller()}),
    )
    return str(started["executionArn"])


# The report


def report(deployed: Deployed, incident_id: str, output: str) -> str:
    """Return an incident's report: Markdown, or the whole record as JSON.

    As it was written at the end; from the record as long as there is none. Raises ``NotFound``.
    """
    incident = deployed.store.load(incident_id)
    name = "record.json" if output == "json" else "report.md"
    try:
        stored = deployed.client("s3").get_object(
            Bucket=deployed.outputs["ReportBucket"], Key=report_key(incident, name)
        )
        return str(stored["Body"].read().decode())
    except ClientError as error:
        # Without s3:ListBucket a missing key is denied (S3 API reference, GetObject).
        if error.response["Error"]["Code"] not in {"NoSuchKey", "AccessDenied"}:
            raise
    if output == "json":
        return report_json(incident)
    return report_markdown(incident, links_of(incident, docs_url=""))
