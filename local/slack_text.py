"""Slack messages as plain text for a terminal: what a person reads, no more and no less.

Formatting: https://docs.slack.dev/messaging/formatting-message-text.
"""

from __future__ import annotations

import html
import re
import textwrap
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from local.slack import Message

type Json = dict[str, Any]

CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
_ANGLE = re.compile(r"<([^<>\n]+)>")
EMPHASIS = re.compile(r"(?<![\w*_~])([*_~])(?=\S)(.+?)(?<=\S)\1(?![\w*_~])")
_SHORTCODE = re.compile(r":([a-z0-9_+-]+):")
_EMOJI = {
    "large_green_circle": "🟢",
    "large_yellow_circle": "🟡",
    "large_orange_circle": "🟠",
    "red_circle": "🔴",
    "large_red_circle": "🔴",
    "large_blue_circle": "🔵",
    "white_circle": "⚪",
    "black_circle": "⚫",
    "white_check_mark": "✅",
    "heavy_check_mark": "✔️",
    "x": "❌",
    "warning": "⚠️",
    "rotating_light": "🚨",
    "octagonal_sign": "🛑",
    "hourglass_flowing_sand": "⏳",
    "eyes": "👀",
    "raised_hand": "✋",
    "no_entry": "⛔",
    "mag": "🔍",
    "leftwards_arrow_with_hook": "↩️",
}
_DATE_PARTS = {
    "{time}": "%H:%M",
    "{time_secs}": "%H:%M:%S",
    "{date_num}": "%Y-%m-%d",
    "{date}": "%B %-d, %Y",
    "{date_short}": "%b %-d, %Y",
    "{date_long}": "%A, %B %-d, %Y",
    "{date_pretty}": "%B %-d, %Y",
    "{date_short_pretty}": "%b %-d, %Y",
    "{date_long_pretty}": "%A, %B %-d, %Y",
}
_ROOT_INDENT = "   "
_REPLY_INDENT = "           "


def rendered_thread(
    thread: Sequence[Message],
    users: Mapping[str, str],
    channels: Mapping[str, str],
    *,
    zone: tzinfo | None = None,
    width: int = 100,
) -> str:
    """Render the first message as it is now, then the others in order, each with its time."""
    reader = _Reader(users, channels, zone or UTC, width)
    return "\n".join(
        line
        for index, message in enumerate(thread)
        for line in (reader.reply(message) if index else reader.root(message))
    )


