"""Values over time as a picture: a line each, a threshold, and what happened when. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from oncall.svg import drawing, points, text, width_of, words_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from oncall.svg import Theme

type MarkKind = Literal["alarm", "change", "undo", "proof", "other"]

_LEFT = 54.0
_RIGHT = 16.0
_HEAD = 26.0
_LEGEND = 20.0
_LANE = 15.0
_FOOT = 34.0
_SMALL = 11.0
_TICKS = 4
_COLOURS = 4
_TIMES = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)
_TIME_WIDTH = 78.0
_UTC_WIDTH = 16.0
"""Where the first clock time would be too near to the word before them."""
_DAY_SECONDS = 86_400
_LONG_SECONDS = 1_800
"""From here on times are written without seconds."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line: ``(time, value)`` in order of time; a value of ``None`` interrupts it."""

    name: str
    points: Sequence[tuple[datetime, float | None]]
    stepped: bool = False
    """Whether a value holds until the next one, as a setting's does."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened: an upright line with a label."""

    at: datetime
    label: str
    kind: MarkKind = "other"


@dataclass(frozen=True, slots=True)
class _Scale:
    """From times and values to px."""

    start: float
    end: float
    most: float
    left: float
    right: float
    top: float
    bottom: float

    def x(self, at: datetime) -> float:
        share = (at.timestamp() - self.start) / (self.end - self.start)
        return self.left + min(1.0, max(0.0, share)) * (self.right - self.left)

    def y(self, value: float) -> float:
        share = min(1.0, max(0.0, value / self.most))
        return self.bottom - share * (self.bottom - self.top)


def plot_svg(
    series: Sequence[Series],
    marks: Sequence[Mark] = (),
    *,
    title: str,
    unit: str = "",
    threshold: float | None = None,
    threshold_label: str = "",
    most: float | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    width: float = 760,
    height: float = 260,
    theme: Theme | None = "auto",
) -> str:
    """Draw time series from zero up, in one unit, with clock times in UTC below.

    ``threshold`` is the alarm's, ``most`` the top of the axis where that is known (1 for a share).
    ``start`` and ``end`` default to the first and the last time there is. The plot grows by as many
    lines as its labels need; what is out of the times shown is left out. ``theme`` None leaves out
    ``<style>``, for a page that has ``svg.stylesheet()``.
    """
    times = [at for one in series for at, _ in one.points] + [mark.at for mark in marks]
    since = start or min(times, default=datetime.fromtimestamp(0, UTC))
    until = end or max(times, default=since)
    shown = [mark for mark in sorted(marks, key=lambda m: m.at) if since <= mark.at <= until]
    values = [value for one in series for _, value in one.points if value is not None]
    span = max(1.0, (until - since).total_seconds())
    scale = _Scale(
        start=since.timestamp(),
        end=since.timestamp() + span,
        most=most or _nice(max([*values, threshold or 0, 1])),
        left=_LEFT,
        right=width - _RIGHT,
        top=0,
        bottom=0,
    )
    lanes = _lanes(shown, scale)
    top = _HEAD + _LEGEND * (len(series) > 1) + _LANE * (max(lanes, default=-1) + 1) + 8
    high = top + height - _HEAD
    scale = _Scale(scale.start, scale.end, scale.most, scale.left, scale.right, top, high - _FOOT)

    def body() -> Iterator[str]:
        yield words_at(14, 18, f"{title}, {unit}" if unit else title, "rb-text rb-strong")
        if len(series) > 1:
            yield from _legend(series)
        yield from _grid(scale, whole=most is None)
        yield from _clock(scale)
        if threshold is not None:
            yield from _threshold(scale, threshold, threshold_label)
        for mark, lane in zip(shown, lanes, strict=True):
            yield from _mark(mark, lane, scale, top)
        for number, one in enumerate(series):
            yield from _series(one, number % _COLOURS, scale, since, until)
        if not values:
            middle = ((scale.left + scale.right) / 2, (scale.top + scale.bottom) / 2)
            yield words_at(*middle, "No data yet", "rb-small", "middle")

    return drawing(
        body(),
        size=(width, high),
        label=title,
        description=_description(series, shown, unit, threshold, threshold_label),
        theme=theme,
    )


def _nice(most: float) -> float:
    """Return a number a little above, of which a quarter is round too."""
    power = 10.0 ** math.floor(math.log10(most))
    steps = (1, 2, 4, 8, 12, 20) if power == 1 else (1, 2, 4, 6, 8, 10, 20)
    return next(step * power for step in steps if step * power >= most * 1.05)


def _lanes(marks: Sequence[Mark], scale: _Scale) -> list[int]:
    """Return for each mark the line of labels, counted from below, where its label has room."""
    ends: list[float] = []
    lanes: list[int] = []
    for mark in marks:
        left, right = _label_span(mark, scale)
        lane = next((n for n, end in enumerate(ends) if end <= left), len(ends))
        ends[lane : lane + 1] = [right + 8]
        lanes.append(lane)
    # Upright lines pass through the labels below their own, so later labels stand lower.
    top = max(lanes, default=0)
    return [top - lane for lane in lanes] if _crossed(marks, lanes, scale) else lanes


def _crossed(marks: Sequence[Mark], lanes: Sequence[int], scale: _Scale) -> bool:
    spans = [_label_span(mark, scale) for mark in marks]
    return any(
        low < high and spans[n][0] < scale.x(mark.at) < spans[n][1]
        for mark, high in zip(marks, lanes, strict=True)
        for n, low in enumerate(lanes)
    )


