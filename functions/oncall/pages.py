"""The events that an incident is to PagerDuty: what it still lacks, under which key. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oncall.headline import GAME_DAY, decided, is_game_day, is_storm, waiting
from oncall.texts import clean, first_sentence, names, plain
from oncall.words import tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from oncall.incident import Entry, Incident

MAX_SUMMARY = 1_024
MAX_DEDUP_KEY = 255


@dataclass(frozen=True, slots=True)
class Page:
    """One event for PagerDuty; ``id`` is remembered when it has been accepted."""

    id: str
    action: str
    """``change trigger acknowledge resolve``"""
    dedup_key: str = ""
    escalated: bool = False
    """Goes to the escalation's routing key, where there is one."""
    payload: Mapping[str, Any] = field(default_factory=dict)


def dedup_key(incident: Incident) -> str:
    """Return PagerDuty's key of the trouble: the alarm's ARN, else the target; 255 at most."""
    if is_storm(incident):
        return _storm_key(incident.id)
    alarm = incident.trigger.get("alarm") or {}
    return capped_key(str(alarm.get("arn") or f"runbook:{incident.target}"))


def _storm_key(storm: str) -> str:
    return f"storm:{storm}"


def capped_key(key: str) -> str:
    """Cut a key that is too long without making two keys one."""
    if len(key) <= MAX_DEDUP_KEY:
        return key
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    return f"{key[: MAX_DEDUP_KEY - 33]}#{digest}"


def lacking(incident: Incident, sent: Iterable[str], opened: Mapping[str, bool]) -> list[Page]:
    """Return the events that PagerDuty lacks, in order.

    ``sent`` are the ids of those it has taken; ``opened`` the keys that were triggered, with
    whether they went to the escalation. A trigger under a key that has been acknowledged wakes
    nobody, so a page that follows a decision bears a key of its own.
    """
    if incident.mode == "observe":
        return []
    known = set(sent)
    base = dedup_key(incident)
    over = incident.outcome == "resolved"
    wanted: list[Page] = []
    changed = next((entry for entry in incident.entries if entry.kind == "changed"), None)
    if changed is not None:
        wanted.append(Page("change", "change", payload=_change_event(incident, changed)))
    if waiting(incident):
        wanted.append(_ask_page(incident, base))
    keys = dict(opened)
    settled = False
    for entry in incident.entries:
        if entry.kind == "paged" and not over:
            key = capped_key(f"{base}#{entry.id}") if settled else base
            payload = _payload(incident, plain(entry.text), entry.severity or "critical", entry.at)
            wanted.append(Page(f"paged-{entry.id}", "trigger", key, payload=payload))
            if f"paged-{entry.id}" not in known:
                keys.setdefault(key, False)
        elif _settles(entry):
            settled = True
            wanted += [
                Page(f"ack-{entry.id}-{key}", "acknowledge", key, escalated)
                for key, escalated in keys.items()
                if not _opened_after(key, entry, incident, base)
            ]
    if over:
        text = plain(incident.summary) or "Resolved."
        ended = _payload(incident, text, "info", incident.closed_at)
        wanted += [
            Page(f"resolve-{key}", "resolve", key, escalated, ended)
            for key, escalated in _to_resolve(incident, keys).items()
        ]
    return [page for page in wanted if page.id not in known]


def _opened_after(key: str, decision: Entry, incident: Incident, base: str) -> bool:
    """Whether ``key`` was triggered by a page that came after the decision: it must ring on."""
    return any(
        entry.kind == "paged"
        and entry.seq > decision.seq
        and key == capped_key(f"{base}#{entry.id}")
        for entry in incident.entries
    )


def _to_resolve(incident: Incident, keys: Mapping[str, bool]) -> dict[str, bool]:
    """Return what this incident may resolve: a storm's page is the storm's own to resolve."""
    if is_storm(incident):
        return {**keys, _storm_key(incident.id): False}
    return {key: to for key, to in keys.items() if not key.startswith(_storm_key(""))}


def _ask_page(incident: Incident, base: str) -> Page:
    level = int(incident.ask.get("level", 1))
    # A storm pages once, however many of its incidents ask.
    key = _storm_key(incident.parent) if incident.parent else base
    if level > 1:
        key = f"{key}#level-{level}"
    text = plain(f"{first_sentence(incident.happened)} {incident.need}")
    payload = _payload(incident, text or incident.title, "warning", incident.updated_at)
    escalated = level > 1 and not is_game_day(incident)
    return Page(f"ask-{incident.ask['id']}", "trigger", capped_key(key), escalated, payload)


def _settles(entry: Entry) -> bool:
    return bool(decided(entry)) and not entry.data.get("missing")


def _change_event(incident: Incident, changed: Entry) -> dict[str, Any]:
    """Tell the first change: it stands beside the service's incidents and wakes nobody."""
    text = f"{clean(incident.target_name, 100)}, runbook {incident.runbook}: {changed.text}"
    text = f"{GAME_DAY}: {text}" if is_game_day(incident) else text
    return {
        "summary": clean(text, MAX_SUMMARY),
        "source": clean(incident.target, 300),
        "timestamp": changed.at,
        "custom_details": {"incident": incident.id, "what_happened": clean(incident.happened)},
    }


def _payload(incident: Incident, text: str, severity: str, at: str) -> dict[str, Any]:
    named = text if names(text, incident.target_name) else f"{incident.target_name}: {text}"
    if is_game_day(incident):
        # Of "info" PagerDuty makes a low urgency where a service's urgency follows severity.
        named, severity = f"{GAME_DAY}: {named}", "info"
    details: dict[str, Any] = {
        "incident": incident.id,
        "what_happened": plain(incident.happened),
        "what_i_did": plain(incident.doing),
        "what_i_need": plain(incident.need),
        "changes": [
            {
                "name": clean(change.name, 200),
                "before": clean(tell(change.before), 200),
                "after": clean(tell(change.after), 200),
                "state": change.state,
                "undo": clean(change.undo),
            }
            for change in incident.changes
        ],
    }
    if waiting(incident):
        details["answer_by"] = incident.ask["deadline"]
    return {
        "summary": clean(named, MAX_SUMMARY),
        "source": clean(incident.target, 300),
        "severity": severity,
        "timestamp": at,
        "component": clean(incident.runbook, 100),
        "class": clean(incident.diagnosis, 100),
        "custom_details": details,
    }
