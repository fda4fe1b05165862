"""A state machine as a picture: which states a run has been through, and where it is. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from oncall.machine_layout import LINE_HEIGHT, failures, place, steps
from oncall.svg import attribute, drawing, points, text, words_at

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from oncall.machine_layout import Box, Layout, Line, Point, View
    from oncall.svg import Theme

type Status = Literal["new", "done", "current", "failed"]

_INSET = 3.5
_POINT = 13.0
_HEAD = 4.2
_CURVE = 0.55
_SAID = {"new": "", "done": ", done", "current": ", the run is here", "failed": ", failed"}


def machine_svg(
    definition: Mapping[str, Any],
    *,
    entered: Sequence[str] = (),
    current: str = "",
    failed: Collection[str] = (),
    view: View = "main",
    title: str = "",
    theme: Theme | None = "auto",
) -> str:
    """Draw an Amazon States Language definition (a dict with ``StartAt`` and ``States``) as SVG.

    ``entered`` are the names of the states that a run has entered, in order and as often as it did,
    those inside a Map too; ``current`` is where it is now. Failed are states that it has left by an
    error, as ``entered`` tells, and those in ``failed``. View ``main`` leaves out the states of bad
    ends that the run did not enter. ``theme`` None leaves out ``<style>``, for a page that has
    ``svg.stylesheet()``.

    Every state is a ``<g class="rb-state rb-<status>" data-state="<name>">`` with the Comment as
    its ``<title>``; a status is ``new``, ``done``, ``current`` or ``failed``.
    """
    layout = place(definition, view=view, entered=entered)
    failed = sorted({*failed, *failures(definition, entered)})
    status = _statuses(layout, entered, current, failed)
    label = title or "State machine"
    return drawing(
        _layout(layout, status, entered),
        size=(layout.width, layout.height),
        label=label,
        description=_description(layout, entered, current, failed),
        theme=theme,
    )


def _statuses(
    layout: Layout, entered: Collection[str], current: str, failed: Collection[str]
) -> dict[str, Status]:
    been: dict[str, Status] = dict.fromkeys((box.name for box in layout.every_box), "new")
    been |= dict.fromkeys(entered, "done")
    been |= {box.name: "failed" for box in layout.every_box if _is_bad_end(box, entered)}
    been |= dict.fromkeys(failed, "failed")
    return been | ({current: "current"} if current else {})


def _is_bad_end(box: Box, entered: Collection[str]) -> bool:
    return box.type == "Fail" and box.name in entered


def _description(
    layout: Layout, entered: Sequence[str], current: str, failed: Collection[str]
) -> str:
    said = [f"{len(layout.every_box)} states."]
    if entered:
        said.append(f"The run went through {', then '.join(dict.fromkeys(entered))}.")
    if current:
        said.append(f"It is in {current}.")
    if failed:
        said.append(f"Failed: {', '.join(failed)}.")
    return " ".join(said)


def _layout(layout: Layout, status: Mapping[str, Status], entered: Sequence[str]) -> Iterator[str]:
    taken = steps(entered, [box.name for box in layout.boxes])
    if layout.panel is not None:
        yield words_at(14, layout.panel + 14, "When it cannot go on", "rb-small rb-strong")
    bad = {box.name for box in layout.boxes if box.bad}
    for line in sorted(layout.lines, key=lambda line: _is_taken(line, taken)):
        yield _line(line, taken, bad)
    for box in layout.boxes:
        yield from _box(box, status, entered)


def _is_taken(line: Line, taken: Collection[tuple[str, str]]) -> bool:
    way = (line.transition.source, line.transition.target)
    return way in taken or (line.both and way[::-1] in taken)


def _line(line: Line, taken: Collection[tuple[str, str]], bad: Collection[str]) -> str:
    way = line.transition
    state = " rb-taken rb-bad" if way.caught or way.target in bad else " rb-taken"
    caught = " rb-caught" if way.caught else ""
    heads = [
        _head(line.end, down=True) if not line.up or line.both else "",
        _head(line.start, down=False) if line.up or line.both else "",
    ]
    why = f"{way.source} → {way.target}" + (f": {' or '.join(way.why)}" if way.why else "")
    return (
        f'<g class="rb-line{state if _is_taken(line, taken) else ""}"><title>{text(why)}</title>'
        f'<path class="rb-edge{caught}" d="{_curve(line)}"/>{"".join(heads)}</g>'
    )


def _curve(line: Line) -> str:
    """Return a path that runs straight down through rows and bends only between them."""
    start = (line.start[0], line.start[1] + (_HEAD if line.up or line.both else 0))
    end = (line.end[0], line.end[1] - (0 if line.up and not line.both else _HEAD))
    stops = [start, *line.bends, end]
    path = [f"M{points(stops[0])}"]
    for number in range(0, len(stops) - 1, 2):
        here, there = stops[number], stops[number + 1]
        bend = (there[1] - here[1]) * _CURVE
        path.append(f"C{points((here[0], here[1] + bend), (there[0], there[1] - bend), there)}")
        if number + 2 < len(stops):
            path.append(f"L{points(stops[number + 2])}")
    return "".join(path)


def _head(tip: Point, *, down: bool) -> str:
    back = tip[1] + (-2 * _HEAD if down else 2 * _HEAD)
    corners = points(tip, (tip[0] - _HEAD, back), (tip[0] + _HEAD, back))
    return f'<polygon class="rb-head" points="{corners}"/>'


def _box(box: Box, status: Mapping[str, Status], entered: Sequence[str]) -> Iterator[str]:
    is_now = status[box.name]
    said = f"{box.name} ({box.type}{_SAID[is_now]}). {box.comment}"
    said += f" On {box.caught}." if box.caught else ""
    bad = " rb-bad" if box.bad else ""
    yield f'<g class="rb-state rb-{is_now}{bad}" data-state={attribute(box.name)}>'
    yield f"<title>{text(said)}</title>{_shape(box)}"
    middle = box.x + box.width / 2
    first = box.y + box.height / 2 + 4.5 - LINE_HEIGHT * (len(box.lines) - 1) / 2
    if box.inner:
        first = box.y + 21
    for number, words in enumerate(box.lines):
        yield words_at(middle, first + number * LINE_HEIGHT, words, anchor="middle")
    yield "</g>"
    for layout in box.inner:
        yield from _layout(layout, status, entered)


def _shape(box: Box) -> str:
    """Return a state's outline: a choice has points, a wait is round, an end has two lines."""
    x, y, width, height = box.x, box.y, box.width, box.height
    if box.type == "Choice":
        tip = min(_POINT, height / 2)
        middle = y + height / 2
        upper = ((x, middle), (x + tip, y), (x + width - tip, y))
        lower = ((x + width, middle), (x + width - tip, y + height), (x + tip, y + height))
        return f'<polygon class="rb-box" points="{points(*upper, *lower)}"/>'
    round_by = height / 2 if box.type == "Wait" else 7
    shape = _rectangle((x, y), (width, height), round_by, "rb-box")
    if box.type in {"Succeed", "Fail", "Pass"}:
        size = (width - 2 * _INSET, height - 2 * _INSET)
        shape += _rectangle((x + _INSET, y + _INSET), size, round_by - 2, "rb-inner")
    return shape


def _rectangle(corner: Point, size: Point, round_by: float, kind: str) -> str:
    at = f'x="{corner[0]:.1f}" y="{corner[1]:.1f}"'
    wide = f'width="{size[0]:.1f}" height="{size[1]:.1f}"'
    return f'<rect class="{kind}" {at} {wide} rx="{round_by:.1f}"/>'
