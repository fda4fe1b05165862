"""How a run ends: from the error that stopped it to outcome, words and whether a human is paged.

Pure; the frame's last steps call it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncall.words import tell

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from oncall.incident import Change, Incident

GOOD = frozenset({"resolved", "observed"})
_OUTCOMES: Mapping[str, str] = {
    "Rejected": "rejected",
    "GuardRefused": "refused",
    "TargetBusy": "refused",
    "Aborted": "aborted",
    "TakenOver": "handed_over",
    "NeedsHuman": "handed_over",
    "NoAnswer": "handed_over",
    "Contained": "handed_over",
    "Ineffective": "ineffective",
    "Recurred": "ineffective",
    "RunLost": "failed",
}
_DECIDED_BY_A_PERSON = frozenset({"Rejected", "Aborted", "TakenOver"})
KEEPERS: Mapping[str, str] = {"TakenOver": "the person who took over", "Contained": "on-call"}
"""Errors whose changes stay as they are, with who has them then; all others are put back."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What stopped the run; both empty when nothing did."""

    error: str
    """The class name of the error, or one of Step Functions' own such as ``States.Timeout``."""
    because: str
    """The error's sentence."""


def read(ending: Mapping[str, str]) -> Ending:
    """Read the machine's ``$ending``; the cause of a Lambda error is JSON with ``errorMessage``."""
    cause = str(ending.get("cause", ""))
    try:
        parsed = json.loads(cause)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict) and "errorMessage" in parsed:
        cause = str(parsed["errorMessage"])
    return Ending(error=str(ending.get("error", "")), because=cause)


def outcome(ending: Ending, mode: str) -> str:
    """Return the outcome; anything that has no name of its own is ``failed``."""
    if not ending.error:
        return "observed" if mode == "observe" else "resolved"
    return _OUTCOMES.get(ending.error, "failed")


def pages(ending: Ending, incident: Incident) -> bool:
    """Return whether a human has to be woken: not for what a person decided or only observes."""
    return ending.error not in _DECIDED_BY_A_PERSON and incident.mode != "observe"


def severity(ending: Ending) -> str:
    """Return the page's severity (PagerDuty Events API v2)."""
    return "error" if outcome(ending, "") in {"refused", "handed_over"} else "critical"


def undo_commands(incident: Incident) -> str:
    """Return the commands that undo what may still stand, one a line; ``""`` when nothing does."""
    return "\n".join(
        f"{change.name} is {tell(change.after)}, was {tell(change.before)}: `{change.undo}`"
        for change in incident.changes
        if change.standing or change.state == "handed_over"
    )


def hand_over_text(ending: Ending, incident: Incident) -> str:
    """Say what stopped the run and what it leaves behind."""
    undo = undo_commands(incident)
    left = f"Still changed, with the command to undo it:\n{undo}" if undo else _left(incident)
    return f"{_why(ending)} {left}"


def need(ending: Ending, incident: Incident) -> str:
    """Say what the person has to do now."""
    if ending.error in _DECIDED_BY_A_PERSON:
        return "Nothing from me; it is yours."
    action = {
        "PutBackFailed": "Put the settings back with the commands in the thread; I try again too.",
        "Contained": "Mend the cause, then undo the change with the command in the thread.",
    }.get(ending.error, f"Take care of {incident.target_name} yourself.")
    return action if ending.error == "PutBackFailed" else f"{action} {_left(incident)}"


def summary(ending: Ending, ended: str, incident: Incident, took: timedelta) -> str:
    """Return the last line of the thread; ``took`` is the time since the incident was opened."""
    if ended == "resolved":
        relief = str(incident.progress.get("text") or f"{incident.target_name} is relieved.")
        told = (f"{relief.rstrip('.')}, in {_took(took)}.", incident.progress.get("warning", ""))
        return " ".join(one for one in (*told, _left(incident)) if one)
    if ended == "observed":
        return f"{incident.target_name}: observed, nothing was changed. {incident.doing}"
    words = ended.replace("_", " ").capitalize()
    return f"{words}: {_why(ending)} {_left(incident)}"


def _took(took: timedelta) -> str:
    minutes, seconds = divmod(round(took.total_seconds()), 60)
    return f"{minutes} min" if minutes else f"{seconds} s"


def closing_words(incident: Incident) -> str:
    """Say what the run has changed and what became of it."""
    return " ".join(told(change) for change in incident.changes) or _effect(incident)


def closing_need(ended: str, incident: Incident) -> str:
    """Say what a person has to do once it is closed, after a good end what the run has left."""
    left = str(incident.progress.get("need") or "Nothing.")
    return left if ended in GOOD else incident.need


def told(change: Change) -> str:
    """Say in a sentence what was changed and what became of it."""
    made = f"Set {change.name} {tell(change.before)} → {tell(change.after)}"
    back = f"{made} and put it back."
    if change.mends:
        made = f"Set {change.name} to {tell(change.after)} for good"
        back = f"{made}."
    return {
        "put_back": back,
        "not_made": f"Did not set {change.name} after all.",
        "left": f"{made}; somebody has changed it since, so I left it.",
        "handed_over": f"{made}; it is yours now.",
    }.get(change.state, f"{made}.")


def _why(ending: Ending) -> str:
    if ending.error == "NoAnswer":
        return "Nobody answered in time, so I did not go ahead."
    if not ending.because:
        return f"The run stopped: {ending.error}." if ending.error else ""
    sentence = ending.because.strip()
    sentence += "" if sentence.endswith((".", "!", "?")) else "."
    known = ending.error in _OUTCOMES or ending.error == "PutBackFailed"
    return sentence if known else f"A step failed ({ending.error}): {sentence}"


def _effect(incident: Incident) -> str:
    """Say what a run that has changed no setting has done."""
    return str(incident.progress.get("effect") or "") or "Nothing was changed."


def _left(incident: Incident) -> str:
    """Say what of the run's changes is still in force."""
    left = [change for change in incident.changes if change.state == "left"]
    standing = [c for c in incident.changes if c.standing or c.state == "handed_over"]
    if not incident.changes:
        return _effect(incident)
    parts = []
    if standing:
        names = ", ".join(f"{c.name} at {tell(c.after)}" for c in standing)
        parts.append(f"Still changed: {names}.")
    if left:
        parts.append(f"Left as somebody else set it: {', '.join(c.name for c in left)}.")
    return " ".join(parts) or "Everything I changed is back as it was."
