"""What people are told of a service's readiness: what has changed since they were told. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from oncall.messages import MAX_REPLY, Message
from oncall.readiness import changed
from oncall.readiness_seen import BAD, OK, WARN, Finding
from oncall.texts import clean, escape
from oncall.words import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WORST_FIRST = (BAD, UNKNOWN, WARN, OK)
_MARKS = {BAD: "🔴", UNKNOWN: "🟠", WARN: "🟠", OK: "🟢"}
_SAYS = {
    BAD: "could not be failed over as it is",
    UNKNOWN: "may not be ready to be failed over: not all could be seen",
    WARN: "could be failed over, not as well as it should",
    OK: "could be failed over",
}
_MAX_SUBJECT = 100
"""Of a mail (SNS ``Publish``: ASCII without line breaks, fewer than 100 characters)."""


@dataclass(frozen=True, slots=True)
class News:
    """A finding that is not as people know it."""

    was: str
    """Its verdict as they know it; ``""``: they know of none."""
    now: Finding


def written(region: str, found: Iterable[Finding]) -> dict[str, Any]:
    """Write findings, and the Region whose stack has found them, for the record."""
    return {"region": region, "findings": [asdict(one) for one in found]}


def read(found: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Read findings back."""
    return tuple(Finding(**one) for one in found.get("findings", ()))


def news(told: Sequence[Finding], found: Sequence[Finding]) -> tuple[News, ...]:
    """Return what is new, the worst first: of what was and is well, nothing is."""
    known = {one.name: one.verdict for one in told}
    new = [News(known.get(one.name, ""), one) for one in changed(told, found)]
    new = [one for one in new if not (one.now.verdict == OK and one.was in {"", OK})]
    return tuple(sorted(new, key=lambda one: WORST_FIRST.index(one.now.verdict)))


def headline(service: str, found: Sequence[Finding]) -> str:
    """Say whether the service could be failed over, by all that was found."""
    worst = min((one.verdict for one in found), key=WORST_FIRST.index, default=UNKNOWN)
    return f"{_MARKS[worst]} {service} {_SAYS[worst]}"


def message(service: str, found: Sequence[Finding], new: Sequence[News]) -> Message:
    """Render the news for Slack."""
    lines = [
        f"• `{escape(one.now.name, 200)}` {_turn(one)}: {escape(one.now.sentence)}" for one in new
    ]
    return Message(_fitting(f"*{escape(headline(service, found))}*", lines, service))


def mail(service: str, found: Sequence[Finding], new: Sequence[News]) -> tuple[str, str]:
    """Render the news as subject and text, for whom Slack does not reach."""
    said = headline(service, found)
    lines = [f"- {clean(one.now.name)} {_turn(one)}: {clean(one.now.sentence)}" for one in new]
    subject = said.partition(" ")[2].encode("ascii", "replace").decode()[: _MAX_SUBJECT - 1]
    return subject, "\n".join([said, "", *lines, "", f"All of it: runbook doctor {service}"])


def _turn(one: News) -> str:
    return f"{one.was} → {one.now.verdict}" if one.was else one.now.verdict


def _fitting(head: str, lines: Sequence[str], service: str) -> str:
    """Join the lines that fit into one message, and say how many do not."""
    end = f"All of it: `runbook doctor {escape(service)}`"
    kept: list[str] = []
    room = MAX_REPLY - len(head) - len(end) - 40
    for line in lines:
        if len(line) + 1 > room:
            break
        kept.append(line)
        room -= len(line) + 1
    more = len(lines) - len(kept)
    left = [f"… and {more} more."] if more else []
    return "\n".join([head, *kept, *left, end])
