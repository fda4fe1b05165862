"""What the page of a play shows, as JSON made of drawings and HTML. Pure."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from local.document import pagerduty_told
from local.slack_html import ephemeral_html, message_html
from oncall.headline import headline
from oncall.machine_svg import machine_svg
from oncall.marks import marks
from oncall.plot_svg import Mark, Series, plot_svg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from local.pagerduty import FakePagerDuty
    from local.slack import FakeSlack
    from local.stories import Plotted
    from local.watch import Glance

_PLOT_WIDTHS = (300, 900)
"""The least and the most."""
_PLOT_HEIGHT = 190.0
_SETTING_HEIGHT = 120.0
_LEAST_SECONDS = 30


@dataclass
class Levels:
    """How the levels of a story went, by what is plotted; in order of time."""

    values: dict[Plotted, list[tuple[datetime, float | None]]] = field(default_factory=dict)
    troubles: list[Mark] = field(default_factory=list)
    """What was done to the pilot, and when."""

    def add(self, glance: Glance, at: datetime) -> None:
        """Add what a look has found."""
        for row in glance.rows:
            if row.plot:
                self.values.setdefault(row.plot, []).append((at, row.level))


def plots(levels: Levels, glance: Glance | None, now: datetime, width: int) -> list[str]:
    """Draw each level of a story with what happened to the incident, ``width`` px wide."""
    starts = [values[0][0] for values in levels.values.values()]
    start = min(starts, default=now)
    end = max(now, start + timedelta(seconds=_LEAST_SECONDS))
    incident = glance.incident if glance else None
    happened = [*levels.troubles, *(marks(incident) if incident else ())]
    drawn = []
    for plotted, values in levels.values.items():
        shown = happened
        if plotted.setting:
            shown = [mark for mark in happened if mark.kind in {"change", "undo"}]
        threshold = glance.threshold if glance and plotted.alarmed else None
        drawn.append(
            plot_svg(
                [Series(plotted.title, values, stepped=plotted.setting)],
                shown,
                title=plotted.title,
                unit=plotted.unit,
                threshold=threshold,
                threshold_label="" if threshold is None else f"alarm at {threshold:g}",
                most=plotted.most,
                start=start,
                end=end,
                width=max(_PLOT_WIDTHS[0], min(width, _PLOT_WIDTHS[1])),
                height=_SETTING_HEIGHT if plotted.setting else _PLOT_HEIGHT,
                theme=None,
            )
        )
    return drawn


def machine(definition: Mapping[str, Any], glance: Glance | None, title: str) -> str:
    """Draw the machine with the way that the run has taken."""
    return machine_svg(
        definition,
        entered=glance.entered if glance else (),
        current=glance.state if glance and not glance.over else "",
        title=title,
        theme=None,
    )


def messages(slack: FakeSlack) -> list[dict[str, Any]]:
    """Return what Slack shows, in order: ``{"id", "root", "by", "at", "edited", "html"}``."""
    shown = [
        {
            "id": message.ts,
            "root": message.thread_ts is None,
            "by": slack.users.get(message.user, message.user),
            "at": message.posted_at,
            "edited": message.edited or 0,
            "html": message_html(message, slack.users),
        }
        for message in list(slack.messages)
    ]
    shown += [
        {
            "id": f"only-{number}",
            "root": False,
            "only": slack.users.get(one.user, one.user),
            "by": slack.users[slack.bot_user],
            "at": shown[-1]["at"] if shown else 0,
            "edited": 0,
            "html": ephemeral_html(one, slack.users),
        }
        for number, one in enumerate(list(slack.ephemerals))
    ]
    return shown


def pagerduty(service: FakePagerDuty) -> str:
    """Return what PagerDuty was told, as HTML."""
    told = pagerduty_told(service)
    if not told:
        return "<p>Nothing yet. Nobody was woken.</p>"
    woken = len(service.pages)
    first = "Nobody was woken." if not woken else f"On-call was woken {_times(woken)}."
    rows = "".join(
        f'<li class="{"woke" if one["woke"] else "quiet"}">'
        f"<strong>{html.escape(str(one['kind']))}</strong> {html.escape(str(one['summary']))}</li>"
        for one in told
    )
    return f"<p>{first}</p><ul>{rows}</ul>"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def status(glance: Glance | None, ended: str) -> dict[str, str]:
    """Return the line at the top: ``{"kind", "word", "text"}``, the kind for its colour."""
    if glance is None:
        return {"kind": "calm", "word": "Starting", "text": "The embedded AWS starts."}
    text = headline(glance.incident) if glance.incident else glance.now
    if glance.over and glance.incident and glance.incident.outcome:
        good = glance.incident.outcome in {"resolved", "observed"}
        word = glance.incident.outcome.replace("_", " ").capitalize()
        return {"kind": "good" if good else "bad", "word": word, "text": text}
    if glance.incident and glance.incident.phase == "waiting":
        return {"kind": "ask", "word": "Waits for you", "text": text}
    if glance.state:
        return {"kind": "run", "word": "Running", "text": text}
    if glance.alarm == "ALARM":
        return {"kind": "bad", "word": "Alarm", "text": text}
    return {"kind": "calm", "word": "Ended" if ended else "Calm", "text": ended or text}


def facts(glance: Glance | None) -> list[tuple[str, str]]:
    """Return what there is to see now, in words: ``(name, text)``."""
    if glance is None:
        return []
    said = [(row.name, row.text) for row in glance.rows]
    if glance.alarm:
        said.append(("alarm", glance.alarm))
    if glance.state:
        said.append(("state", glance.state))
    return said


def trouble_mark(label: str, at: datetime) -> Mark:
    """Return the mark of what was done to the pilot."""
    return Mark(at, label[0].lower() + label[1:], "other")


def people(slack: FakeSlack) -> dict[str, str]:
    """Return who may press buttons: names by Slack's ids."""
    return {id_: name for id_, name in slack.users.items() if id_ != slack.bot_user}


def escaped(text: str) -> str:
    """Return text for HTML."""
    return html.escape(text)


def as_shown(pairs: Sequence[tuple[str, str]]) -> str:
    """Return facts as HTML."""
    return "".join(f"<dt>{html.escape(n)}</dt><dd>{html.escape(t)}</dd>" for n, t in pairs)
