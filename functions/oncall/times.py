"""Times as they stand in the record: UTC, ISO 8601 with milliseconds, ending in Z."""

from collections.abc import Callable
from datetime import UTC, datetime

type Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """Write ``moment`` as ``2026-11-23T03:02:11.123Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse(text: str) -> datetime:
    """Read an ISO 8601 time, also in CloudWatch's spelling ``…+0000``.

    Raises ``ValueError`` for anything else.
    """
    return datetime.fromisoformat(text).astimezone(UTC)


def epoch(moment: datetime) -> int:
    """Return whole seconds since 1970, as DynamoDB's TTL wants them."""
    return int(moment.timestamp())
