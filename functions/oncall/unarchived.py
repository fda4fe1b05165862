"""Replays of letters that nobody may copy, which SQS itself moves: when, in which words; pure.

The owner of a dead-letter queue forbids copies with a tag. The mover, which archives every letter
before it touches one, may then not be used; StartMessageMoveTask keeps no copy, but moves whatever
lies there, marks nothing and tells a count
(https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html).
How tasks are started, watched and ended is in ``move_task``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oncall.plans import NO_CAUSE
from oncall.words import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.plans import Cause
    from oncall.replays import Facts

ARCHIVE_TAG = "runbook:archive"
"""On the dead-letter queue: ``never`` where its letters may not be copied."""
NEVER = "never"
ACTION = "replay_unarchived"
"""The plan's action; the contract's ``modes.always_ask`` names it."""
NATIVE = "native"
"""The plan's ``order["mover"]`` where SQS moves the letters."""
FASTEST = 500
"""MaxNumberOfMessagesPerSecond is at most this (API Reference, as above)."""


def forbidden(tags: Mapping[str, str]) -> bool:
    """Return whether letters may not be archived; a word that nobody knows forbids it too."""
    return bool(tags.get(ARCHIVE_TAG))


def is_native(order: Mapping[str, Any]) -> bool:
    """Return whether a plan's order is carried out by SQS's own move tasks."""
    return order.get("mover") == NATIVE


def cause(facts: Facts) -> Cause:
    """Find why SQS's own move task does not suffice where letters may not be archived."""
    if not facts.archive_tag:
        return NO_CAUSE
    if facts.archive_tag != NEVER:
        return (
            "bad_archive_tag",
            (
                f"The tag {ARCHIVE_TAG} of {facts.dlq} says {facts.archive_tag!r}, which I do not "
                f"know: set {ARCHIVE_TAG}={NEVER} to forbid copies of its letters, or remove it."
            ),
        )
    return next(
        (
            (name, f"The owner of {facts.dlq} forbids copies ({ARCHIVE_TAG}={NEVER}), and {words}.")
            for name, applies, words in _lacks(facts)
            if applies
        ),
        NO_CAUSE,
    )


def _lacks(facts: Facts) -> tuple[tuple[str, bool, str], ...]:
    kept_back = sorted(name for name in facts.classes if name != "replay")
    several = ", ".join(arn.rsplit(":", 1)[-1] for arn in facts.sources)
    return (
        (
            "unarchived_from_archive",
            bool(facts.archive),
            f"{facts.archive} is an archive: start me without from_archive",
        ),
        (
            "unarchived_kind",
            facts.kind != "queue",
            "SQS's own move task takes only letters of an SQS queue",
        ),
        (
            "unarchived_sources",
            len(facts.sources) > 1,
            f"SQS's own move task does not tell the letters of {several} apart",
        ),
        (
            "unarchived_elsewhere",
            facts.destination is not None and facts.destination != facts.source,
            "I let SQS's own move task send letters back to where they failed only",
        ),
        (
            "unarchived_rules",
            bool(facts.rules),
            f"SQS's own move task keeps none back, but rules stand in {facts.rules_from}",
        ),
        (
            "unarchived_kept_back",
            bool(kept_back),
            f"SQS's own move task keeps none back, but the sample has {', '.join(kept_back)}",
        ),
    )


def sentence(order: Mapping[str, Any], takes: float) -> str:
    """Say what is planned, and what a person gives up by saying yes."""
    to = str(order["destination"]).rsplit(":", 1)[-1]
    return (
        f"SQS itself moves about {order['canary']} back to {to}, then, if they do not come back, "
        f"the rest at {order['first_rate']:.0f}/s up to {order['max_rate']:.0f}/s: about "
        f"{duration(takes)}. Copies are forbidden ({ARCHIVE_TAG}={NEVER}): none of it is archived, "
        f"the letters bear no mark, what comes back shows only in the queue's depth, and the "
        f"accounting is by count only."
    )


def effect(total: Mapping[str, int]) -> str:
    """Say what SQS has moved; ``total`` is that of the looks."""
    moved = total.get("replayed", 0)
    return f"{moved} letters replayed, by count only; nothing is archived." if moved else ""


def how_to_end(dlq_arn: str) -> str:
    """Say how a person sees and ends a task that this run may have left."""
    return (
        f"`aws sqs list-message-move-tasks --source-arn {dlq_arn}` tells what SQS has moved and "
        f"whether it still does; `aws sqs cancel-message-move-task --task-handle HANDLE` ends it."
    )


@dataclass(frozen=True, slots=True)
class Count:
    """What lay in the dead-letter queue, held against what became of it; nobody knows which."""

    lay: int
    """Visible or in flight when the plan was made."""
    moved: int
    """As the move tasks say, approximately."""
    lies: int
    """Visible or in flight now."""

    @property
    def short(self) -> int:
        """How many are neither moved nor there; negative where more have come."""
        return self.lay - self.moved - self.lies


def told(count: Count) -> str:
    """Say in a sentence how the count comes out."""
    words = f"By count only: {count.lay} lay there, SQS moved {count.moved}, {count.lies} lie there"
    if count.short > 0:
        return (
            f"{words}; {count.short} are short: expired, taken by somebody else, or SQS counts "
            f"approximately. Nothing is archived."
        )
    more = f"; {-count.short} have come in since" if count.short else ""
    return f"{words}{more}. Nothing is archived."


def differs(count: Count, rules: Mapping[str, float]) -> bool:
    """Return whether more are short than SQS's approximate counts explain.

    The bounds are those from which letters count as having come back.
    """
    return count.short > max(rules["bounced_letters"], rules["bounce_share"] * count.moved)