def _label_span(mark: Mark, scale: _Scale) -> tuple[float, float]:
    """Return where a label begins and ends: right of its line, or left where there is no room."""
    x, wide = scale.x(mark.at), width_of(mark.label, _SMALL)
    if x + 4 + wide <= scale.right + _RIGHT - 4:
        return x + 4, x + 4 + wide
    return x - 4 - wide, x - 4


def _mark(mark: Mark, lane: int, scale: _Scale, top: float) -> Iterator[str]:
    x = scale.x(mark.at)
    left, right = _label_span(mark, scale)
    y = top - 8 - lane * _LANE
    on_right = left > x
    yield f'<g class="rb-event rb-mark-{mark.kind}">'
    yield f"<title>{text(f'{mark.label}, {mark.at.astimezone(UTC):%H:%M:%S} UTC')}</title>"
    yield _stroke((x, y - 9), (x, scale.bottom), "rb-mark")
    yield words_at(
        left if on_right else right, y, mark.label, "rb-mark-text", "start" if on_right else "end"
    )
    yield "</g>"


def _stroke(one: tuple[float, float], other: tuple[float, float], kind: str) -> str:
    return f'<polyline class="{kind}" points="{points(one, other)}"/>'


def _grid(scale: _Scale, *, whole: bool) -> Iterator[str]:
    for number in range(_TICKS + 1):
        value = scale.most * number / _TICKS
        y = scale.y(value)
        kind = "rb-grid" if number else "rb-axis"
        yield _stroke((scale.left, y), (scale.right, y), kind)
        if whole and value != int(value) and scale.most <= _TICKS:
            continue
        yield words_at(scale.left - 8, y + 4, f"{value:,.4g}", "rb-small", "end")


def _clock(scale: _Scale) -> Iterator[str]:
    span = scale.end - scale.start
    fitting = max(1, int((scale.right - scale.left) / _TIME_WIDTH))
    step = next(
        (s for s in _TIMES if span / s <= fitting),
        _DAY_SECONDS * math.ceil(span / _DAY_SECONDS / fitting),
    )
    form = "%H:%M:%S" if span < _LONG_SECONDS else "%H:%M" if span < _DAY_SECONDS else "%d %b %H:%M"
    at = math.ceil(scale.start / step) * step
    while at <= scale.end:
        moment = datetime.fromtimestamp(at, UTC)
        x = scale.x(moment)
        yield _stroke((x, scale.bottom), (x, scale.bottom + 4), "rb-axis")
        anchor = "end" if x > scale.right - _TIME_WIDTH / 3 else "middle"
        if x > _LEFT + _UTC_WIDTH:
            yield words_at(x, scale.bottom + 18, f"{moment:{form}}", "rb-small", anchor)
        at += step
    yield words_at(14, scale.bottom + 18, "UTC", "rb-small")


def _threshold(scale: _Scale, value: float, label: str) -> Iterator[str]:
    y = scale.y(value)
    yield _stroke((scale.left, y), (scale.right, y), "rb-limit")
    if label:
        yield words_at(scale.right, y - 5, label, "rb-limit-text", "end")


def _legend(series: Sequence[Series]) -> Iterator[str]:
    x = 14.0
    for number, one in enumerate(series):
        colour = number % _COLOURS
        yield _stroke((x, _HEAD + 8), (x + 18, _HEAD + 8), f"rb-series rb-series-{colour}")
        yield words_at(x + 24, _HEAD + 12, one.name, "rb-small")
        x += 24 + width_of(one.name, _SMALL) + 22


def _series(
    one: Series, colour: int, scale: _Scale, since: datetime, until: datetime
) -> Iterator[str]:
    for part in _unbroken(one.points, since, until):
        placed = [(scale.x(at), scale.y(value)) for at, value in part]
        if len(placed) == 1:
            x, y = placed[0]
            yield f'<circle class="rb-dot-{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
            continue
        if one.stepped:
            corners = [(b[0], a[1]) for a, b in pairwise(placed)]
            placed = [p for both in zip(placed, [*corners, placed[-1]], strict=True) for p in both]
        yield f'<polyline class="rb-series rb-series-{colour}" points="{points(*placed)}"/>'


def _unbroken(
    values: Iterable[tuple[datetime, float | None]], since: datetime, until: datetime
) -> Iterator[list[tuple[datetime, float]]]:
    part: list[tuple[datetime, float]] = []
    for at, value in values:
        if value is not None and math.isfinite(value) and since <= at <= until:
            part.append((at, value))
        elif part:
            yield part
            part = []
    if part:
        yield part


def _description(
    series: Sequence[Series],
    marks: Sequence[Mark],
    unit: str,
    threshold: float | None,
    label: str,
) -> str:
    said = []
    for one in series:
        values = [value for _, value in one.points if value is not None]
        if values:
            said.append(
                f"{one.name}: from {values[0]:g} to {values[-1]:g} {unit}, at most {max(values):g}."
            )
        else:
            said.append(f"{one.name}: no data.")
    if threshold is not None:
        said.append(f"{label or f'threshold {threshold:g}'}.")
    said += [f"{mark.at.astimezone(UTC):%H:%M:%S} {mark.label}." for mark in marks]
    return " ".join(said)
