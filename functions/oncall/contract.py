"""A runbook's contract (``runbooks/<id>.yaml``) and the input that it accepts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonschema import Draft202012Validator

from oncall.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTRACTS = Path(__file__).parent.parent / "runbooks"
MODES = ("observe", "ask", "auto")
_ALARM_EVENT = "CloudWatch Alarm State Change"
_TEXT: Mapping[str, Any] = {"type": "string"}
_METRIC: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "metricStat": {
            "type": "object",
            "properties": {
                "metric": {"type": "object", "properties": {"dimensions": {"type": "object"}}}
            },
            "required": ["metric"],
        }
    },
}
_COMMON: Mapping[str, Any] = {
    "mode": {"enum": list(MODES)},
    "reason": {"type": "string", "maxLength": 500},
    "by": {"type": "string", "maxLength": 200},
    "alarm": {
        "type": "object",
        "properties": dict.fromkeys(("name", "arn", "changed_at"), _TEXT),
        "required": ["name", "arn", "changed_at"],
    },
    "storm": _TEXT,
}
_EVENT: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "resources": {"type": "array", "items": _TEXT},
        "detail": {
            "type": "object",
            "properties": {
                "alarmName": _TEXT,
                "state": {"type": "object", "properties": {"timestamp": _TEXT}},
                "configuration": {
                    "type": "object",
                    "properties": {"metrics": {"type": "array", "items": _METRIC}},
                },
            },
        },
    },
}
_LONGEST = 300
"""Characters of what is wrong: an input may be long, Step Functions' Cause may not."""


@dataclass(frozen=True, slots=True)
class Contract:
    """A runbook's contract, as far as code reads it; ``text`` is the whole document."""

    id: str
    title: str
    trigger: Mapping[str, Any]
    inputs: Mapping[str, Any]
    modes: Mapping[str, Any]
    two_people: tuple[str, ...]
    """Plan actions that two different people have to approve."""
    limits: Mapping[str, float]
    verification: Mapping[str, float]
    """The numbers of ``verification``."""
    text: Mapping[str, Any]

    @property
    def target_input(self) -> str:
        """The input that names the target, e.g. ``queue``."""
        return str(self.trigger["input"])

    def example(self) -> str:
        """Return the smallest input that works, as JSON."""
        key = self.target_input
        return json.dumps({key: self.inputs[key]["examples"][0]})


@dataclass(frozen=True, slots=True)
class Request:
    """A validated request to run a runbook."""

    target: str
    """As given: a name, URL or ARN; the runbook resolves it."""
    mode: str
    trigger: Mapping[str, Any]
    parent: str = ""
    mode_note: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The contract's further inputs, as far as they were given."""


def names(folder: Path = CONTRACTS) -> tuple[str, ...]:
    """Return the ids of the runbooks that there are."""
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


@cache
def load(runbook: str, folder: Path = CONTRACTS) -> Contract:
    """Read the contract of ``runbook``. Raises ``BadInput`` for a runbook that there is not."""
    path = folder / f"{runbook}.yaml"
    known = names(folder)
    if runbook not in known:
        raise BadInput(
            f"runbook: there is no runbook {runbook!r}; there are {', '.join(known)}. "
            f'Tag the alarm for example runbook="{known[0] if known else ""}".'
        )
    text = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Contract(
        id=text["id"],
        title=text["title"],
        trigger=text["trigger"],
        inputs=text["inputs"],
        modes=text["modes"],
        two_people=tuple(text["approval"]["two_people"]),
        limits=text["limits"],
        verification={
            name: value
            for name, value in text["verification"].items()
            if isinstance(value, int | float)
        },
        text=text,
    )


