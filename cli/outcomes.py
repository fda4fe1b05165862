"""Exit codes: what a shell script or a pipeline learns of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FAILED = 1
BAD_INPUT = 2
CTRL_C = 130
"""128 + SIGINT, as shells have it."""

_CODES: Mapping[str, int] = {
    "resolved": 0,
    "observed": 0,
    "rejected": 3,
    "timed_out": 3,
    "handed_over": 4,
    "aborted": 5,
}


def exit_code(outcome: str) -> int:
    """Return 0 verified or observed, 1 failed, 3 rejected or too late, 4 handed over, 5 aborted."""
    return _CODES.get(outcome, FAILED)
