"""The CloudWatch dashboard's widget: HTML of what needs somebody, runs, and has ended. Pure.

CloudWatch takes HTML, CSS and SVG and removes scripts; an element is made a button by the
``<cwdb-action>`` that follows it, which invokes a Lambda function in the name of whoever looks, and
passes every form field of the widget by name in ``widgetContext.forms.all``
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard_interactivity.html).
So a function that a button calls learns nothing of who clicked: IAM has decided who may.
"""

from __future__ import annotations

import html
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oncall import scorecard
from oncall.decisions import DASHBOARD_FIELD
from oncall.endings import GOOD
from oncall.headline import MAX_HEADER, headline, is_storm, needs_human, waiting
from oncall.links import links_of
from oncall.svg import stylesheet
from oncall.texts import clean, clock_utc, plain
from oncall.times import parse
from oncall.words import duration, tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from oncall.contract import Contract
    from oncall.incident import Incident
    from oncall.scorecard import Line
    from oncall.svg import Theme

DESCRIPTION = """\
### Runbooks: incidents
Shows which incidents need somebody, which run and how the latest ended, the alarms that are armed,
the scorecard, and how to start a runbook. No parameters.

Buttons invoke other functions (`start-run`, `receive-decision`) in the name of whoever looks; they
are there where the stack's parameter `DashboardButtons` is `on`. Else commands are shown.
"""
_STYLE = (
    ".rw h3{margin:14px 0 6px}.rw .rw-card{border:1px solid #8886;border-left:4px solid #888;"
    "border-radius:4px;padding:8px 12px;margin:6px 0}.rw .rw-needs{border-left-color:#d9480f}"
    ".rw .rw-runs{border-left-color:#1971c2}.rw p{margin:4px 0}.rw table{width:100%}"
    ".rw td,.rw th{text-align:left;padding:2px 8px 2px 0;vertical-align:top}"
    ".rw input{margin:2px 8px 2px 0;min-width:22em}.rw .btn{margin:2px 8px 2px 0}"
    ".rw pre{white-space:pre-wrap;user-select:all;margin:4px 0}.rw svg{max-width:100%;height:auto}"
    ".rw .rw-note{opacity:.75}"
)
_STOPPABLE = frozenset({"investigating", "waiting", "acting", "watching"})
_WHO = (
    "Your IAM ARN, one of the stack's Approvers (aws sts get-caller-identity). It is recorded as "
    "you give it; who clicked is what IAM allowed."
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the widget shows."""

    now: datetime
    running: Sequence[Incident]
    """Open incidents, with their timelines."""
    ended: Sequence[Incident]
    """Closed ones, latest first."""
    armed: Sequence[tuple[str, str]]
    """Runbook and mode (``""`` for the runbook's own) of each alarm that starts one."""
    graphs: Mapping[str, str] = field(default_factory=dict)
    """SVG of an open incident's machine by incident."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """The latest scorecard's document, ``{}`` before the first."""
    theme: Theme = "light"


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a button or a command leads to."""

    buttons: bool
    """Whether the parameter ``DashboardButtons`` is on."""
    decide: str
    """Function by its ARN, as ``start``."""
    start: str
    machines: Mapping[str, str]
    """Machines' ARNs by runbook."""
    docs_url: str = ""


def page(seen: Seen, contracts: Mapping[str, Contract], stack: Deployment) -> str:
    """Return the widget's HTML."""
    needing = [incident for incident in seen.running if needs_human(incident)]
    others = [incident for incident in seen.running if not needs_human(incident)]
    parts = [
        f'<style>{_STYLE}{stylesheet(seen.theme) if seen.graphs else ""}</style><div class="rw">',
        f"<h3>Needs you ({len(needing)})</h3>",
        _who(stack) if seen.running else "",
        *(_card(incident, seen, stack, "rw-needs") for incident in needing),
        "" if needing else "<p>Nothing.</p>",
        f"<h3>Running ({len(others)})</h3>",
        *(_card(incident, seen, stack, "rw-runs") for incident in others),
        "" if others else "<p>Nothing.</p>",
        "<h3>Latest closed</h3>",
        _closed(seen.ended, stack),
        f"<h3>Alarms armed ({len(seen.armed)})</h3>",
        _armed(seen.armed),
        "<h3>Start a runbook</h3>",
        *(_form(contracts[name], stack) for name in sorted(stack.machines)),
        "<h3>Scorecard</h3>",
        _scorecard(seen.card),
        f'<p class="rw-note">As of {seen.now:%H:%M:%S} UTC.</p></div>',
    ]
    return "\n".join(part for part in parts if part)


def notice(text: str, *, good: bool) -> str:
    """Return a button's answer: one sentence, and whether it did what it says."""
    return f"<p>{'✅' if good else '⛔'} {_text(text)}</p>"


def _text(text: object, limit: int = 1_200) -> str:
    return html.escape(clean(text, limit))


def _said(label: str, text: str) -> str:
    return f"<p><b>{label}</b> {_text(plain(text))}</p>" if text else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{lines}</table>"


def _link(address: str, name: str) -> str:
    return f'<a href="{html.escape(address)}" target="_blank" rel="noopener">{_text(name)}</a>'


# Incidents


def _card(incident: Incident, seen: Seen, stack: Deployment, kind: str) -> str:
    links = links_of(incident, docs_url=stack.docs_url).named()
    about = [_text(one) for one in (incident.id, incident.runbook, incident.mode) if one]
    about.append(f"since {clock_utc(incident.started_at)}")
    parts = [
        f'<div class="rw-card {kind}"><p><b>{_text(headline(incident), MAX_HEADER + 1)}</b></p>',
        _said("What happened", incident.happened),
        _said("What I would do" if waiting(incident) else "What I do", incident.doing),
        _planned(incident) if waiting(incident) else "",
        _said("What I need", incident.need),
        _decisions(incident, stack),
        _graph(seen.graphs.get(incident.id, "")),
        f'<p class="rw-note">{" · ".join([*about, *(_link(to, name) for name, to in links)])}</p>',
        "</div>",
    ]
    return "\n".join(part for part in parts if part)


def _graph(svg: str) -> str:
    return f"<details open><summary>Where it is</summary>{svg}</details>" if svg else ""


def _planned(incident: Incident) -> str:
    rows = [
        (
            _text(one["name"]),
            _text(tell(one["before"])),
            _text(tell(one["after"])),
            _text(one["why"]),
        )
        for one in incident.plan.get("changes", [])
    ]
    return _table(("change", "from", "to", "why"), rows) if rows else ""


def _possible(incident: Incident) -> list[tuple[str, str, str]]:
    """Return the decisions that fit the state: kind, label, what the person confirms."""
    if incident.stop or is_storm(incident):
        return []
    stops = [
        ("take_over", "Take over", "The run ends and leaves everything as it is; it is yours."),
        ("abort", "Abort", "The run stops and what it changed goes back to what it was."),
    ]
    if waiting(incident):
        asked = [
            ("approve", "Approve", incident.plan.get("sentence") or incident.doing),
            ("reject", "Reject", "The run ends and changes nothing."),
        ]
        return [*asked, *stops]
    return stops if incident.phase in _STOPPABLE else []


def _decisions(incident: Incident, stack: Deployment) -> str:
    possible = _possible(incident)
    if not possible:
        return ""
    if stack.buttons:
        return "\n".join(
            _button(
                label,
                stack.decide,
                {
                    "incident": incident.id,
                    "decision": kind,
                    "ask": incident.ask.get("id", "") if kind in {"approve", "reject"} else "",
                },
                f"{label}? {incident.target_name}: {confirm}",
                primary=kind == "approve",
            )
            for kind, label, confirm in possible
        )
    commands = "".join(
        f"<pre>{html.escape(_command(incident, kind, stack))}</pre>" for kind, _, _ in possible
    )
    return f"<details><summary>Decide by command, in CloudShell</summary>{commands}</details>"


def _command(incident: Incident, kind: str, stack: Deployment) -> str:
    """Return what decides by hand, in the caller's own name; ids of executions hold no quotes."""
    return (
        f"aws lambda invoke --function-name {stack.decide} "
        f'--cli-binary-format raw-in-base64-out --payload "{{\\"incident\\": \\"{incident.id}\\", '
        f'\\"decision\\": \\"{kind}\\", '
        f'\\"by\\": \\"$(aws sts get-caller-identity --query Arn --output text)\\"}}" /dev/stdout'
    )


def _button(
    label: str,
    function: str,
    payload: Mapping[str, str],
    confirm: str,
    *,
    primary: bool = False,
) -> str:
    given = {name: value for name, value in payload.items() if value}
    return (
        f'<a class="btn{" btn-primary" if primary else ""}">{_text(label)}</a>'
        f'<cwdb-action action="call" display="popup" endpoint="{html.escape(function)}" '
        f'confirmation="{_text(confirm, 300)}">{html.escape(json.dumps(given), quote=False)}'
        f"</cwdb-action>"
    )


def _who(stack: Deployment) -> str:
    if not stack.buttons:
        return ""
    return (
        f'<p><input name="{DASHBOARD_FIELD}" aria-label="Your IAM ARN" '
        f'placeholder="arn:aws:iam::123456789012:user/alice">'
        f'<span class="rw-note">{_WHO}</span></p>'
    )


def _closed(ended: Sequence[Incident], stack: Deployment) -> str:
    if not ended:
        return "<p>None.</p>"
    rows = []
    for incident in ended:
        links = links_of(incident, docs_url=stack.docs_url).named()
        need = "" if incident.outcome in GOOD else plain(incident.need)
        rows.append(
            (
                f"{parse(incident.closed_at):%d %b %H:%M} UTC",
                _text(headline(incident), MAX_HEADER + 1),
                _text(need, 300),
                " · ".join(_link(address, name) for name, address in links),
            )
        )
    return _table(("closed", "", "what it needs", ""), rows)


def _armed(armed: Sequence[tuple[str, str]]) -> str:
    if not armed:
        return "<p>None: tag an alarm runbook=queue-saturation, for example, to arm it.</p>"
    counts = Counter(armed)
    rows = [
        (_text(runbook), _text(mode or "the runbook's own"), str(count))
        for (runbook, mode), count in sorted(counts.items())
    ]
    return _table(("runbook", "mode", "alarms"), rows)


# Starting


def field_of(runbook: str, name: str) -> str:
    """Return the name of a runbook's form field; those of all forms come in one mapping."""
    return f"{runbook}.{name}"


def _form(contract: Contract, stack: Deployment) -> str:
    key = contract.target_input
    schema = contract.inputs[key]
    example = str(schema["examples"][0])
    if not stack.buttons:
        given = json.dumps({key: example, "mode": "observe"})
        command = (
            f"aws stepfunctions start-execution --state-machine-arn {stack.machines[contract.id]} "
            f"--input '{given}'"
        )
        return (
            f"<details><summary>{_text(contract.title)} (dry run; leave out the mode to act)"
            f"</summary><pre>{html.escape(command)}</pre></details>"
        )
    mode = str(contract.modes["hand"])
    buttons = (
        _button(
            "Dry run",
            stack.start,
            {"runbook": contract.id, "mode": "observe"},
            f"{contract.title}: look and plan, change nothing?",
        ),
        _button(
            "Run",
            stack.start,
            {"runbook": contract.id, "mode": mode},
            f"{contract.title}, in mode {mode}?",
            primary=True,
        ),
    )
    return (
        f"<p><b>{_text(contract.title)}</b><br>"
        f'<input name="{_text(field_of(contract.id, key))}" aria-label="{_text(key)}" '
        f'title="{_text(schema["description"])}" placeholder="{_text(example)}">'
        f"{' '.join(buttons)}</p>"
    )


# The scorecard


def _scorecard(card: Mapping[str, Any]) -> str:
    if not card:
        return "<p>The first one comes on Monday.</p>"
    lines = scorecard.read(card)
    rows = [_score(line) for line in lines]
    head = (
        "",
        "runs",
        "verified",
        "others",
        "refused",
        "false fires",
        "relief",
        "by hand",
        "proposal",
    )
    since, until = str(card["since"])[:10], str(card["until"])[:10]
    week = f'<p class="rw-note">{_text(since)} to {_text(until)}; medians from alarm to relief.</p>'
    return week + (_table(head, rows) if rows else "<p>No runs.</p>")


def _score(line: Line) -> tuple[str, ...]:
    proposal = ""
    if line.proposal:
        arrow = "▲" if line.proposal.up else "▼"
        proposal = f"{arrow} {_text(line.proposal.mode)}: {_text(line.proposal.why)}"
        proposal += f"<pre>{_text(line.proposal.command)}</pre>"
    took = [
        "" if seconds is None else duration(seconds)
        for seconds in (line.relief_seconds, line.by_hand_seconds)
    ]
    return (
        _text(" · ".join(one for one in (line.runbook, line.name, line.mode) if one)),
        str(line.runs),
        str(line.verified),
        _counts(line.outcomes),
        _counts(line.refused),
        str(line.false_fires),
        *took,
        f"{proposal} {_text(line.note)}".strip(),
    )


def _counts(counts: Mapping[str, int]) -> str:
    return _text(", ".join(f"{n} {word.replace('_', ' ')}" for word, n in sorted(counts.items())))
