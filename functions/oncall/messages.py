"""What people are told of an incident: pure rendering, no clients, no clock of its own.

An incident becomes one Slack message that is edited in place, the thread's replies, the events for
PagerDuty, and the report. Everything that stands in the record may come from outside (alarm names,
reasons, resource names), so all of it is cleaned and escaped; only what this module writes itself
is markup. Limits of a Slack message: https://docs.slack.dev/reference/block-kit/blocks; the sum of
about 13,200 characters is documented nowhere (https://github.com/slackapi/bolt-js/issues/2509).
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from oncall.changes import tell
from oncall.times import epoch, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from oncall.incident import Change, Entry, Incident

type Block = dict[str, Any]

MORE = "… the whole in the report"
MAX_BLOCKS = 50
MAX_TOTAL = 12_000
MAX_SECTION = 3_000
MAX_REPLY = 3_500
"""chat.update refuses more than 4,000 characters of text; a reply keeps below as well."""
MAX_SENTENCE = 1_200
MAX_HEADER = 150
MAX_CONFIRM = 300
MAX_SUMMARY = 1_024
MAX_DEDUP_KEY = 255
_LISTED = 8
"""Changes that a message lists; the report lists all."""
_LATE_SECONDS = 60
"""A reply about something older says when it was."""

_ISO = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)")
_SLACK_USER = re.compile(r"[UW][A-Z0-9]{2,20}")
_MENTION = re.compile(r"<(?:!subteam\^[A-Z0-9]+|@[UW][A-Z0-9]+|!here|!channel)>")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")

_PHASE_EMOJI = {"waiting": "🟠", "handed_over": "🔴"}
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
_UNTOLD = frozenset({"intended"})
_CALLS = frozenset({"asked", "paged"})
"""Kinds of entries that need a human: told to the channel, with the configured mention."""


@dataclass(frozen=True, slots=True)
class Links:
    """Addresses that belong to an incident; ``""`` where there is none."""

    execution: str = ""
    alarm: str = ""
    runbook: str = ""
    report: str = ""
    thread: str = ""

    def named(self) -> list[tuple[str, str]]:
        """Return ``(name, address)`` of those there are."""
        pairs = [
            ("Slack thread", self.thread),
            ("Report", self.report),
            ("Execution", self.execution),
            ("Alarm", self.alarm),
            ("Runbook", self.runbook),
        ]
        return [(name, address) for name, address in pairs if address]


@dataclass(frozen=True, slots=True)
class Message:
    """One Slack message: ``text`` is the notification, and all there is without ``blocks``."""

    text: str
    blocks: tuple[Block, ...] = ()
    broadcast: bool = False
    """Whether a reply also shows in the channel: editing a message notifies nobody."""
    last_seq: int = 0
    """The last timeline entry that it tells."""


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


# Text from outside


def clean(text: object, limit: int = MAX_SENTENCE) -> str:
    """Return one line without control, bidirectional and other invisible characters, cut short."""
    spaced = re.sub(r"\s+", " ", str(text))
    kept = "".join(c for c in spaced if unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co"})
    kept = kept.strip()
    return kept if len(kept) <= limit else kept[: limit - len(MORE) - 1].rstrip() + " " + MORE


def escape(text: object, limit: int = MAX_SENTENCE) -> str:
    """Clean text and make Slack show it as it is: no mention, no link, no date.

    https://docs.slack.dev/messaging/formatting-message-text#escaping: ``&``, ``<`` and ``>``.
    """
    escaped = _entities(clean(text, limit))
    # An entity is up to five characters long: text of nothing else must not break a limit.
    return escaped if len(escaped) <= 2 * limit else _entities(clean(text, limit // 3))


def _entities(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: object) -> str:
    """Return text as code that cannot end its own code span."""
    return f"`{escape(text).replace('`', chr(39))}`"


def clock(moment: str) -> str:
    """Return an ISO time as Slack's date markup: the reader's own clock, UTC as the fallback."""
    return f"<!date^{epoch(parse(moment))}^{{time}}|{clock_utc(moment)}>"


def clock_utc(moment: str) -> str:
    """Return an ISO time as ``03:12 UTC``."""
    return f"{parse(moment):%H:%M} UTC"


def person(by: str) -> str:
    """Name who decided: a Slack user by mention, an IAM principal by the end of its ARN."""
    if _SLACK_USER.fullmatch(by):
        return f"<@{by}>"
    return escape(by.rpartition("/")[2] or by, 100)


def _sentence(text: str, incident: Incident) -> str:
    """Escape a sentence; times become clock times and those who decided are named."""
    marked = _ISO.sub(lambda found: clock(found[0]), escape(text))
    for by in _deciders(incident):
        if _SLACK_USER.fullmatch(by):
            marked = re.sub(rf"(?<![\w@<]){by}(?!\w)", f"<@{by}>", marked)
    return marked


def _plain(text: str, limit: int = MAX_SENTENCE) -> str:
    return clean(_ISO.sub(lambda found: clock_utc(found[0]), clean(text, limit)), limit)


def _deciders(incident: Incident) -> set[str]:
    named = {str(entry.data.get("by", "")) for entry in incident.entries if entry.kind == "decided"}
    return named - {""}


def first_sentence(text: str) -> str:
    """Return the first sentence of a text."""
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]


# Where to look


def links_of(incident: Incident, *, docs_url: str, report: str = "", thread: str = "") -> Links:
    """Return the addresses that belong to an incident.

    ``docs_url`` names the runbook's document and may hold ``{runbook}``.
    """
    alarm = incident.trigger.get("alarm") or {}
    return Links(
        execution=_execution_link(incident.execution),
        alarm=_alarm_link(str(alarm.get("arn", ""))),
        runbook=docs_url.replace("{runbook}", quote(incident.runbook, safe="")),
        report=report or incident.report_url,
        thread=thread,
    )


def console(partition: str, region: str) -> str:
    """Return the console's address in a partition (AWS partitions: aws, aws-cn, aws-us-gov)."""
    match partition:
        case "aws-cn":
            return f"https://{region}.console.amazonaws.cn"
        case "aws-us-gov":
            return f"https://{region}.console.amazonaws-us-gov.com"
    return f"https://{region}.console.aws.amazon.com"


