"""Inspect a dead-letter queue: a sample of its letters, where they come from, who consumes that.

Called with ``{"run", "state"}``; returns ``{"facts": {...}}``, the fields of
``oncall.replays.Facts``: counts and classes, never what a letter says.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from oncall.dlq_facts import read_facts
from oncall.step import step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Read everything that diagnosis and plan go by; sampled letters are let go again."""
    incident = aws.store.load(call.run.incident)
    return {"facts": asdict(read_facts(aws, call.run, incident))}


handler = step(work)
