"""What `runbook explain` says: of a runbook from its contract, of an incident from its record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.incidents import command_of, duration, needed
from cli.options import DEFAULTS
from cli.show import safe
from oncall import contract as contracts
from oncall.errors import NotFound
from oncall.headline import headline, waiting
from oncall.links import links_of
from oncall.times import parse, utc_now
from oncall.words import tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cli.connection import Deployed
    from oncall.contract import Contract
    from oncall.incident import Incident

RUNBOOK: Mapping[str, str] = {
    "summary": "In one line",
    "means": "What it means",
    "hurt": "Who is hurt",
    "will_do": "What it will do",
    "never": "What it never does",
    "inputs": "What it needs",
    "modes": "What it does by itself",
    "states": "Each state",
    "limits": "Limits",
    "verification": "How it sees that it helped",
    "stops_and_calls_you": "When it stops and calls you",
    "stop_it": "How to stop it",
    "escalate": "Who is next",
    "commands": "Run it",
}
"""Sections of a runbook's explanation, in their order."""
INCIDENT: Mapping[str, str] = {
    "headline": "Now",
    "about": "About",
    "happened": "What happened",
    "why": "Why this plan",
    "evidence": "Evidence",
    "plan": "The plan",
    "doing": "What it did",
    "need": "What it needs",
    "decisions": "Who decided what",
    "changes": "What was changed",
    "steps": "What was done",
    "commands": "What you can do",
    "links": "Look",
}
_ANSWERS = frozenset({"approve", "reject"})


def overview() -> list[dict[str, Any]]:
    """Return what there is to explain: each runbook, with the command that runs it."""
    loaded = [contracts.load(name) for name in contracts.names()]
    return [{"runbook": one.id, "title": one.title, "run": command_of(one)} for one in loaded]


def find(deployed: Deployed, name: str, inputs: Sequence[str]) -> Incident:
    """Return the incident of that name. Raises ``NotFound``, which says what there is instead."""
    if inputs:
        contracts.load(name)
    try:
        return deployed.store.load(name)
    except NotFound as error:
        known = ", ".join(contracts.names())
        raise NotFound(f"{error} Of the runbooks there are {known}.") from error


