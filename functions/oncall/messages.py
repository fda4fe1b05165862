"""What Slack is told of an incident: one message edited in place, its thread, its buttons. Pure.

Limits of a message: https://docs.slack.dev/reference/block-kit/blocks; the sum of about 13,200
characters is documented nowhere (https://github.com/slackapi/bolt-js/issues/2509).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oncall.headline import (
    GAME_DAY,
    MAX_HEADER,
    about_to_act,
    decided,
    headline,
    is_child,
    is_game_day,
    is_storm,
    needs_human,
    waiting,
)
from oncall.texts import MORE, clean, clock, code, escape, link, person, sentence
from oncall.times import parse
from oncall.words import tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from oncall.incident import Change, Entry, Incident
    from oncall.links import Links

type Block = dict[str, Any]

MAX_BLOCKS = 50
MAX_TOTAL = 12_000
MAX_SECTION = 3_000
MAX_REPLY = 3_500
"""chat.update refuses more than 4,000 characters of text; a reply keeps below as well."""
MAX_CONFIRM = 300
_LISTED = 8
"""Changes that a message lists; the report lists all."""
_LATE_SECONDS = 60
"""A reply about something older says when it was."""
_MENTION = re.compile(r"<(?:!subteam\^[A-Z0-9]+|@[UW][A-Z0-9]+|!here|!channel)>")
_UNTOLD = frozenset({"intended"})
_CALLS = frozenset({"asked", "paged", "warned"})
"""Kinds of entries that need a human: told to the channel, with the configured mention."""


@dataclass(frozen=True, slots=True)
class Message:
    """One Slack message: ``text`` is the notification, and all there is without ``blocks``."""

    text: str
    blocks: tuple[Block, ...] = ()
    broadcast: bool = False
    """Whether a reply also shows in the channel: editing a message notifies nobody."""
    last_seq: int = 0
    """The last timeline entry that it tells."""


def header(incident: Incident, links: Links, *, progress: bool = True) -> Message:
    """Render the incident's one message. Without ``progress`` it tells states apart, no more."""
    body = [
        {"type": "header", "text": _plain_text(headline(incident), MAX_HEADER)},
        *_decision(incident),
        *_said("What happened", sentence(incident.happened, incident)),
        *_said(_doing_label(incident), "\n".join(_doing(incident))),
        *_said("What I need", _need(incident)),
        *(_progress(incident) if progress else []),
        *_changes(incident),
        _context(incident, links),
        *_buttons(incident),
    ]
    return Message(escape(headline(incident), MAX_HEADER + 1), tuple(within_limits(body)))


def child(incident: Incident) -> Message:
    """Render an incident that a storm gathers: one reply in the storm's thread."""
    line = escape(headline(incident), MAX_HEADER + 1)
    body = [_section(f"*{line.replace('*', ' ')}*"), *_decision(incident)]
    if waiting(incident):
        body += _said(_doing_label(incident), "\n".join(_doing(incident)))
    if waiting(incident) or incident.phase == "handed_over":
        body += _said("What I need", _need(incident))
    return Message(line, tuple(within_limits([*body, *_buttons(incident)])))


def plain(incident: Incident, links: Links) -> Message:
    """Say the same without any block: for a message that could not be rendered or was refused."""
    lines = [escape(headline(incident), MAX_HEADER + 1)]
    for label, text in (
        ("What happened", incident.happened),
        (_doing_label(incident), incident.doing),
        ("What I need", incident.need),
    ):
        if text:
            lines.append(f"{label}: {escape(text, 800)}")
    if waiting(incident):
        lines.append(
            f"Answer with `runbook approve {escape(incident.id, 100)}` or "
            f"`runbook reject {escape(incident.id, 100)}`."
        )
    lines += [f"<{address}|{name}>" for name, address in links.named()]
    return Message("\n".join(lines)[:MAX_REPLY])


def bare(incident: Incident) -> Message:
    """Say the least, from fields that every record has: when even ``plain`` fails."""
    return Message(
        escape(
            f"⚠️ {incident.target_name}: incident {incident.id} ({incident.runbook}) is "
            f"{incident.status}; `runbook explain {incident.id}` tells the rest."
        )
    )


def _section(text: str) -> Block:
    # verbatim: Slack must not look for links and mentions of its own in it.
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _plain_text(text: str, limit: int) -> Block:
    return {"type": "plain_text", "text": text[:limit]}


def _said(label: str, text: str) -> list[Block]:
    return [_section(f"*{label}*  {text}")] if text else []


def _decision(incident: Incident) -> list[Block]:
    """Say who decided what, and when: the last decision that counted."""
    counted = [entry for entry in incident.entries if decided(entry)]
    lines = [_decided_line(entry) for entry in counted[-2:]]
    return [_context_of(lines)] if lines else []


