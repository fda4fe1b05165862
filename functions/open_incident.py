"""Open an incident: check the input and the guards, take the target's lock, write the record.

Called as the first state of every runbook with ``{"runbook", "input", "execution", "name"}``;
returns the ``run`` that every later step is given.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import guards, targets
from oncall.errors import GuardRefused, TargetBusy
from oncall.incident import Entry, Incident, Run
from oncall.step import logged, services

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.contract import Contract, Request
    from oncall.services import Services
    from oncall.targets import Target

LEASE_MARGIN = timedelta(minutes=5)
"""Locks and leases outlast the machine by this, so that only a dead run loses them."""


def handler(event: Mapping[str, Any], _context: object) -> Mapping[str, Any]:
    """Open the incident named like the execution."""
    with logged(incident=event["name"], runbook=event["runbook"], state="Open incident"):
        return {"run": asdict(open_incident(event, services()))}


def open_incident(event: Mapping[str, Any], aws: Services) -> Run:
    """Open, or raise ``BadInput`` or ``GuardRefused``; a refusal is recorded and told."""
    contract = contracts.load(event["runbook"])
    request = contracts.parse_input(contract, event["input"])
    target = targets.resolve(aws, contract.target_input, request.target)
    incident = _new_incident(event, contract, request, target)
    refusal = _refusal(aws, contract, request, target)
    if refusal:
        return _refuse(aws, incident, request, GuardRefused(refusal))
    entry = Entry(id="opened", kind="opened", text=_opened_text(incident, request))
    lease = timedelta(seconds=contract.limits["run_seconds"]) + LEASE_MARGIN
    try:
        opened = aws.store.open(incident, entry, lease)
    except TargetBusy as busy:
        joined = Entry(
            id=f"joined-{incident.id}",
            kind="joined",
            text=f"{_cause(request)} as well; its run {incident.id} joins this one.",
        )
        aws.store.note_from_outside(busy.holder, joined)
        return _refuse(aws, incident, request, busy)
    return Run(
        incident=opened.id,
        runbook=opened.runbook,
        target=opened.target,
        mode=opened.mode,
        fence=opened.fence,
    )


def _new_incident(
    event: Mapping[str, Any], contract: Contract, request: Request, target: Target
) -> Incident:
    return Incident(
        id=event["name"],
        runbook=contract.id,
        title=contract.title,
        target=target.arn,
        target_name=target.name,
        mode=request.mode,
        trigger={
            **request.trigger,
            **({"options": dict(request.options)} if request.options else {}),
            **({"game_day": True} if target.game_day else {}),
        },
        execution=event["execution"],
        fence=0,
        happened=f"{_cause(request)}.",
        doing="Looking at the metrics.",
        need="Nothing yet.",
        parent=request.parent,
    )


def _refusal(aws: Services, contract: Contract, request: Request, target: Target) -> str:
    """Return why this run may not act, ``""`` when it may; observing is always allowed."""
    if request.mode == "observe":
        return ""
    facts = guards.read_facts(aws, contract.id, target.name, target.tags)
    refusal = guards.refusal_to_change(facts)
    if refusal or request.trigger["kind"] != "alarm":
        return refusal
    now = aws.clock()
    limits = guards.limits_of(contract, aws)
    window = timedelta(hours=limits.breaker_hours, minutes=limits.cooldown_minutes)
    facts = replace(
        facts,
        past_runs=aws.store.past_runs(target.arn, now - window),
        runs_this_hour=aws.store.count("runs", timedelta(hours=1)),
    )
    return guards.refusal_to_open(facts, limits, now)


def _refuse(aws: Services, incident: Incident, request: Request, refusal: GuardRefused) -> Run:
    """Record the refusal; page when an alarm would otherwise be left to nobody."""
    busy = isinstance(refusal, TargetBusy)
    left_to_nobody = request.trigger["kind"] == "alarm" and not busy
    entry = Entry(id="refused", kind="refused", text=str(refusal))
    if left_to_nobody:
        text = f"{incident.happened} I may not act: {refusal}"
        entry = Entry(id="refused", kind="paged", text=text, severity="error")
    aws.store.open_closed(
        replace(
            incident,
            outcome="refused",
            summary=f"{incident.target_name} needs you: I may not act. {refusal}"
            if left_to_nobody
            else f"Refused: {refusal}",
            doing=f"Nothing: {refusal}",
            need=f"Look at {incident.target_name} yourself; nothing was changed."
            if left_to_nobody
            else "Nothing; see above.",
        ),
        entry,
    )
    raise refusal


def _cause(request: Request) -> str:
    alarm = request.trigger["alarm"]
    reason = request.trigger["reason"]
    if request.trigger["kind"] == "alarm":
        return f"Alarm {alarm['name']} fired" + (f": {reason}" if reason else "")
    who = request.trigger["by"] or "Somebody"
    return f"{who} started this by hand" + (f": {reason}" if reason else "")


def _opened_text(incident: Incident, request: Request) -> str:
    note = f" ({request.mode_note})" if request.mode_note else ""
    return (
        f"{incident.happened.rstrip('.')}. Runbook {incident.runbook} on {incident.target_name}, "
        f"mode {incident.mode}{note}."
    )
