"""Put back what the run has changed: compare-and-set, newest first.

Called with ``{"run", "state", "only"?, "because"?}``; ``only`` names one lever, ``because`` is the
machine's ``{"error", "cause"}`` where the run goes on after it and should say why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import changes, endings
from oncall.incident import Entry
from oncall.step import step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Put back; ``{"put_back": [names], "left": [names]}``. Raises ``PutBackFailed``."""
    _say_why(call, aws)
    done = changes.put_back(aws, call.run, only=str(call.payload.get("only", "")))
    return {
        "put_back": [change.name for change in done if change.state == "put_back"],
        "left": [change.name for change in done if change.state == "left"],
    }


def _say_why(call: Call, aws: Services) -> None:
    moved = endings.read(call.payload.get("because", {}))
    if moved.because:
        entry = Entry(id=f"moved-{call.run.round}", kind="moved", text=moved.because)
        aws.store.note(call.run, entry)


handler = step(work)