def _execution_link(arn: str) -> str:
    parts = arn.split(":")
    if len(parts) != 8 or parts[2] != "states":  # noqa: PLR2004 -- arn:p:states:r:a:execution:m:n
        return ""
    where = console(parts[1], parts[3])
    address = quote(arn, safe=":")
    return f"{where}/states/home?region={parts[3]}#/v2/executions/details/{address}"


def _alarm_link(arn: str) -> str:
    parts = arn.split(":", 6)
    if len(parts) != 7 or parts[2] != "cloudwatch":  # noqa: PLR2004 -- arn:p:cloudwatch:r:a:alarm:n
        return ""
    where = console(parts[1], parts[3])
    name = quote(parts[6], safe="")
    return f"{where}/cloudwatch/home?region={parts[3]}#alarmsV2:alarm/{name}"


def report_key(incident: Incident, name: str) -> str:
    """Return the S3 key of a closed incident's ``report.md`` or ``record.json``."""
    return f"incidents/{parse(incident.started_at):%Y/%m}/{incident.id}/{name}"


def report_link(incident: Incident, bucket: str, region: str) -> str:
    """Return the report's page in the S3 console; who may read it is IAM's business."""
    parts = incident.execution.split(":")
    where = console(parts[1] if len(parts) > 1 else "aws", region)
    prefix = quote(report_key(incident, "report.md"), safe="")
    return f"{where}/s3/object/{bucket}?region={region}&prefix={prefix}"


# The header


def waiting(incident: Incident) -> bool:
    """Whether a question waits for an answer."""
    return (
        incident.status == "open"
        and incident.phase == "waiting"
        and incident.ask.get("state") == "waiting"
    )


def told_elsewhere(incident: Incident) -> bool:
    """Whether an alarm met a busy target: the thread of the run that it joins tells it."""
    paged = any(entry.kind == "paged" for entry in incident.entries)
    by_alarm = incident.trigger.get("kind") == "alarm"
    return incident.outcome == "refused" and by_alarm and not paged


