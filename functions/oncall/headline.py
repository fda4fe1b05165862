"""What an incident comes to: the states that every channel asks for, and its one line. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncall.texts import clean, clock_utc, first_sentence, names, plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from oncall.incident import Entry, Incident

MAX_HEADER = 150
GAME_DAY = "GAME DAY"
"""What every header and page begins with that nobody has to get up for."""
_OUTCOME_EMOJI = {
    "resolved": "🟢",
    "ineffective": "🔴",
    "failed": "🔴",
    "handed_over": "🔴",
    "refused": "🟠",
}
_DECIDED = {
    "approve": "Approved",
    "reject": "Rejected",
    "abort": "Aborted",
    "take_over": "Taken over",
}


def waiting(incident: Incident) -> bool:
    """Whether a question waits for an answer."""
    return (
        incident.status == "open"
        and incident.phase == "waiting"
        and incident.ask.get("state") == "waiting"
    )


def about_to_act(incident: Incident) -> bool:
    """Whether the plan has its yes and nothing has been changed yet."""
    return (
        incident.status == "open"
        and incident.ask.get("state") == "approved"
        and incident.phase == "waiting"
        and not incident.stop
    )


def needs_human(incident: Incident) -> bool:
    """Whether somebody has to do something now."""
    paged = any(entry.kind == "paged" for entry in incident.entries)
    return waiting(incident) or (paged and incident.outcome != "resolved")


def told_elsewhere(incident: Incident) -> bool:
    """Whether an alarm met a busy target: the thread of the run that it joins tells it."""
    paged = any(entry.kind == "paged" for entry in incident.entries)
    by_alarm = incident.trigger.get("kind") == "alarm"
    return incident.outcome == "refused" and by_alarm and not paged


def behind(incident: Incident, told: Mapping[str, Any]) -> bool:
    """Whether Slack does not know yet what stands in the incident's record.

    ``told`` is the report's state (``IncidentStore.report_state``); of a storm's children Slack
    shows no timeline.
    """
    if told_elsewhere(incident):
        return False
    last = max((entry.seq for entry in incident.entries), default=0)
    lacks = told.get("slack", {}).get("seq", 0) < last and not incident.parent
    return bool(told.get("owed", True)) or lacks


def decided(entry: Entry) -> str:
    """Return what somebody decided, ``Approved`` or so; ``""`` for any other entry."""
    return _DECIDED.get(str(entry.data.get("decision")), "") if entry.kind == "decided" else ""


def is_storm(incident: Incident) -> bool:
    """Whether an incident only gathers others; no machine runs it."""
    return incident.trigger.get("kind") == "storm"


def is_game_day(incident: Incident) -> bool:
    """Whether a test record is practised on: whatever comes of it, nobody is woken."""
    return bool(incident.trigger.get("game_day"))


def is_child(entry: Entry) -> bool:
    """Whether an entry tells of an incident that the storm gathers."""
    return entry.kind == "joined" and bool(entry.data.get("incident"))


def gathered_by(incident: Incident) -> int:
    """Count the incidents that a storm's incident gathers: ``joined`` with ``data.incident``."""
    return len({e.data["incident"] for e in incident.entries if is_child(e)})


def emoji(incident: Incident) -> str:
    """Return the circle that says whether you are needed: 🟠 🔴 you are, 🔵 not, 🟢 ⚪ over."""
    if incident.status != "open":
        return _OUTCOME_EMOJI.get(incident.outcome, "⚪")
    if waiting(incident):
        return "🟠"
    return "🔴" if is_storm(incident) or incident.phase == "handed_over" else "🔵"


def headline(incident: Incident) -> str:
    """Return the line that stands alone on a lock screen, unescaped."""
    happened = first_sentence(incident.happened)
    doing = first_sentence(incident.doing)
    need = first_sentence(incident.need)
    gathered = gathered_by(incident)
    if incident.status != "open":
        said = first_sentence(incident.summary) or incident.outcome.replace("_", " ")
    elif waiting(incident):
        said = f"Your decision by {clock_utc(incident.ask['deadline'])}, please. {happened}"
    elif about_to_act(incident):
        said = f"Approved, I go ahead. {happened}"
    elif incident.stop:
        stopped = "Taken over" if incident.stop["kind"] == "take_over" else "Aborted"
        said = f"{stopped}. {happened}"
    elif incident.phase == "handed_over":
        said = f"{happened} {need or 'It is yours now.'}"
    else:
        said = f"{happened} {doing}"
    if gathered:
        said = f"{gathered} incidents at once. {said}"
    said = plain(said) or incident.title
    name = clean(incident.target_name, 60)
    named = said if names(said, name) else f"{name}: {said}"
    only = "observing, " if incident.mode == "observe" and incident.status == "open" else ""
    game = f"{GAME_DAY}, " if is_game_day(incident) else ""
    line = f"{emoji(incident)} {game}{only}{named}"
    return line if len(line) <= MAX_HEADER else line[: MAX_HEADER - 1].rstrip() + "…"
