"""What the name servers serve: the record sets of the changes that have reached them.

"GetChange returns PENDING while the changes are being propagated and INSYNC when they have reached
all name servers"
(https://docs.aws.amazon.com/Route53/latest/APIReference/API_GetChange.html): until then every name
server here answers as before the change; one may lag behind for longer.
"""
# ruff: noqa: SLF001 -- works on MiniStack's stores

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from ministack.core.responses import get_account_id
from ministack.services import route53

from local.aws.route53.changes import RecordSet

_DEFAULT_SECONDS = 0.2
SECONDS: dict[str, float] = {}
"""How long a change takes to be INSYNC, by account."""

clock = time.monotonic


@dataclass(frozen=True, slots=True)
class _Step:
    visible_at: float
    before: tuple[RecordSet, ...]


_history: dict[tuple[str, str], list[_Step]] = defaultdict(list)
_visible_at: dict[tuple[str, str], float] = {}  # of a change, by account and change id


def seconds() -> float:
    """Return how long a change of the current account takes."""
    return SECONDS.get(get_account_id(), _DEFAULT_SECONDS)


def note_change(change_id: str) -> None:
    """Remember when a change that was submitted now is INSYNC."""
    _visible_at[get_account_id(), change_id] = clock() + seconds()


def is_in_sync(change_id: str) -> bool:
    """Tell whether a change of the current account has reached all name servers."""
    return clock() >= _visible_at.get((get_account_id(), change_id), 0.0)


def note_records(zone_id: str, before: tuple[RecordSet, ...]) -> None:
    """Keep what the zone had before a change, for the name servers that do not know it yet."""
    _history[get_account_id(), zone_id].append(_Step(clock() + seconds(), before))


def records(zone_id: str, lag_seconds: float = 0.0) -> tuple[RecordSet, ...]:
    """Return what a name server serves that learns of changes `lag_seconds` after INSYNC."""
    now = clock() - lag_seconds
    for step in list(_history[get_account_id(), zone_id]):
        if step.visible_at > now:
            return step.before
    return tuple(route53._records.get(zone_id, []))


def public_zone_of(name: str) -> dict[str, Any] | None:
    """Return the account's public zone with the longest name that is `name` or above it."""
    wanted = f".{name.lower()}"
    found = [
        zone
        for zone in route53._zones.values()
        if not zone.get("private") and wanted.endswith(f".{zone['name'].lower()}")
    ]
    return max(found, key=lambda zone: len(zone["name"]), default=None)


def reset() -> None:
    """Forget all accounts' changes."""
    SECONDS.clear()
    _history.clear()
    _visible_at.clear()