def _decided_line(entry: Entry) -> str:
    data = entry.data
    line = f"{decided(entry)} by {person(str(data['by']))} {clock(entry.at)}"
    if data.get("via") in {"invoke", "dashboard"}:
        line += f" (by {data['via']})"
    if data.get("missing"):
        line += f", {data['missing']} more needed"
    if data.get("reason"):
        line += f": {escape(data['reason'], 300)}"
    return line


def _doing_label(incident: Incident) -> str:
    if waiting(incident):
        return "What I would do"
    if about_to_act(incident):
        return "What I do now"
    if incident.mode == "observe":
        return "What I would have done" if incident.status != "open" else "What I would do"
    return "What I did"


def _doing(incident: Incident) -> list[str]:
    """Say what is done; while it is only a plan, list each change with its numbers."""
    lines = [sentence(incident.doing, incident)] if incident.doing else []
    if waiting(incident) or about_to_act(incident) or incident.mode == "observe":
        lines += planned_lines(incident)
    return lines


def planned_lines(incident: Incident) -> list[str]:
    """List the plan's changes: name, from, to, why."""
    planned = list(incident.plan.get("changes", []))
    lines = [
        f"• {escape(change['name'], 200)}: {escape(tell(change['before']), 100)} → "
        f"*{escape(tell(change['after']), 100)}*, {escape(change['why'], 300)}"
        for change in planned[:_LISTED]
    ]
    return [*lines, MORE] if len(planned) > _LISTED else lines


def _need(incident: Incident) -> str:
    need = sentence(incident.need, incident)
    if waiting(incident):
        deadline = clock(incident.ask["deadline"])
        if deadline not in need and f"{parse(incident.ask['deadline']):%H:%M}" not in need:
            need = f"{need} Answer by {deadline}.".strip()
        return need
    if need or incident.status != "open":
        return need
    return "Nothing."


def _progress(incident: Incident) -> list[Block]:
    if incident.status != "open" or not incident.progress:
        return []
    done = min(1.0, max(0.0, float(incident.progress.get("done", 0))))
    full = round(done * 10)
    line = f"{'▓' * full}{'░' * (10 - full)} {done:.0%}"
    if incident.progress.get("text"):
        line += f"  {escape(incident.progress['text'], 200)}"
    if incident.progress.get("eta"):
        line += f", done about {clock(str(incident.progress['eta']))}"
    return [_context_of([line])]


def _changes(incident: Incident) -> list[Block]:
    """List what is changed now, or say at the end that nothing is."""
    listed = [c for c in incident.changes if c.standing or c.state in {"handed_over", "left"}]
    if not listed:
        return []
    lines = [_change_line(change) for change in listed[:_LISTED]]
    if len(listed) > _LISTED:
        lines.append(MORE)
    return _said("Changed now", "\n" + "\n".join(lines))


def _change_line(change: Change) -> str:
    was = "" if change.mends else f"{escape(tell(change.before), 100)} → "
    line = f"• {escape(change.name, 200)}: {was}*{escape(tell(change.after), 100)}*"
    match change.state:
        case "left":
            line += ", changed by someone else since"
        case "handed_over":
            line += ", stays until you undo it"
        case _ if change.mends:
            line += " for good"
        case _:
            line += f", back by {clock(change.expires_at)} at the latest"
    return f"{line}. Undo: {code(change.undo)}"


def _context_of(lines: Iterable[str]) -> Block:
    return {
        "type": "context",
        "elements": [
            {"type": "mrkdwn", "text": line[:MAX_SECTION], "verbatim": True} for line in lines
        ],
    }


def _context(incident: Incident, links: Links) -> Block:
    about = " · ".join(
        escape(part, 120)
        for part in (incident.runbook, incident.mode, incident.target_name, incident.id)
        if part
    )
    addresses = [link(address, name) for name, address in links.named()]
    return _context_of([" · ".join([about, *addresses])])


def _buttons(incident: Incident) -> list[Block]:
    """Return the buttons that fit the state; their values name ids, never a token."""
    if incident.status != "open" or incident.stop or is_storm(incident):
        return []
    if waiting(incident):
        planned = "; ".join(
            f"{change['name']} {tell(change['before'])} → {tell(change['after'])}"
            for change in incident.plan.get("changes", [])
        )
        buttons = [
            _button(incident, "approve", "Approve", "primary", planned or incident.doing),
            _button(incident, "reject", "Reject"),
            _button(incident, "take_over", "Take over"),
        ]
    elif incident.phase in {"investigating", "waiting", "acting", "watching"}:
        buttons = [
            _button(incident, "take_over", "Take over"),
            _button(
                incident,
                "abort",
                "Abort and put back",
                "danger",
                "The run stops and what it changed goes back to what it was.",
            ),
        ]
    elif incident.phase == "putting_back":
        buttons = [_button(incident, "take_over", "Take over")]
    else:
        return []
    return [{"type": "actions", "elements": buttons}]


