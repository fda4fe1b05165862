"""The incidents table's items: their keys, and values written as attributes and read back. Pure.

Items (``pk`` / ``sk``):

- ``INCIDENT#<id>`` / ``RECORD``: the incident; ``ENTRY#<entry id>``: its timeline, by
  ``seq``; ``CHANGE#<lever>#<resource>``: what it changed; ``ASK#<ask id>``: a question with its
  task token; ``REPORT``: what Slack and PagerDuty have been told; ``REPORTING``: who tells them.
- ``TARGET#<target>`` / ``LOCK``: who holds the target, with the fencing token;
  ``RUN#<time>#<id>``: how earlier runs on it ended (cooldown and breaker read this).
- ``SETTING#<lever>#<resource>`` / ``LEASE``: a changed setting belongs to one incident at a time.
- ``READINESS#<service>`` / ``RECORD``: what the daily run has found of it; ``TOLD``: what of that
  people know.
- ``COUNT#<name>#<window>`` / ``COUNT``: rates. ``SEEN#<digest>`` / ``SEEN``: requests used up.

The sparse index ``open-index`` (``open``, ``due``) holds what the sweeper looks after: open
incidents, held locks, leased settings and reports that are owed. The index ``started-index``
(``type``, ``started_at``) has the incidents' records alone.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from oncall.incident import Ask, Change, Entry, Incident, Run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KEEP_INCIDENTS = timedelta(days=400)
_JSON_FIELDS = frozenset({"trigger", "plan", "progress", "move_task", "ask", "stop"})
_RECORD_FIELDS = tuple(
    name for name in Incident.__dataclass_fields__ if name not in {"entries", "changes"}
)


# Keys


def incident_key(incident: str) -> str:
    """Return the partition key of all that belongs to an incident."""
    return f"INCIDENT#{incident}"


def target_key(target: str) -> str:
    """Return the partition key of a target: its lock and how earlier runs on it ended."""
    return f"TARGET#{target}"


def lock_key(holder: Run | Incident) -> str:
    """Return the lock's partition key; a run that only observes holds a lock of its own."""
    incident = holder.incident if isinstance(holder, Run) else holder.id
    suffix = f"#observe#{incident}" if holder.mode == "observe" else ""
    return target_key(holder.target) + suffix


def setting_key(lever: str, resource: str) -> str:
    """Return the partition key of a setting's lease."""
    return f"SETTING#{lever}#{resource}"


def readiness_key(service: str) -> str:
    """Return the partition key of what is found of a service's readiness."""
    return f"READINESS#{service}"


# To items


def record_attributes(incident: Incident) -> dict[str, Any]:
    """Write an incident without its entries and changes, which are items of their own."""
    return attributes({name: getattr(incident, name) for name in _RECORD_FIELDS})


def attributes(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Write fields of an incident."""
    return {
        name: json.dumps(value, separators=(",", ":")) if name in _JSON_FIELDS else value
        for name, value in fields.items()
    }


def entry_attributes(entry: Entry) -> dict[str, Any]:
    """Write an entry."""
    return {
        "id": entry.id,
        "kind": entry.kind,
        "text": entry.text,
        "at": entry.at,
        "seq": entry.seq,
        "data": json.dumps(dict(entry.data), separators=(",", ":")),
        "severity": entry.severity,
    }


def change_attributes(change: Change) -> dict[str, Any]:
    """Write a change, for its own item and for the lease of its setting."""
    values: dict[str, Any] = {name: getattr(change, name) for name in Change.__dataclass_fields__}
    values["before"] = json.dumps(change.before)
    values["after"] = json.dumps(change.after)
    return values


def ask_attributes(ask: Ask) -> dict[str, Any]:
    """Write a question, with its token."""
    return {
        "id": ask.id,
        "plan_hash": ask.plan_hash,
        "token": ask.token,
        "deadline": ask.deadline,
        "people": ask.people,
        "level": ask.level,
        "state": ask.state,
        "approvals": approvals(ask),
        "delivered": ask.delivered,
    }


def approvals(ask: Ask) -> str:
    """Write who has approved."""
    return json.dumps(list(ask.approvals))


def shown(ask: Ask) -> dict[str, Any]:
    """Return what the record shows of a question: never the token."""
    return {
        "id": ask.id,
        "deadline": ask.deadline,
        "people": ask.people,
        "level": ask.level,
        "state": ask.state,
        "approvals": list(ask.approvals),
    }


# From items


def incident_from_item(
    item: Mapping[str, Any],
    entries: Iterable[Mapping[str, Any]] = (),
    changes: Iterable[Mapping[str, Any]] = (),
) -> Incident:
    """Read the incident's items back into values."""
    values: dict[str, Any] = {}
    for name in _RECORD_FIELDS:
        if name not in item:
            continue
        value = item[name]
        if name in _JSON_FIELDS:
            value = json.loads(value)
        elif name in {"seq", "fence"}:
            value = int(value)
        values[name] = value
    return Incident(
        **values,
        entries=tuple(sorted((_entry_from_item(e) for e in entries), key=lambda e: e.seq)),
        changes=tuple(
            sorted((change_from_item(c) for c in changes), key=lambda c: (c.recorded_at, c.lever))
        ),
    )


def _entry_from_item(item: Mapping[str, Any]) -> Entry:
    return Entry(
        id=item["id"],
        kind=item["kind"],
        text=item["text"],
        at=item["at"],
        seq=int(item["seq"]),
        data=json.loads(item["data"]),
        severity=item.get("severity", ""),
    )


def change_from_item(item: Mapping[str, Any]) -> Change:
    """Read a ``CHANGE#`` item or a lease back."""
    names = Change.__dataclass_fields__
    values = {name: item[name] for name in names if name in item}
    values["before"] = json.loads(item["before"])
    values["after"] = json.loads(item["after"])
    return Change(**values)


def ask_from_item(item: Mapping[str, Any]) -> Ask:
    """Read an ``ASK#`` item back."""
    return Ask(
        id=item["id"],
        plan_hash=item["plan_hash"],
        token=item["token"],
        deadline=item["deadline"],
        people=int(item["people"]),
        level=int(item["level"]),
        state=item["state"],
        approvals=tuple(json.loads(item["approvals"])),
        delivered=bool(item["delivered"]),
    )
