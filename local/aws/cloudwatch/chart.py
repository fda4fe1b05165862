"""A line chart as a PNG, with Pillow: what the embedded CloudWatch draws. Pure.

It looks like CloudWatch's as far as a reader needs: title, two axes, lines that break where there
is no data, dashed levels, moments with their labels at the top, and a legend.
"""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_SCALE = 2
"""Drawn so much larger and then scaled down: Pillow's lines have no smooth edges."""
_INK, _FAINT, _GRID, _PAPER = "#16191f", "#545b64", "#e3e6e8", "#ffffff"
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Seconds between two times on the axis."""
_TEXT, _TITLE = 11, 14
_ROW = 14
_LABEL_ROWS = 3
_GAP = 6

type Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric: points are (second, value), oldest first."""

    label: str
    colour: str
    side: str
    period: int
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line."""

    value: float
    label: str
    colour: str
    side: str


@dataclass(frozen=True, slots=True)
class Moment:
    """A vertical line, in seconds since the epoch."""

    at: float
    label: str
    colour: str


@dataclass(frozen=True, slots=True)
class Chart:
    """All that is drawn; sizes in pixels, times in seconds since the epoch."""

    title: str
    width: int
    height: int
    start: float
    end: float
    period: int
    zone: tzinfo
    curves: Sequence[Curve]
    levels: Sequence[Level]
    moments: Sequence[Moment]
    axes: Mapping[str, Mapping[str, Any]]
    """By side: ``label min max``, each optional."""
    stacked: bool = False
    legend: str = "bottom"


def draw(chart: Chart) -> bytes:
    """Return the chart as a PNG of its width and height."""
    picture = Image.new("RGB", (chart.width * _SCALE, chart.height * _SCALE), _PAPER)
    _Painter(chart, ImageDraw.Draw(picture)).paint()
    out = io.BytesIO()
    picture.reduce(_SCALE).save(out, "PNG")
    return out.getvalue()


class _Painter:
    """Knows where things go; its coordinates are the chart's pixels."""

    def __init__(self, chart: Chart, canvas: ImageDraw.ImageDraw) -> None:
        self._chart = chart
        self._canvas = canvas
        # All visible marks are on the picture, as CloudWatch scales it.
        moments = [one.at for one in chart.moments]
        self._start, self._end = min([chart.start, *moments]), max([chart.end, *moments])
        rows = _LABEL_ROWS if any(one.label for one in chart.moments) else 0
        right = 64 if self._has("right") else 16
        bottom = 26 + (20 if chart.legend != "hidden" else 0)
        self._box: Box = (64, 44 + rows * _ROW, chart.width - right, chart.height - bottom)
        self._ranges = {side: self._range(side) for side in ("left", "right")}

    def paint(self) -> None:
        """Draw everything, the lines above the grid and the words above the lines."""
        left, top, right, bottom = self._box
        self._words((left, 8), self._chart.title, _TITLE)
        self._grid()
        self._line([(left, bottom), (right, bottom)], _FAINT)
        floor: dict[str, dict[float, float]] = {"left": {}, "right": {}}
        for curve in self._chart.curves:
            base = floor[curve.side]
            points = [(at, base.get(at, 0.0) + value) for at, value in curve.points]
            if self._chart.stacked:
                base |= dict(points)
            else:
                points = list(curve.points)
            for stretch in _stretches(points, curve.period):
                self._stretch(curve, stretch)
        for level in self._chart.levels:
            y = round(self._y(level.value, level.side))
            if top <= y <= bottom:
                self._dashes((left, y), (right, y), level.colour)
                self._words((left + _GAP, y - _ROW), level.label, colour=level.colour)
        self._moments()
        self._legend()

    def _has(self, side: str) -> bool:
        return any(curve.side == side for curve in self._chart.curves)

    def _range(self, side: str) -> tuple[float, float]:
        """Return an axis' ends: what is asked for, else all that it has to show."""
        asked = self._chart.axes.get(side, {})
        curves = [one for one in self._chart.curves if one.side == side]
        shown = [value for curve in curves for _, value in curve.points]
        if self._chart.stacked and curves:
            shown.append(sum(max((v for _, v in one.points), default=0.0) for one in curves))
        shown += [level.value for level in self._chart.levels if level.side == side]
        low = float(asked.get("min", min(shown, default=0.0)))
        high = float(asked.get("max", max(shown, default=1.0)))
        if high <= low:
            high = low + 1.0
        return low, high if "max" in asked else low + (high - low) * 1.08

    def _x(self, at: float) -> float:
        left, _, right, _ = self._box
        return left + (at - self._start) / max(1e-9, self._end - self._start) * (right - left)

    def _y(self, value: float, side: str) -> float:
        _, top, _, bottom = self._box
        low, high = self._ranges[side]
        return bottom - (value - low) / (high - low) * (bottom - top)

    def _grid(self) -> None:
        left, top, right, bottom = self._box
        for side, anchor, x in (("left", "rm", left - _GAP), ("right", "lm", right + _GAP)):
            if not self._has(side):
                continue
            for value in _ticks(*self._ranges[side]):
                y = self._y(value, side)
                if side == "left":
                    self._line([(left, y), (right, y)], _GRID)
                self._words((x, y), _number(value), colour=_FAINT, anchor=anchor)
            label = str(self._chart.axes.get(side, {}).get("label", ""))
            if side == "left":
                self._words((4, top - _ROW - 2), label, colour=_FAINT)
            else:
                self._words((self._chart.width - 4, top - _ROW - 2), label, _TEXT, _FAINT, "ra")
        for at, text in self._times():
            x = self._x(at)
            self._line([(x, bottom), (x, bottom + 4)], _FAINT)
            self._words((x, bottom + 6), text, colour=_FAINT, anchor="ma")

    def _times(self) -> Iterator[tuple[float, str]]:
        """Yield the times on the axis, some eighty pixels apart."""
        left, _, right, _ = self._box
        seconds = self._end - self._start
        wanted = seconds / max(1.0, (right - left) / 80)
        step = next((one for one in _STEPS if one >= wanted), 86_400)
        form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86_400 else "%m-%d"  # noqa: PLR2004 -- a minute, a day
        at = math.ceil(self._start / step) * step
        while at <= self._end:
            yield at, datetime.fromtimestamp(at, self._chart.zone).strftime(form)
            at += step

    def _stretch(self, curve: Curve, points: Sequence[tuple[float, float]]) -> None:
        """Draw points that follow each other; one that stands alone is a dot."""
        places = [(self._x(at), self._y(value, curve.side)) for at, value in points]
        if len(places) == 1:
            (x, y) = places[0]
            box = [(v * _SCALE) for v in (x - 2, y - 2, x + 2, y + 2)]
            self._canvas.ellipse(box, fill=curve.colour)
        else:
            self._line(places, curve.colour, 2)

    def _moments(self) -> None:
        """Draw the marks; a label goes into the first row that has room for it."""
        _, top, right, bottom = self._box
        taken = [-math.inf] * _LABEL_ROWS
        for moment in sorted(self._chart.moments, key=lambda one: one.at):
            x = round(self._x(moment.at))
            self._dashes((x, top - 2), (x, bottom), moment.colour)
            wide = self._wide(moment.label)
            begins = min(x + 3, right - wide)
            row = next((n for n, end in enumerate(taken) if end < begins), _LABEL_ROWS - 1)
            taken[row] = begins + wide + _GAP
            y = top - (_LABEL_ROWS - row + 1) * _ROW
            self._line([(x, y), (x, top)], moment.colour)
            self._words((begins, y), moment.label, colour=moment.colour)

    def _legend(self) -> None:
        if self._chart.legend == "hidden":
            return
        x, y = self._box[0], self._chart.height - 18.0
        for curve in self._chart.curves:
            self._line([(x, y + 6), (x + 16, y + 6)], curve.colour, 3)
            self._words((x + 21, y), curve.label)
            x += 21 + self._wide(curve.label) + 3 * _GAP

    def _line(self, places: Sequence[tuple[float, float]], colour: str, wide: float = 1) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in places]
        self._canvas.line(scaled, fill=colour, width=round(wide * _SCALE), joint="curve")

    def _dashes(self, begin: tuple[float, float], end: tuple[float, float], colour: str) -> None:
        (x0, y0), (x1, y1) = begin, end
        long = math.hypot(x1 - x0, y1 - y0)
        for along in range(0, int(long), 7):
            a, b = along / long, min(1.0, (along + 4) / long)
            dash = [(x0 + (x1 - x0) * part, y0 + (y1 - y0) * part) for part in (a, b)]
            self._line(dash, colour)

    def _words(
        self,
        at: tuple[float, float],
        text: str,
        size: int = _TEXT,
        colour: str = _INK,
        anchor: str = "la",
    ) -> None:
        place = (at[0] * _SCALE, at[1] * _SCALE)
        self._canvas.text(place, text, fill=colour, font=_font(size), anchor=anchor)

    def _wide(self, text: str) -> float:
        return self._canvas.textlength(text, font=_font(_TEXT)) / _SCALE


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size * _SCALE)


def _stretches(
    points: Sequence[tuple[float, float]], period: int
) -> Iterator[list[tuple[float, float]]]:
    """Split points where a period has no data."""
    stretch: list[tuple[float, float]] = []
    for point in points:
        if stretch and point[0] - stretch[-1][0] > 1.5 * period:
            yield stretch
            stretch = []
        stretch.append(point)
    if stretch:
        yield stretch


def _ticks(low: float, high: float) -> Iterator[float]:
    """Yield some five round numbers."""
    rough = (high - low) / 7
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in (1, 2, 5, 10) if power * one >= rough)
    value = math.ceil(low / step) * step
    while value <= high:
        yield value
        value += step


def _number(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    return f"{value:.4g}"
