"""Read what can be read of a queue in another account or Region: the I/O beside ``elsewhere``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from oncall import elsewhere, letters, queue_facts
from oncall.errors import GuardRefused
from oncall.replays import Consumer
from oncall.targets import MISSING, queue_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services

_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
_MOST_BYTES = 1_048_576
"""The largest message that SQS takes (Developer Guide, "Amazon SQS message quotas"), where what the
queue itself takes cannot be read; it refuses what is larger."""


def is_listed(aws: Services, arn: str) -> bool:
    """Return whether whoever has deployed the stack lets it send to this queue."""
    return arn in aws.settings.replay_destinations


def check_listed(aws: Services, arn: str) -> None:
    """Raise ``GuardRefused`` for a queue that the stack may not send to."""
    if not is_listed(aws, arn):
        raise GuardRefused(elsewhere.not_listed(arn))


def destination(aws: Services, arn: str) -> dict[str, Any]:
    """Return the fields of ``replays.Facts`` about it; nothing is asked of one not listed."""
    if not is_listed(aws, arn):
        return unusable(arn, "")
    trouble = _trouble(aws, arn)
    if trouble:
        return unusable(arn, trouble)
    return {
        **unusable(arn, ""),
        "destination_opted_in": True,
        "destination_max_bytes": takes(aws, arn).max_message_bytes,
    }


def unusable(arn: str, trouble: str) -> dict[str, Any]:
    """Return the same fields of a queue of which nothing is read."""
    return {
        "destination": arn,
        "destination_opted_in": False,
        "destination_trouble": trouble,
        "destination_fifo": arn.endswith(".fifo"),
        "destination_max_bytes": _MOST_BYTES,
    }


def takes(aws: Services, arn: str) -> letters.Destination:
    """Return what the queue takes, the most that SQS allows where that cannot be read."""
    found = _attributes(aws, arn) or {}
    most = int(found.get("MaximumMessageSize", _MOST_BYTES))
    return letters.Destination(fifo=arn.endswith(".fifo"), max_message_bytes=most)


def consumer(aws: Services, arn: str) -> Consumer | None:
    """Return the queue's backlog, all that is seen of its consumer; ``None`` if not even that.

    What fails there goes to a dead-letter queue there, so no letter has a fate to wait for here.
    """
    found = _attributes(aws, arn) if is_listed(aws, arn) else None
    if found is None:
        return None
    return Consumer(
        backlog=int(found["ApproximateNumberOfMessages"])
        + int(found["ApproximateNumberOfMessagesNotVisible"])
    )


def _trouble(aws: Services, arn: str) -> str:
    try:
        queue_url(aws, arn)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in MISSING:
            return elsewhere.missing(arn)
        if code in _DENIED:
            return elsewhere.closed(arn)
        raise
    return ""


def _attributes(aws: Services, arn: str) -> Mapping[str, str] | None:
    """Return its attributes, ``None`` where its owner does not let us read them."""
    try:
        return queue_facts.attributes(aws, queue_url(aws, arn), elsewhere.region_of(arn))
    except ClientError as error:
        if error.response["Error"]["Code"] not in _DENIED:
            raise
        return None
