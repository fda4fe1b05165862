"""The frame's states are the same in every runbook, so that on-call has to learn them once."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tools.checks.finding import Finding

FRAME = (
    "Open incident",
    "Not opened",
    "Only to observe?",
    "Ask on-call",
    "Ask the next in line",
    "Wait for the next look",
    "Put settings back",
    "Wait to see it stay calm",
    "Look whether it stays calm",
    "Has it stayed calm?",
    "Put back and look again",
    "Put everything back",
    "Hand over",
    "Close incident",
    "Close unresolved incident",
    "Done",
    "Not resolved",
    "Lock lost",
    "Not closed",
)
"""States that every runbook has; what is its own stands between them."""
OPTIONAL = frozenset({"Put settings back"})
"""A runbook that changes no settings has none to put back."""
DETOURS = frozenset({"Account for what was moved", "Check readiness"})
"""States of a runbook's own that stand between two of the frame; they lead on where it would."""
# What a runbook fills in: its id, the state that inspects, and the function that looks.
_OWN = (
    (re.compile(r'"Inspect [a-z ]+"'), '"Inspect"'),
    (re.compile(r"\$\{Verify\w+Arn\}"), "${VerifyArn}"),
)


def check_frame(machines: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Compare the frame of each machine with the first one's, but for Comments."""
    first, *others = sorted(machines, key=lambda name: (-len(machines[name]["States"]), name))
    return sorted(
        finding
        for other in others
        for finding in _compared(first, machines[first], other, machines[other])
    )


def _compared(
    first: str, model: Mapping[str, Any], name: str, machine: Mapping[str, Any]
) -> Iterator[Finding]:
    for state in FRAME:
        if state not in machine["States"]:
            if state not in OPTIONAL:
                yield Finding("frame-missing", name, f"it has no state {state!r}")
        elif _plain(name, machine, state) != _plain(first, model, state):
            yield Finding("frame-differs", name, f"{state!r} is not as in {first}")


def _plain(runbook: str, machine: Mapping[str, Any], name: str) -> str:
    """Return a state as text without what a runbook fills in."""
    states = machine["States"]
    bare = {key: value for key, value in states.get(name, {}).items() if key != "Comment"}
    text = json.dumps(bare, sort_keys=True).replace(f'"{runbook}"', '"RUNBOOK"')
    for detour in DETOURS & states.keys():
        onward = json.dumps(states[detour]["Next"])
        text = text.replace(f'"Next": {json.dumps(detour)}', f'"Next": {onward}')
    for own, common in _OWN:
        text = own.sub(common, text)
    return text
