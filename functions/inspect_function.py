"""Inspect a function: its concurrency, its callers, the account's pool, and their metrics.

Called with ``{"run", "state"}``; returns ``{"facts": {...}}``, the fields of
``oncall.throttles.Facts``. Reads only.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from oncall.function_facts import read_facts
from oncall.step import step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Read everything that diagnosis, plan and verification go by."""
    return {"facts": asdict(read_facts(aws, call.run.runbook, call.run.target))}


handler = step(work)
