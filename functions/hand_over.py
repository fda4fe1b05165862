"""Hand over to a person: say what happened, what was changed and how to undo it, and page.

Called with ``{"run", "state", "ending": {"error", "cause"}}`` on every path that does not end well.
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
    """Write the hand-over; the report pages from it. ``{"paged": bool}``."""
    ending = endings.read(call.payload["ending"])
    keeper = endings.KEEPERS.get(ending.error)
    if keeper:
        changes.hand_to_person(aws, call.run, keeper)
    incident = aws.store.load(call.run.incident)
    text = endings.hand_over_text(ending, incident)
    pages = endings.pages(ending, incident)
    aws.store.note(
        call.run,
        Entry(
            id=f"handed-over-{call.run.round}-{ending.error}",
            kind="paged" if pages else "decided",
            text=text,
            severity=endings.severity(ending) if pages else "",
        ),
        phase="handed_over",
        doing="I have stopped.",
        need=endings.need(ending, incident),
    )
    return {"paged": pages}


handler = step(work)
