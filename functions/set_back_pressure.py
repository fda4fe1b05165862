"""Set the back-pressure parameter as planned: leased, guarded, compare-and-set.

Called with ``{"run", "state", "plan_hash"}``; returns what was changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import changes
from oncall.queues import BACK_PRESSURE
from oncall.step import step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Make the change; raises what ``changes.make`` does."""
    return changes.make(aws, call.run, BACK_PRESSURE, str(call.payload["plan_hash"]))


handler = step(work)
