"""What approve, reject, abort and takeover do: send a decision, and say who decided what."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from cli import explain, show
from cli.faults import fault_of
from cli.outcomes import FAILED
from oncall import errors
from oncall.headline import waiting
from oncall.words import tell

if TYPE_CHECKING:
    from cli.connection import Deployed
    from oncall.incident import Incident

_STOPS = frozenset({"abort", "take_over"})


def decide(
    deployed: Deployed,
    kind: str,
    incident_id: str,
    *,
    by: str | None,
    reason: str,
    ask: str | None = None,
) -> dict[str, Any]:
    """Send a decision to the function that takes them; return what came of it.

    ``{"incident", "decision", "by", "recorded", "text", "about"}``, where ``about`` lists what was
    approved, is put back or stays. An answer is given to the question that was read, so that what
    is told is what is approved. Raises what the function has raised.
    """
    before = None if kind in _STOPS or ask else deployed.store.load(incident_id)
    decision = {
        "incident": incident_id,
        "decision": kind,
        "by": by or deployed.caller(),
        "ask": ask or (str(before.ask.get("id", "")) if before and waiting(before) else ""),
        "reason": reason,
    }
    given = {name: value for name, value in decision.items() if value}
    answer = _invoke(deployed, given)
    about = _about(deployed, kind, incident_id, before) if answer["recorded"] else []
    return {**given, "recorded": answer["recorded"], "text": answer["text"], "about": about}


def told(decided: dict[str, Any], output: str) -> int:
    """Print what came of a decision; return 0 when it was recorded, else 1."""
    if output == "json":
        show.document(decided)
    elif output == "text":
        show.lines(
            [(decided["incident"], decided["decision"], decided["recorded"], decided["text"])]
        )
        show.lines((decided["incident"], "about", one) for one in decided["about"])
    else:
        show.paragraph(decided["text"], [f"  • {one}" for one in decided["about"]])
    if decided["recorded"]:
        show.say(f"You decided as {decided['by']}. Follow it: runbook watch {decided['incident']}")
        return 0
    show.say(f"Nothing was decided. Where it stands: runbook explain {decided['incident']}")
    return FAILED


def _invoke(deployed: Deployed, decision: dict[str, str]) -> dict[str, Any]:
    answer = deployed.client("lambda").invoke(
        FunctionName=deployed.outputs["DecisionFunction"], Payload=json.dumps(decision).encode()
    )
    said: dict[str, Any] = json.loads(answer["Payload"].read())
    if not answer.get("FunctionError"):
        return said
    name, message = str(said.get("errorType", "")), str(said.get("errorMessage", said))
    raised = getattr(errors, name, None)
    if isinstance(raised, type) and issubclass(raised, errors.OnCallError):
        raise raised(message)
    raise errors.OnCallError(
        f"The function that takes decisions has failed ({name}: {message}), so nothing is certain "
        f"to be recorded. Look at it: runbook explain {decision['incident']}"
    )


def _about(deployed: Deployed, kind: str, incident_id: str, before: Incident | None) -> list[str]:
    """List what a decision is about, from the record as it stands."""
    try:
        incident = before or deployed.store.load(incident_id)
    except ClientError as error:
        # Whoever may stop a run need not be allowed to read its record.
        fault = fault_of(error)
        show.say(f"What it is about I cannot read: {fault.sentence if fault else error}")
        return []
    if kind not in _STOPS:
        return explain.planned(incident)
    standing = [change for change in incident.changes if change.standing]
    if kind == "abort":
        lines = [f"{c.name} goes back: {tell(c.after)} → {tell(c.before)}." for c in standing]
    else:
        lines = [
            f"{c.name} stays at {tell(c.after)}, was {tell(c.before)}. Undo: {c.undo}"
            for c in standing
        ]
    lines += [f"{one['step']} Undo: {one['undo']}" for one in explain.steps(incident)]
    return [show.safe(line) for line in lines] or ["Nothing is changed now."]
