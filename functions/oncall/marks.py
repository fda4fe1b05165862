"""What of an incident is marked in a plot: alarm, question, changes, proof, put back, end. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncall.endings import GOOD
from oncall.headline import decided
from oncall.plot_svg import Mark
from oncall.times import parse
from oncall.words import tell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oncall.incident import Entry, Incident


def marks(incident: Incident) -> list[Mark]:
    """Return an incident's marks in order of time."""
    found = [*_alarm(incident), *_changes(incident)]
    if look := proof(incident):
        found.append(Mark(parse(look.at), "verified", "proof"))
    found += [mark for entry in incident.entries for mark in _entry(entry, incident)]
    return sorted(found, key=lambda mark: mark.at)


def _alarm(incident: Incident) -> Iterator[Mark]:
    if changed := str(incident.trigger.get("alarm", {}).get("changed_at", "")):
        yield Mark(parse(changed), "alarm", "alarm")


def _changes(incident: Incident) -> Iterator[Mark]:
    for change in incident.changes:
        if change.state in {"intended", "not_made"} or not change.recorded_at:
            continue
        label = f"{tell(change.before)} → {tell(change.after)}"
        yield Mark(parse(change.recorded_at), label, "change")
        if change.state == "put_back" and change.ended_at:
            yield Mark(parse(change.ended_at), "put back", "undo")


def proof(incident: Incident) -> Entry | None:
    """Return the look after which settings go back; of a run that changes none, its last."""
    kinds = [entry.kind for entry in incident.entries]
    before = len(kinds) if incident.outcome == "resolved" else 0
    before = kinds.index("put_back") if "put_back" in kinds else before
    looks = [
        entry
        for entry in incident.entries[:before]
        if entry.kind == "verified" and entry.id.startswith("relief")
    ]
    return looks[-1] if looks else None


def _entry(entry: Entry, incident: Incident) -> Iterator[Mark]:
    at = parse(entry.at)
    match entry.kind:
        case "asked":
            yield Mark(at, "asked")
        case "decided":
            yield Mark(at, (decided(entry) or "decided").lower(), "change")
        case "changed" if not incident.changes:  # a step that is no setting, as of a failover
            yield Mark(at, "changed", "change")
        case "moved":
            yield Mark(at, "looks again", "undo")
        case "paged":
            yield Mark(at, "paged", "alarm")
        case "closed":
            outcome = incident.outcome or "closed"
            yield Mark(at, outcome.replace("_", " "), "proof" if outcome in GOOD else "alarm")
