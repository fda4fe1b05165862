"""Exit codes: what a shell script or a pipeline learns of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.incident import Incident

FAILED = 1
BAD_INPUT = 2
NO_YES = 3
CTRL_C = 130
"""128 + SIGINT, as shells have it."""

_CODES: Mapping[str, int] = {
    "resolved": 0,
    "observed": 0,
    "rejected": NO_YES,
    "timed_out": NO_YES,
    "handed_over": 4,
    "aborted": 5,
}


def exit_code(outcome: str) -> int:
    """Return 0 verified or observed, 1 failed, 3 rejected or too late, 4 handed over, 5 aborted."""
    return _CODES.get(outcome, FAILED)


def exit_code_of(incident: Incident) -> int:
    """Return a closed incident's exit code; handed over because nobody has answered is 3."""
    return NO_YES if unanswered(incident) else exit_code(incident.outcome)


def unanswered(incident: Incident) -> bool:
    """Whether the run ended because its question was not answered in time.

    Whoever takes over or aborts instead of answering takes the question back (``stopped``).
    """
    asked = incident.ask.get("state") in {"waiting", "expired"}
    return incident.outcome == "handed_over" and asked
