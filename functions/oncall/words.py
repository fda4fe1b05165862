"""Numbers and settings in words, alike in every runbook; what is unknown is said to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

UNKNOWN = "unknown"
_ROUND_FROM = 5


def per_second(rate: float | None) -> str:
    """Say a rate: ``4.2/s``, ``120/s``."""
    if rate is None:
        return f"{UNKNOWN} (no datapoints)"
    return f"{rate:.1f}/s" if rate < _ROUND_FROM else f"{rate:.0f}/s"


def percent(share: float | None) -> str:
    """Say a share: ``30%``."""
    return UNKNOWN if share is None else f"{share:.0%}"


def ms(value: float | None) -> str:
    """Say milliseconds: ``250 ms``."""
    return UNKNOWN if value is None else f"{value:.0f} ms"


def last(series: Sequence[float]) -> str:
    """Say the latest value of a series."""
    return f"{series[-1]:.0f}" if series else UNKNOWN


def total(series: Sequence[float]) -> str:
    """Say the sum of a series."""
    return f"{sum(series):.0f}" if series else UNKNOWN


def duration(seconds: float) -> str:
    """Say a time: ``90 s``, ``5 min``, ``3.5 h``, ``14 days``."""
    minutes, days = seconds / 60, seconds / 86_400
    if days >= 2:  # noqa: PLR2004 -- two days
        return f"{days:.0f} days"
    if minutes < 2:  # noqa: PLR2004 -- two minutes
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"  # noqa: PLR2004 -- two hours


def tell(value: Any) -> str:
    """Say a lever's value in words: ``none`` for "not set", ``on``/``off`` for switches."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