class _Reader:
    def __init__(
        self, users: Mapping[str, str], channels: Mapping[str, str], zone: tzinfo, width: int
    ) -> None:
        self._users = users
        self._channels = channels
        self._zone = zone
        self._width = width

    def root(self, message: Message) -> list[str]:
        when = f"#{self._channels[message.channel]}  {self._clock(message.posted_at)}"
        if message.edited is not None:
            when += f", updated {self._clock(message.edited)}"
        first, *rest = self._lines(message)
        return [when, first, *self._laid_out(rest, _ROOT_INDENT, _ROOT_INDENT)]

    def reply(self, message: Message) -> list[str]:
        lead = f"   ↳ {self._clock(message.posted_at)} "
        return self._laid_out(self._lines(message), lead, _REPLY_INDENT)

    def _laid_out(self, lines: Sequence[str], lead: str, indent: str) -> list[str]:
        wrapped: list[str] = []
        for line in lines:
            label = re.match(r"(\S.*?\s{2,})\S", line)
            hanging = indent + " " * (len(label[1]) if label else 0)
            wrapped += textwrap.wrap(
                line,
                self._width,
                initial_indent=indent if wrapped else lead,
                subsequent_indent=hanging,
                drop_whitespace=True,
                break_long_words=False,
                break_on_hyphens=False,
            ) or [""]
        return wrapped

    def _lines(self, message: Message) -> list[str]:
        lines = self._blocks(message.blocks)
        if not lines:
            lines = self.plain(message.text).splitlines()
        for attachment in message.attachments:
            inner = [
                self.plain(attachment[name])
                for name in ("pretext", "title", "text")
                if attachment.get(name)
            ]
            inner += self._labelled(
                [(f.get("title", ""), f.get("value", "")) for f in attachment.get("fields") or []]
            )
            inner += self._blocks(attachment.get("blocks") or [])
            if not inner:
                inner = [self.plain(attachment.get("fallback", ""))]
            lines += [f"│ {line}" for part in inner for line in part.splitlines()]
        lines += [
            f"[graph: {file.title}]" if file.name.endswith(".png") else f"[{file.title}]"
            for file in message.files
        ]
        if message.reactions:
            lines.append("  ".join(emoji(f":{name}:") for name in message.reactions))
        return lines or [""]

    def _blocks(self, blocks: Sequence[Json]) -> list[str]:
        lines: list[str] = []
        for block in blocks:
            match block["type"]:
                case "header":
                    lines += self._object(block["text"]).splitlines()
                case "section":
                    lines += self._section(block)
                case "context":
                    parts = (self._element(part) for part in block["elements"])
                    lines += "  ".join(parts).splitlines()
                case "actions":
                    lines.append(" ".join(self._element(part) for part in block["elements"]))
                case "divider":
                    lines.append("─" * 12)
                case "image":
                    lines.append(self._element(block))
                case "markdown":
                    lines += block["text"].splitlines()
        return lines

    def _section(self, block: Json) -> list[str]:
        lines = self._object(block["text"]).splitlines() if "text" in block else []
        if "fields" in block:
            texts = [self._object(text) for text in block["fields"]]
            if all("\n" in text for text in texts):
                lines += self._labelled([tuple(text.split("\n", 1)) for text in texts])
            else:
                lines += texts
        if "accessory" in block:
            lines.append(self._element(block["accessory"]))
        return lines

    def _labelled(self, pairs: Sequence[tuple[str, ...]]) -> list[str]:
        """Lay a title and its value side by side; Slack puts the one above the other."""
        room = max((len(title) for title, _ in pairs), default=0)
        return [f"{title:<{room}}   {value.replace('\n', ' ')}".rstrip() for title, value in pairs]

    def _element(self, element: Json) -> str:
        match element["type"]:
            case "button":
                label = self._object(element["text"])
                return f"[{label} ↗]" if "url" in element else f"[{label}]"
            case "image":
                return f"[image: {element['alt_text']}]"
            case _:
                return self._object(element)

    def _object(self, text: Json) -> str:
        if text["type"] == "mrkdwn":
            return self.plain(text["text"])
        return emoji(text["text"]) if text.get("emoji", True) else str(text["text"])

    def plain(self, mrkdwn: str) -> str:
        """Mrkdwn without its marks. Code keeps its backticks: what to type must stay clear."""
        parts = []
        end = 0
        for code in CODE.finditer(mrkdwn):
            parts += [self._prose(mrkdwn[end : code.start()]), self._code(code[0])]
            end = code.end()
        parts.append(self._prose(mrkdwn[end:]))
        return "".join(parts)

    def _prose(self, text: str) -> str:
        bare = EMPHASIS.sub(r"\2", EMPHASIS.sub(r"\2", text))
        return html.unescape(emoji(_ANGLE.sub(lambda match: self._angle(match[1]), bare)))

    def _code(self, code: str) -> str:
        return html.unescape(code.strip("`\n") if code.startswith("```") else code)

    def _angle(self, inner: str) -> str:
        return angle_text(inner, self._users, self._channels, self._zone)

    def _at(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(seconds, self._zone)

    def _clock(self, seconds: float) -> str:
        return self._at(seconds).strftime("%H:%M")


def angle_text(
    inner: str,
    users: Mapping[str, str],
    channels: Mapping[str, str] | None = None,
    zone: tzinfo = UTC,
) -> str:
    """Return what ``<…>`` shows as: a link, a mention, a channel or a date."""
    target, _, label = inner.partition("|")
    if target.startswith("!date^"):
        _, seconds, pattern, *_ = target.split("^")
        at = datetime.fromtimestamp(float(seconds), zone)
        for part, form in _DATE_PARTS.items():
            pattern = pattern.replace(part, at.strftime(form))
        return label if "{" in pattern else pattern
    if target.startswith("@"):
        return f"@{users.get(target[1:], label or target[1:])}"
    if target.startswith("#"):
        return f"#{(channels or {}).get(target[1:], label or target[1:])}"
    if target.startswith("!"):
        return label or f"@{target[1:]}"
    return f"{label} ↗" if label else target


def emoji(text: str) -> str:
    """Return text with emoji for their short codes."""
    return _SHORTCODE.sub(lambda match: _EMOJI.get(match[1], match[0]), text)