def emoji(incident: Incident) -> str:
    """Return the circle that says whether you are needed: 🟠 🔴 you are, 🔵 not, 🟢 ⚪ over."""
    if incident.status != "open":
        return _OUTCOME_EMOJI.get(incident.outcome, "⚪")
    if waiting(incident):
        return "🟠"
    if _is_storm(incident):
        return "🔴"
    phase = "" if incident.phase == "waiting" else incident.phase
    return _PHASE_EMOJI.get(phase, "🔵")


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
    elif _about_to_act(incident):
        said = f"Approved, I go ahead. {happened}"
    elif incident.stop:
        stopped = "taken over" if incident.stop["kind"] == "take_over" else "aborted"
        said = f"{stopped.capitalize()}. {happened}"
    elif incident.phase == "handed_over":
        said = f"{happened} {need or 'It is yours now.'}"
    else:
        said = f"{happened} {doing}"
    if gathered:
        said = f"{gathered} incidents at once. {said}"
    said = _plain(said) or incident.title
    name = clean(incident.target_name, 60)
    named = said if _names(said, name) else f"{name}: {said}"
    only = "observing, " if incident.mode == "observe" and incident.status == "open" else ""
    line = f"{emoji(incident)} {only}{named}"
    return line if len(line) <= MAX_HEADER else line[: MAX_HEADER - 1].rstrip() + "…"


def _names(text: str, name: str) -> bool:
    """Whether a text names something by itself, not as a part of another name."""
    return bool(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text))


def gathered_by(incident: Incident) -> int:
    """Count the incidents that a storm's incident gathers: ``joined`` with ``data.incident``."""
    return len({e.data["incident"] for e in incident.entries if _is_child(e)})


def _is_storm(incident: Incident) -> bool:
    """Whether an incident only gathers others; no machine runs it."""
    return incident.trigger.get("kind") == "storm"


def _is_child(entry: Entry) -> bool:
    return entry.kind == "joined" and bool(entry.data.get("incident"))