def target_of_alarm(contract: Contract, detail: Mapping[str, Any], tagged: str = "") -> str:
    """Return the target that an alarm's event names, ``""`` when it names none or several.

    ``detail`` is that of a "CloudWatch Alarm State Change" event (CloudWatch User Guide, "Alarm
    events and EventBridge"): a metric alarm has ``configuration.metrics[].metricStat.metric`` with
    ``dimensions``, a metric-math alarm several of them, a composite alarm none. The alarm's tag
    ``runbook:target`` (``tagged``) wins.
    """
    if tagged:
        return tagged
    named = {
        str(metric["metricStat"]["metric"].get("dimensions", {}).get(contract.trigger["dimension"]))
        for metric in detail.get("configuration", {}).get("metrics", [])
        if "metricStat" in metric
    } - {"None"}
    return named.pop() if len(named) == 1 else ""


def parse_input(contract: Contract, raw: Any) -> Request:
    """Read what started a run: by hand, by ``dispatch_alarm`` or a pasted alarm event.

    An optional input that is empty is as one that is not given: forms send such.
    Raises ``BadInput`` with one sentence that names the field, what is wrong and an example.
    """
    if not isinstance(raw, dict):
        raise BadInput(f"input: it must be a JSON object. Give {contract.example()}.")
    if raw.get("detail-type") == _ALARM_EVENT:
        return _from_event(contract, raw)
    optional = contract.inputs.keys() - {contract.target_input}
    raw = {key: value for key, value in raw.items() if value != "" or key not in optional}
    _validate(contract, raw)
    alarm = raw.get("alarm", {})
    kind = "alarm" if alarm else "hand"
    storm = str(raw.get("storm", ""))
    mode = str(raw.get("mode") or contract.modes[kind])
    note = ""
    if storm and mode == "auto":
        mode = "ask"
        note = "too many incidents at once, so I ask before I change anything"
    return Request(
        target=str(raw[contract.target_input]),
        mode=mode,
        trigger={
            "kind": kind,
            "by": str(raw.get("by", "")),
            "reason": str(raw.get("reason", "")),
            "alarm": alarm,
        },
        parent=storm,
        mode_note=note,
        options={
            key: raw[key] for key in contract.inputs if key in raw and key != contract.target_input
        },
    )


def _from_event(contract: Contract, event: Mapping[str, Any]) -> Request:
    """Read an alarm event that somebody pasted into the console."""
    _check(contract, _EVENT, event)
    detail = event.get("detail", {})
    target = target_of_alarm(contract, detail)
    if not target:
        raise BadInput(
            f"detail.configuration.metrics: the alarm names no single "
            f"{contract.trigger['dimension']}. Give {contract.example()}."
        )
    _validate(contract, {contract.target_input: target})
    return Request(
        target=target,
        mode=str(contract.modes["hand"]),
        trigger={
            "kind": "hand",
            "by": "",
            "reason": "pasted alarm event",
            "alarm": {
                "name": str(detail.get("alarmName", "")),
                "arn": str((event.get("resources") or [""])[0]),
                "changed_at": str(detail.get("state", {}).get("timestamp", "")),
            },
        },
    )


def _validate(contract: Contract, fields: Mapping[str, Any]) -> None:
    key = contract.target_input
    if key not in fields:
        given = f"; you gave {', '.join(sorted(fields))}" if fields else ""
        raise BadInput(f"{key}: it is missing{given}. Give {contract.example()}.")
    schema = {
        "type": "object",
        "properties": {**contract.inputs, **_COMMON},
        "additionalProperties": False,
    }
    _check(contract, schema, fields)


def _check(contract: Contract, schema: Mapping[str, Any], value: Any) -> None:
    for error in sorted(Draft202012Validator(schema).iter_errors(value), key=lambda e: e.path):
        field = ".".join(str(part) for part in error.path) or "input"
        wrong = error.message
        if error.validator == "pattern" and "description" in error.schema:
            what = str(error.schema["description"]).rstrip(".")
            wrong = f"{error.instance!r} cannot be {what[0].lower()}{what[1:]}"
        if len(wrong) > _LONGEST:
            wrong = f"{wrong[: _LONGEST // 2]} … {wrong[-_LONGEST // 2 :]}"
        raise BadInput(f"{field}: {wrong}. Give {contract.example()}.")
