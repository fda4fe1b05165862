"""Put back what the run has changed: compare-and-set, newest first.

Called with ``{"run", "state", "only"?}``; ``only`` names one lever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import changes
from oncall.step import step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Put back; ``{"put_back": [names], "left": [names]}``. Raises ``PutBackFailed``."""
    done = changes.put_back(aws, call.run, only=str(call.payload.get("only", "")))
    return {
        "put_back": [change.name for change in done if change.state == "put_back"],
        "left": [change.name for change in done if change.state == "left"],
    }


handler = step(work)