def header(incident: Incident, links: Links, *, progress: bool = True) -> Message:
    """Render the incident's one message. Without ``progress`` it tells states apart, no more."""
    body = [
        {"type": "header", "text": _plain_text(headline(incident), MAX_HEADER)},
        *_decision(incident),
        *_said("What happened", _sentence(incident.happened, incident)),
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
    counted = [
        entry
        for entry in incident.entries
        if entry.kind == "decided" and entry.data.get("decision") in _DECIDED
    ]
    lines = [_decided_line(entry) for entry in counted[-2:]]
    return [_context_of(lines)] if lines else []


def _decided_line(entry: Entry) -> str:
    data = entry.data
    line = f"{_DECIDED[data['decision']]} by {person(str(data['by']))} {clock(entry.at)}"
    if data.get("via") == "invoke":
        line += " (by invoke)"
    if data.get("missing"):
        line += f", {data['missing']} more needed"
    if data.get("reason"):
        line += f": {escape(data['reason'], 300)}"
    return line


def _about_to_act(incident: Incident) -> bool:
    """Whether the plan has its yes and nothing has been changed yet."""
    return (
        incident.status == "open"
        and incident.ask.get("state") == "approved"
        and incident.phase == "waiting"
        and not incident.stop
    )


def _doing_label(incident: Incident) -> str:
    if waiting(incident):
        return "What I would do"
    if _about_to_act(incident):
        return "What I do now"
    if incident.mode == "observe":
        return "What I would have done" if incident.status != "open" else "What I would do"
    return "What I did"


def _doing(incident: Incident) -> list[str]:
    """Say what is done; while it is only a plan, list each change with its numbers."""
    lines = [_sentence(incident.doing, incident)] if incident.doing else []
    if waiting(incident) or _about_to_act(incident) or incident.mode == "observe":
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
    need = _sentence(incident.need, incident)
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
    addresses = [
        f"<{quote(address, safe=_URL_SAFE)}|{name}>" for name, address in links.named()[:8]
    ]
    return _context_of([" · ".join([about, *addresses])])


_URL_SAFE = ":/?#[]@!$&'()*+,;=%~-._"


def _buttons(incident: Incident) -> list[Block]:
    """Return the buttons that fit the state; their values name ids, never a token."""
    if incident.status != "open" or incident.stop or _is_storm(incident):
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
        if entry.seq > after and entry.kind not in _UNTOLD and not _is_child(entry)
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
    if entry.kind == "decided" and entry.data.get("decision") in _DECIDED:
        return _decided_line(entry)
    # Lines after the first are marked, so that text from outside cannot pass for a line of ours.
    first, *rest = entry.text.splitlines() or [""]
    lines = [_sentence(first, incident), *(f"| {_sentence(part, incident)}" for part in rest)]
    if entry.kind == "changed" and entry.data.get("undo"):
        lines.insert(1, f"Undo: {code(entry.data['undo'])}")
    line = _fitting(lines, MAX_SECTION)
    if entry.kind == "closed" and links.report:
        line += f" <{quote(links.report, safe=_URL_SAFE)}|Report>"
    if entry.kind in _CALLS and needs_human(incident) and _MENTION.fullmatch(mention):
        line = f"{mention} {line}"
    return line


def unshowable(reply: Message) -> Message:
    """Return what stands in for a reply that Slack refuses."""
    text = f"Something happened that could not be shown here: {MORE}."
    return Message(text, (), reply.broadcast, reply.last_seq)


def needs_human(incident: Incident) -> bool:
    """Whether somebody has to do something now."""
    paged = any(entry.kind == "paged" for entry in incident.entries)
    return waiting(incident) or (paged and incident.outcome != "resolved")


# PagerDuty


def dedup_key(incident: Incident) -> str:
    """Return PagerDuty's key of the trouble: the alarm's ARN, else the target; 255 at most."""
    if _is_storm(incident):
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


def pages(incident: Incident, sent: Iterable[str], opened: Mapping[str, bool]) -> list[Page]:
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
    decided = False
    for entry in incident.entries:
        if entry.kind == "paged" and not over:
            key = capped_key(f"{base}#{entry.id}") if decided else base
            payload = _payload(incident, _plain(entry.text), entry.severity or "critical", entry.at)
            wanted.append(Page(f"paged-{entry.id}", "trigger", key, payload=payload))
            if f"paged-{entry.id}" not in known:
                keys.setdefault(key, False)
        elif entry.kind == "decided" and _settles(entry):
            decided = True
            wanted += [
                Page(f"ack-{entry.id}-{key}", "acknowledge", key, escalated)
                for key, escalated in keys.items()
                if not _opened_after(key, entry, incident, base)
            ]
    if over:
        text = _plain(incident.summary) or "Resolved."
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
    if _is_storm(incident):
        return {**keys, _storm_key(incident.id): False}
    return {key: to for key, to in keys.items() if not key.startswith(_storm_key(""))}


def _ask_page(incident: Incident, base: str) -> Page:
    level = int(incident.ask.get("level", 1))
    # A storm pages once, however many of its incidents ask.
    key = _storm_key(incident.parent) if incident.parent else base
    if level > 1:
        key = f"{key}#level-{level}"
    text = _plain(f"{first_sentence(incident.happened)} {incident.need}")
    payload = _payload(incident, text or incident.title, "warning", incident.updated_at)
    return Page(f"ask-{incident.ask['id']}", "trigger", capped_key(key), level > 1, payload)


def _settles(entry: Entry) -> bool:
    return entry.data.get("decision") in _DECIDED and not entry.data.get("missing")


def _change_event(incident: Incident, changed: Entry) -> dict[str, Any]:
    """Tell the first change: it stands beside the service's incidents and wakes nobody."""
    text = f"{clean(incident.target_name, 100)}, runbook {incident.runbook}: {changed.text}"
    return {
        "summary": clean(text, MAX_SUMMARY),
        "source": clean(incident.target, 300),
        "timestamp": changed.at,
        "custom_details": {"incident": incident.id, "what_happened": clean(incident.happened)},
    }


def _payload(incident: Incident, text: str, severity: str, at: str) -> dict[str, Any]:
    named = text if _names(text, incident.target_name) else f"{incident.target_name}: {text}"
    details: dict[str, Any] = {
        "incident": incident.id,
        "what_happened": _plain(incident.happened),
        "what_i_did": _plain(incident.doing),
        "what_i_need": _plain(incident.need),
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


# The report

_QUESTIONS = """\
- Why did it happen, and what would have kept it from happening?
- Who was hurt, for how long, and how do we know?
- Did the alarm come in time, and did it say the right thing?
- Did the runbook do what you would have done? What should it do next time?
- What has to be done now, by whom and by when?"""


def report_json(incident: Incident) -> str:
    """Return the whole incident as JSON: the fields of ``Incident``, entries and changes in it."""
    return json.dumps(asdict(incident), indent=2, ensure_ascii=False) + "\n"


def report_markdown(incident: Incident, links: Links) -> str:
    """Return the report that people read: what the machine knows filled in, the rest asked."""
    sections = [
        f"# {_md(headline(incident), MAX_HEADER + 1)}",
        "## Overview",
        _table(("", ""), _overview(incident)),
        " · ".join(f"[{name}]({address})" for name, address in links.named() if name != "Report"),
        "## What happened",
        "\n\n".join(_md(t) for t in (incident.happened, incident.doing, incident.need) if t),
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
    return _entities(clean(text, limit)).replace("|", "\\|")


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