def _button(
    incident: Incident, decision: str, label: str, style: str = "", confirm: str = ""
) -> Block:
    value = {"incident": incident.id, "ask": incident.ask.get("id", ""), "decision": decision}
    button: Block = {
        "type": "button",
        "action_id": decision,
        "text": _plain_text(label, 75),
        "value": json.dumps(value, separators=(",", ":")),
    }
    if style:
        button["style"] = style
    if style or confirm:
        button["confirm"] = {
            "title": _plain_text(f"{label}?", 100),
            "text": _plain_text(clean(confirm, MAX_CONFIRM) or f"{label}?", MAX_CONFIRM),
            "confirm": _plain_text(label, 30),
            "deny": _plain_text("Not yet", 30),
            "style": style or "primary",
        }
    return button


def within_limits(blocks: Sequence[Block]) -> list[Block]:
    """Trim blocks to what Slack takes: lines first, then whole sections from the end."""
    fitting = [_trimmed(block) for block in blocks][:MAX_BLOCKS]
    while _length(fitting) > MAX_TOTAL:
        last = max(i for i, block in enumerate(fitting) if _length(block) > len(MORE) * 2)
        fitting[last] = _section(MORE)
    return fitting


def _trimmed(block: Block) -> Block:
    text = block.get("text", {}).get("text", "") if block["type"] == "section" else ""
    if len(text) <= MAX_SECTION:
        return block
    return _section(_fitting(text.split("\n"), MAX_SECTION))


def _fitting(lines: Sequence[str], limit: int) -> str:
    """Join the lines that fit; no line is cut, for it may hold markup."""
    if sum(len(line) + 1 for line in lines) <= limit:
        return "\n".join(lines)
    kept: list[str] = []
    room = limit - len(MORE) - 1
    for line in lines:
        if len(line) + 1 > room:
            break
        kept.append(line)
        room -= len(line) + 1
    return "\n".join([*kept, MORE])


def _length(value: Any) -> int:
    if isinstance(value, list):
        return sum(_length(part) for part in value)
    if not isinstance(value, dict):
        return 0
    own = len(value["text"]) if isinstance(value.get("text"), str) else 0
    return own + sum(_length(part) for part in value.values())


# The thread


def replies(
    incident: Incident, after: int, links: Links, *, mention: str, now: datetime
) -> list[Message]:
    """Return replies that tell the entries after ``after``, several in one where they fit.

    ``mention`` is the configured one; it stands only where a human is needed.
    """
    untold = [
        entry
        for entry in incident.entries
        if entry.seq > after and entry.kind not in _UNTOLD and not is_child(entry)
    ]
    joined: list[Message] = []
    for entry in untold:
        late = (now - parse(entry.at)).total_seconds() > _LATE_SECONDS
        line = _entry_line(entry, incident, links, mention)
        dated = f"{clock(entry.at)} {line}" if late else line
        calls = entry.kind in _CALLS
        last = joined[-1] if joined else None
        if last and len(last.text) + len(dated) < MAX_REPLY:
            joined[-1] = Message(
                f"{last.text}\n{dated}", (), last.broadcast or calls, last_seq=entry.seq
            )
        else:
            joined.append(Message(dated, (), calls, last_seq=entry.seq))
    return joined


def _entry_line(entry: Entry, incident: Incident, links: Links, mention: str) -> str:
    if decided(entry):
        return _decided_line(entry)
    # Lines after the first are marked, so that text from outside cannot pass for a line of ours.
    first, *rest = entry.text.splitlines() or [""]
    lines = [sentence(first, incident), *(f"| {sentence(part, incident)}" for part in rest)]
    if entry.kind == "changed" and entry.data.get("undo"):
        lines.insert(1, f"Undo: {code(entry.data['undo'])}")
    line = _fitting(lines, MAX_SECTION)
    if entry.kind == "closed" and links.report:
        line += f" {link(links.report, 'Report')}"
    if entry.kind in _CALLS and is_game_day(incident):
        return f"{GAME_DAY}: {line}"
    calls = entry.kind in _CALLS and (needs_human(incident) or entry.kind == "warned")
    if calls and _MENTION.fullmatch(mention):
        line = f"{mention} {line}"
    return line


def unshowable(reply: Message) -> Message:
    """Return what stands in for a reply that Slack refuses."""
    text = f"Something happened that could not be shown here: {MORE}."
    return Message(text, (), reply.broadcast, reply.last_seq)
