"""Slack messages as HTML, for the page of a play: what a person sees in Slack, buttons included.

Formatting: https://docs.slack.dev/messaging/formatting-message-text. Everything that a message says
is escaped here; only this module's own tags are markup.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from local.slack_text import CODE, EMPHASIS, angle_text, emoji

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from local.slack import Ephemeral, Message

type Json = dict[str, Any]

_TAGS = {"*": "strong", "_": "em", "~": "s"}
_ANGLE = re.compile(r"<([^<>\n]+)>")
_LINKED = frozenset({"http", "https"})
_HELD = re.compile("\ue000(\\d+)\ue001")


def message_html(message: Message, users: Mapping[str, str]) -> str:
    """Return what a message shows now; each button carries ``data-ts`` and ``data-action``."""
    parts = list(_blocks(message.blocks, users, message.ts))
    if not parts:
        parts = [_lines(message.text, users)]
    parts += [f'<p class="file">{html.escape(file.title)}</p>' for file in message.files]
    return "".join(parts)


def ephemeral_html(ephemeral: Ephemeral, users: Mapping[str, str]) -> str:
    """Return an answer that only one person sees."""
    return "".join(_blocks(ephemeral.blocks, users, "")) or _lines(ephemeral.text, users)


def _blocks(blocks: list[Json], users: Mapping[str, str], ts: str) -> Iterator[str]:
    for block in blocks:
        match block["type"]:
            case "header":
                yield f"<h3>{_object(block['text'], users)}</h3>"
            case "section":
                yield from _section(block, users)
            case "context":
                said = " ".join(_object(part, users) for part in block["elements"])
                yield f'<p class="context">{said}</p>'
            case "actions":
                buttons = (_button(part, ts) for part in block["elements"])
                yield f'<div class="actions">{"".join(buttons)}</div>'
            case "divider":
                yield "<hr>"
            case "image":
                yield f"<p>{html.escape(block['alt_text'])}</p>"


def _section(block: Json, users: Mapping[str, str]) -> Iterator[str]:
    if "text" in block:
        yield f"<div>{_object(block['text'], users)}</div>"
    for field in block.get("fields", ()):
        yield f"<div>{_object(field, users)}</div>"


def _object(text: Json, users: Mapping[str, str]) -> str:
    if text["type"] == "mrkdwn":
        return _lines(text["text"], users)
    if text["type"] == "image":
        return html.escape(text["alt_text"])
    return html.escape(emoji(text["text"]))


def _button(element: Json, ts: str) -> str:
    label = html.escape(element["text"]["text"])
    if "url" in element:
        return _link(element["url"], label)
    confirm = element.get("confirm")
    asks = ""
    if confirm:
        words = {name: confirm[name]["text"] for name in ("title", "text", "confirm", "deny")}
        asks = "".join(f' data-{name}="{html.escape(said)}"' for name, said in words.items())
    kind = html.escape(element.get("style", "plain"))
    return (
        f'<button type="button" class="slack-button {kind}" data-ts="{html.escape(ts)}" '
        f'data-action="{html.escape(element["action_id"])}"{asks}>{label}</button>'
    )


def _lines(mrkdwn: str, users: Mapping[str, str]) -> str:
    """Return mrkdwn as HTML: code first, so that nothing in it is read as markup."""
    held: list[str] = []

    def hold(markup: str) -> str:
        held.append(markup)
        return f"\ue000{len(held) - 1}\ue001"

    def code(found: re.Match[str]) -> str:
        return hold(f"<code>{_plain(found[0].strip('`\n'))}</code>")

    def angle(found: re.Match[str]) -> str:
        target, _, label = found[1].partition("|")
        if urlsplit(target).scheme in _LINKED:
            return hold(_link(_unescaped(target), _plain(label or target)))
        return hold(_plain(angle_text(found[1], users)))

    def emphasis(found: re.Match[str]) -> str:
        tag = _TAGS[found[1]]
        return f"{hold(f'<{tag}>')}{found[2]}{hold(f'</{tag}>')}"

    bare = mrkdwn.replace("\ue000", "").replace("\ue001", "")
    text = _ANGLE.sub(angle, CODE.sub(code, bare))
    text = EMPHASIS.sub(emphasis, EMPHASIS.sub(emphasis, text))
    safe = _plain(text).replace("\n", "<br>")
    while _HELD.search(safe):
        safe = _HELD.sub(lambda found: held[int(found[1])], safe)
    return safe


def _plain(text: str) -> str:
    """Return text with Slack's own escapes as HTML."""
    return html.escape(_unescaped(emoji(text)))


def _unescaped(text: str) -> str:
    """Undo Slack's three escapes, and no other: they cannot make the marks of ``hold``."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _link(address: str, label: str) -> str:
    """Return a link as text with its address to see: what it leads to is not on this machine."""
    return f'<span class="link" title="{html.escape(address)}">{label} ↗</span>'