def runbook(name: str, stack: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return all that a runbook's contract says, for the stack's names and an input if given.

    Raises ``BadInput`` for a runbook that there is not.
    """
    contract = contracts.load(name)
    document = contract.text["document"]
    about = {
        "runbook": name,
        "title": contract.title,
        "summary": contract.text["summary"],
        "owner": contract.text["owner"],
        **{key: document[key] for key in ("means", "hurt", "will_do", "never")},
        "inputs": _inputs(contract),
        "modes": _modes(contract),
        "states": [_state(one) for one in contract.text["steps"]],
        "limits": dict(contract.limits),
        "verification": _verification(contract),
        **{key: document[key] for key in ("stops_and_calls_you", "stop_it", "escalate")},
        "commands": _commands(contract, given, stack),
    }
    filled: dict[str, Any] = _filled(about, stack)
    return filled


def _inputs(contract: Contract) -> list[dict[str, Any]]:
    return [
        {
            "input": key,
            "needed": key == contract.target_input,
            "what": about["description"],
            "example": f"{key}={about['examples'][0]}",
            "one_of": about.get("enum", ""),
        }
        for key, about in contract.inputs.items()
    ]


def _modes(contract: Contract) -> dict[str, Any]:
    trigger = contract.trigger
    return {
        "by_alarm": contract.modes["alarm"],
        "by_hand": contract.modes["hand"],
        "always_asks": contract.modes["always_ask"],
        "two_people": list(contract.two_people),
        "alarms_on": [f"{trigger['namespace']} {metric}" for metric in trigger["metrics"]],
    }


def _state(one: Mapping[str, Any]) -> dict[str, Any]:
    undo = one.get("undo") or one.get("no_undo_because", "")
    return {
        "state": one["state"],
        "does": one["does"],
        "changes": one["changes"],
        "by_hand": one["by_hand"],
        "undo": undo,
    }


def _verification(contract: Contract) -> dict[str, Any]:
    about = contract.text["verification"]
    return {"metrics": about["metrics"], "better": about["better"], **contract.verification}


def _commands(
    contract: Contract, given: Mapping[str, Any] | None, stack: str
) -> list[dict[str, str]]:
    run = command_of(contract, given)
    where = "" if stack == DEFAULTS["stack"] else f" --stack {stack}"
    return [
        {"to": "See what it would do now; changes nothing", "type": f"{run} --mode observe{where}"},
        {"to": "Let it ask before it changes anything", "type": f"{run} --mode ask{where}"},
        {"to": f"Run it in its own mode, {contract.modes['hand']}", "type": f"{run}{where}"},
    ]


def _filled(value: Any, stack: str) -> Any:
    """Put the stack's name in where a contract's commands have STACK."""
    if isinstance(value, str):
        return value.replace("/STACK/", f"/{stack}/").replace("STACK-", f"{stack}-")
    if isinstance(value, dict):
        return {key: _filled(one, stack) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, stack) for one in value]
    return value


def incident(one: Incident) -> dict[str, Any]:
    """Return what happened, why, what was changed and what can be done now."""
    closed = one.status != "open"
    return {
        "incident": one.id,
        "runbook": one.runbook,
        "target": one.target,
        "state": one.outcome if closed else one.phase,
        "open": not closed,
        "headline": headline(one),
        "about": _about(one),
        "happened": one.happened,
        "why": one.diagnosis,
        "evidence": list(one.plan.get("evidence", ())),
        "plan": _plan(one),
        "doing": one.summary or one.doing,
        "need": needed(one) or "Nothing.",
        "waits_for": _question(one),
        "decisions": [
            f"{parse(entry.at):%H:%M:%S} UTC {entry.text}"
            for entry in one.entries
            if entry.kind == "decided"
        ],
        "changes": [
            {
                "change": change.name,
                "state": change.state,
                "before": tell(change.before),
                "after": tell(change.after),
                "why": change.why,
                "note": change.note,
                "undo": change.undo,
            }
            for change in one.changes
        ],
        "steps": steps(one),
        "commands": _next(one),
        "links": dict(links_of(one, docs_url="").named()),
    }


def _about(one: Incident) -> dict[str, Any]:
    end = parse(one.closed_at) if one.closed_at else utc_now()
    took = duration((end - parse(one.started_at)).total_seconds())
    alarm = one.trigger.get("alarm") or {}
    return {
        "runbook": one.runbook,
        "target": one.target,
        "mode": one.mode,
        "started": one.started_at,
        "started_by": alarm.get("name") or one.trigger.get("by") or one.trigger.get("kind", ""),
        "took": took if one.closed_at else f"{took} so far",
    }


def _plan(one: Incident) -> list[str]:
    """List the plan: what it says, what it changes, what it is bound by, how long it takes."""
    if not one.plan:
        return []
    told = [str(one.plan.get("sentence", "")), *planned(one)]
    told += [f"Bound by {bound}" for bound in one.plan.get("bounds", ())]
    seconds = one.plan.get("predicted_seconds")
    if seconds:
        told.append(f"It should take {duration(float(seconds))}.")
    return list(dict.fromkeys(line for line in told if line))


def planned(incident: Incident) -> list[str]:
    """List what a plan does: its changes and steps, or its sentence where it has neither."""
    changes = [
        f"{one['name']}: {tell(one['before'])} → {tell(one['after'])}, {one['why']}"
        for one in incident.plan.get("changes", ())
    ]
    steps = [str(one["sentence"]) for one in incident.plan.get("order", {}).get("steps", ())]
    lines = [*changes, *steps] or [str(incident.plan.get("sentence", ""))]
    return [safe(line) for line in lines if line]


def _question(one: Incident) -> dict[str, Any]:
    """Return the question that waits, so that it can be answered and no other."""
    shown = ("id", "deadline", "people", "approvals") if waiting(one) else ()
    return {key: one.ask[key] for key in shown}


def steps(one: Incident) -> list[dict[str, Any]]:
    """List what was done besides leased changes, such as a failover's steps, with its undo."""
    leased = {change.undo for change in one.changes}
    return [
        {
            "step": entry.text,
            "at": entry.at,
            "by_hand": str(entry.data.get("by_hand", "")),
            "undo": str(entry.data["undo"]),
        }
        for entry in one.entries
        if entry.kind == "changed" and entry.data.get("undo") and entry.data["undo"] not in leased
    ]


def _next(one: Incident) -> list[dict[str, str]]:
    """List the commands that fit the incident as it is."""
    answer = f" --ask {one.ask['id']}" if waiting(one) else ""
    if one.status != "open":
        fitting = {"Read its report": "report"}
    else:
        fitting = {"Say yes to this plan": "approve", "Say no": "reject"} if answer else {}
        fitting |= {
            "Stop it and put back what it changed": "abort",
            "Stop it and leave everything as it is": "takeover",
            "Follow it": "watch",
        }
    told = [
        {"to": to, "type": f"runbook {verb} {one.id}" + (answer if verb in _ANSWERS else "")}
        for to, verb in fitting.items()
    ]
    if one.runbook not in contracts.names():
        return told  # a storm gathers incidents; it has no runbook of its own
    contract = contracts.load(one.runbook)
    if one.status != "open":
        run = command_of(contract, {contract.target_input: one.target_name})
        told.append({"to": "Run it" if one.outcome == "observed" else "Run it again", "type": run})
    return [*told, {"to": "Read what the runbook does", "type": f"runbook explain {one.runbook}"}]
