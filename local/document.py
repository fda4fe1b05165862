"""What a play leaves for people and machines to read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from oncall.times import iso

if TYPE_CHECKING:
    from local.pagerduty import FakePagerDuty
    from local.play import Played
    from local.slack import FakeSlack, Message


def document(played: Played) -> dict[str, Any]:
    """Return a play as JSON: the incident, what was done, and what people were told."""
    incident = played.incident
    return {
        "incident": incident.id if incident else None,
        "runbook": played.story.runbook,
        "target": incident.target if incident else None,
        "mode": incident.mode if incident else None,
        "outcome": played.outcome,
        "timeline": [
            {"at": entry.at, "kind": entry.kind, "text": entry.text}
            for entry in (incident.entries if incident else ())
        ],
        "changes": [
            {
                "setting": change.name,
                "before": change.before,
                "after": change.after,
                "now": played.now.get((change.lever, change.resource)),
                "state": change.state,
                "undo": change.undo,
            }
            for change in (incident.changes if incident else ())
        ],
        "effect": played.effect,
        "slack": [
            {
                "ts": message.ts,
                "thread_ts": message.thread_ts,
                "text": _as_read(played.slack, message),
                "edited": _iso(message.edited) if message.edited else None,
            }
            for message in played.slack.messages
        ],
        "pagerduty": pagerduty_told(played.pagerduty),
    }


def threads(played: Played) -> list[str]:
    """Return each Slack thread as text, as it reads now."""
    slack = played.slack
    roots = [message.ts for message in slack.messages if message.thread_ts is None]
    return [slack.render_text(slack.thread(ts)) for ts in roots]


def pagerduty_told(pagerduty: FakePagerDuty) -> list[dict[str, Any]]:
    """Return what PagerDuty was told, change events first: ``{"kind", "summary", "woke", …}``."""
    changes = [
        {"kind": "change", "summary": event["payload"]["summary"], "woke": False}
        for event in pagerduty.change_events
    ]
    events = [
        {
            "kind": event["event_action"],
            "summary": event.get("payload", {}).get("summary", incident.title),
            "severity": event.get("payload", {}).get("severity", incident.severity),
            "dedup_key": incident.dedup_key,
            "woke": number == 0,
        }
        for incident in pagerduty.incidents
        for number, event in enumerate(incident.events)
    ]
    return [*changes, *events]


def _as_read(slack: FakeSlack, message: Message) -> str:
    """Return a message's text without its time, unwrapped."""
    text = slack.render_text(replace(message, thread_ts=None), width=100_000)
    return "\n".join(line.strip() for line in text.splitlines()[1:])


def _iso(seconds: float) -> str:
    return iso(datetime.fromtimestamp(seconds, UTC))
