"""The report of a closed incident: its files, and where they are kept. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from oncall.headline import MAX_HEADER, headline
from oncall.links import console
from oncall.texts import clean, entities
from oncall.times import parse
from oncall.words import tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from oncall.incident import Entry, Incident
    from oncall.links import Links

PICTURE = "run.svg"
"""Beside the report: the machine, and the way that the run has gone."""
_QUESTIONS = """\
- Why did it happen, and what would have kept it from happening?
- Who was hurt, for how long, and how do we know?
- Did the alarm come in time, and did it say the right thing?
- Did the runbook do what you would have done? What should it do next time?
- What has to be done now, by whom and by when?"""


def report_key(incident: Incident, name: str) -> str:
    """Return the S3 key of a closed incident's ``report.md`` or ``record.json``."""
    return f"incidents/{parse(incident.started_at):%Y/%m}/{incident.id}/{name}"


def report_link(incident: Incident, bucket: str, region: str) -> str:
    """Return the report's page in the S3 console; who may read it is IAM's business."""
    parts = incident.execution.split(":")
    where = console(parts[1] if len(parts) > 1 else "aws", region)
    prefix = quote(report_key(incident, "report.md"), safe="")
    return f"{where}/s3/object/{bucket}?region={region}&prefix={prefix}"


def report_json(incident: Incident) -> str:
    """Return the whole incident as JSON: the fields of ``Incident``, entries and changes in it."""
    return json.dumps(asdict(incident), indent=2, ensure_ascii=False) + "\n"


def report_markdown(incident: Incident, links: Links, picture: str = "") -> str:
    """Return the report that people read: what the machine knows filled in, the rest asked.

    ``picture`` is the file beside it that shows the way the run has gone, ``""`` for none.
    """
    sections = [
        f"# {_md(headline(incident), MAX_HEADER + 1)}",
        "## Overview",
        _table(("", ""), _overview(incident)),
        " · ".join(f"[{name}]({address})" for name, address in links.named() if name != "Report"),
        "## What happened",
        "\n\n".join(_md(t) for t in (incident.happened, incident.doing, incident.need) if t),
        f"![The states that the run has entered]({picture})" if picture else "",
        "## Timeline",
        _table(("time (UTC)", "kind", ""), [_timeline(entry) for entry in incident.entries]),
        "## Decisions",
        _decisions(incident),
        "## Changes",
        _change_table(incident),
        "## Evidence",
        f"Diagnosis: {_md(incident.diagnosis) or 'none'}",
        _json_block(incident.plan),
        "## Questions for the review",
        _QUESTIONS,
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _md(text: object, limit: int = 4_000) -> str:
    return entities(clean(text, limit)).replace("|", "\\|")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _overview(incident: Incident) -> list[tuple[str, str]]:
    trigger = incident.trigger
    alarm = trigger.get("alarm") or {}
    by = alarm.get("name") if trigger.get("kind") == "alarm" else trigger.get("by")
    reason = f": {trigger['reason']}" if trigger.get("reason") else ""
    started = f"{trigger.get('kind', '')} {by or ''}".strip() + reason
    rows = [
        ("Outcome", incident.outcome or incident.phase),
        ("Summary", incident.summary),
        ("Runbook", incident.runbook),
        ("Target", incident.target),
        ("Mode", incident.mode),
        ("Started by", started),
        ("Started", incident.started_at),
        ("Closed", incident.closed_at),
        ("Took", _duration(incident)),
        ("Incident", incident.id),
        ("Execution", incident.execution),
    ]
    return [(name, _md(value)) for name, value in rows if str(value).strip()]


def _duration(incident: Incident) -> str:
    if not incident.closed_at:
        return ""
    took = parse(incident.closed_at) - parse(incident.started_at)
    minutes, seconds = divmod(int(took.total_seconds()), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _timeline(entry: Entry) -> tuple[str, str, str]:
    text = _md(entry.text)
    if entry.data.get("by_hand"):
        text += f"<br>By hand: {_md_code(entry.data['by_hand'])}"
    return (f"{parse(entry.at):%H:%M:%S}", entry.kind, text)


def _md_code(text: object) -> str:
    return f"`{clean(text).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def _decisions(incident: Incident) -> str:
    decided = [entry for entry in incident.entries if entry.kind == "decided"]
    if not decided:
        return "Nobody was asked, nobody intervened."
    return "\n".join(f"- {entry.at} {_md(entry.text)}" for entry in decided)


def _change_table(incident: Incident) -> str:
    if not incident.changes:
        return "Nothing was changed."
    rows = [
        (
            _md(change.name),
            _md(tell(change.before)),
            _md(tell(change.after)),
            _md(change.state.replace("_", " ")),
            _md(change.note),
            _md_code(change.undo),
        )
        for change in incident.changes
    ]
    return _table(("what", "before", "after", "state now", "note", "undo by hand"), rows)


def _json_block(value: Any) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "```json\n" + text.replace("```", "'''") + "\n```"
