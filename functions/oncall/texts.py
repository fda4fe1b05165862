"""Text from outside, made fit for people: cleaned, cut, and marked up for Slack. Pure.

What stands in the record may come from anywhere (alarm names, reasons, resource names): it passes
here before it is shown, and only what the rendering modules write themselves is markup.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING
from urllib.parse import quote

from oncall.times import epoch, parse

if TYPE_CHECKING:
    from oncall.incident import Incident

MORE = "… the whole in the report"
MAX_SENTENCE = 1_200
_ISO = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)")
_SLACK_USER = re.compile(r"[UW][A-Z0-9]{2,20}")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")
_URL_SAFE = ":/?#[]@!$&'()*+,;=%~-._"


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
    escaped = entities(clean(text, limit))
    # An entity is up to five characters long: text of nothing else must not break a limit.
    return escaped if len(escaped) <= 2 * limit else entities(clean(text, limit // 3))


def entities(text: str) -> str:
    """Write what Slack and Markdown read as markup as entities."""
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


def sentence(text: str, incident: Incident) -> str:
    """Escape a sentence; times become clock times and those who decided are named."""
    marked = _ISO.sub(lambda found: clock(found[0]), escape(text))
    for by in _deciders(incident):
        if _SLACK_USER.fullmatch(by):
            marked = re.sub(rf"(?<![\w@<]){by}(?!\w)", f"<@{by}>", marked)
    return marked


def _deciders(incident: Incident) -> set[str]:
    named = {str(entry.data.get("by", "")) for entry in incident.entries if entry.kind == "decided"}
    return named - {""}


def plain(text: str) -> str:
    """Clean a sentence; times become clock times in UTC."""
    return clean(_ISO.sub(lambda found: clock_utc(found[0]), clean(text)))


def first_sentence(text: str) -> str:
    """Return the first sentence of a text."""
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]


def names(text: str, name: str) -> bool:
    """Whether a text names something by itself, not as a part of another name."""
    return bool(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text))


def link(address: str, name: str) -> str:
    """Return a link in Slack's markup."""
    return f"<{quote(address, safe=_URL_SAFE)}|{name}>"
