"""Where the states of a machine stand in a drawing, and the lines between them. Pure.

The longest way to a good end is a straight column from top to bottom; what branches off stands in
columns left and right of it, short loops inside, long ways round outside. No line crosses a box:
lines bend between rows and pass through rows in lanes of their own. States from which no good end
is left (a hand over, a Fail) stand below.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

type View = Literal["main", "all"]
"""``main`` leaves out the states of bad ends, save those that a run has entered."""
type Point = tuple[float, float]
type _Node = str | tuple[str, str, int]
"""A state, or where the line between two states passes through a row."""

BOX_WIDTH = 158.0
LINE_HEIGHT = 16.0
_BOX_HEIGHT = 44.0
_LETTERS = 21
"""Of a state's name in one line."""
_ROW_GAP = 34.0
_BOX_GAP = 22.0
_LANE_GAP = 15.0
_INNER_PADDING = 12.0
_INNER_HEAD = 30.0
_MARGIN = 14.0
_PANEL_HEAD = 34.0
_PORTS = 0.4
"""Half the part of a box's side where lines begin and end."""
_PORT_STEP = 16.0


@dataclass(frozen=True, slots=True)
class Transition:
    """A way from one state to another; ``caught`` lists the errors of a Catch."""

    source: str
    target: str
    why: tuple[str, ...] = ()
    caught: bool = False


@dataclass(frozen=True, slots=True)
class Box:
    """A state, its left upper corner in px."""

    name: str
    type: str
    comment: str
    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]
    bad: bool = False
    """Whether no good end is left once the run is here."""
    inner: tuple[Layout, ...] = ()
    """Of a Map or Parallel: the machines in it, placed in this drawing."""
    caught: str = ""
    """What happens to its errors, in words."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line between two states: down or up through ``bends``, two for each row that it passes."""

    transition: Transition
    start: Point
    end: Point
    bends: tuple[Point, ...] = ()
    up: bool = False
    """Whether it leads back up: ``start`` is still the upper end, the arrow is there."""
    both: bool = False
    """Whether there is also a transition the other way round."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A machine in a drawing of ``width`` by ``height`` px."""

    width: float = 0
    height: float = 0
    boxes: tuple[Box, ...] = ()
    lines: tuple[Line, ...] = ()
    panel: float | None = None
    """The upper edge of what stands apart for bad ends, if anything does."""

    @property
    def every_box(self) -> tuple[Box, ...]:
        """All boxes, those inside others too."""
        inner = [b for box in self.boxes for layout in box.inner for b in layout.every_box]
        return (*self.boxes, *inner)


def place(
    definition: Mapping[str, Any], *, view: View = "main", entered: Sequence[str] = ()
) -> Layout:
    """Place a machine's states (an ASL definition as a dict) in columns and rows.

    ``entered`` are the states that a run has entered, in order: they stand in the drawing whatever
    the view, and so do the ways that it has taken.
    """
    states = definition["States"]
    ways = transitions(states)
    good = _good(states, ways)
    main = [name for name in states if name in good]
    bad = [name for name in states if name not in good and (view == "all" or name in entered)]
    boxes = {name: _box(name, states[name], ways) for name in main}
    boxes |= {name: replace(_box(name, states[name], ways), bad=bool(main)) for name in bad}
    upper = _rows(main, _drawn(ways, main, definition["StartAt"]), boxes)
    lower = _rows(bad, [way for way in ways if not way.caught], boxes)
    return _joined(upper, lower, _crossing(ways, main, bad, entered))


def transitions(states: Mapping[str, Any]) -> list[Transition]:
    """Return each pair of states that the machine may go from and to, in order, once each."""
    found: dict[tuple[str, str, bool], list[str]] = defaultdict(list)
    for name, state in states.items():
        for choice in state.get("Choices", ()):
            found[name, choice["Next"], False].append(str(choice.get("Condition", "a rule")))
        for way, why in (("Next", ""), ("Default", "otherwise")):
            if way in state:
                found[name, state[way], False].append(why)
        for catch in state.get("Catch", ()):
            found[name, catch["Next"], True] += map(str, catch["ErrorEquals"])
    return [
        Transition(source, target, tuple(filter(None, why)), caught)
        for (source, target, caught), why in found.items()
    ]


def _good(states: Mapping[str, Any], ways: Iterable[Transition]) -> set[str]:
    """Return the states that a good end can still follow without an error caught after them."""
    good = {n for n, state in states.items() if state.get("End") or state["Type"] == "Succeed"}
    if not good:
        return set(states)
    back = _followers((w.target, w.source) for w in ways if not w.caught)
    return _reached(good, back)


def _followers(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for source, target in pairs:
        found[source].append(target)
    return found


def _reached(starts: Iterable[str], following: Mapping[str, Sequence[str]]) -> set[str]:
    seen: set[str] = set()
    todo = list(starts)
    while todo:
        if (name := todo.pop()) not in seen:
            seen.add(name)
            todo += following.get(name, ())
    return seen


def _drawn(ways: Sequence[Transition], main: Collection[str], start: str) -> list[Transition]:
    """Return the transitions to draw: of errors only those that alone lead to a state."""
    within = [way for way in ways if {way.source, way.target} <= set(main)]
    plain = [way for way in within if not way.caught]
    by_itself = _reached([start], _followers((w.source, w.target) for w in plain))
    return [*plain, *(w for w in within if w.caught and w.target not in by_itself)]


def _crossing(
    ways: Iterable[Transition], main: Sequence[str], bad: Sequence[str], entered: Sequence[str]
) -> list[Transition]:
    """Return the ways from the main part to bad ends: those without an error, and those taken."""
    taken = steps(entered, (*main, *bad))
    return [
        way
        for way in ways
        if way.source in main and way.target in bad
        if not way.caught or (way.source, way.target) in taken
    ]


def steps(entered: Iterable[str], names: Collection[str]) -> set[tuple[str, str]]:
    """Return from where to where a run went among the states of one machine."""
    return set(pairwise(name for name in entered if name in names))


def failures(definition: Mapping[str, Any], entered: Sequence[str]) -> set[str]:
    """Return the states that a run has left, the last time, by an error that was caught."""
    states = definition["States"]
    ways = transitions(states)
    plain = {(way.source, way.target) for way in ways if not way.caught}
    caught = {(way.source, way.target) for way in ways if way.caught} - plain
    last = dict(pairwise(name for name in entered if name in states))
    return {source for source, target in last.items() if (source, target) in caught}


def _box(name: str, state: Mapping[str, Any], ways: Iterable[Transition]) -> Box:
    machines = [*state.get("Branches", ())]
    machines += [state[key] for key in ("ItemProcessor", "Iterator") if key in state]
    inner = tuple(place(machine, view="all") for machine in machines)
    lines = tuple(textwrap.wrap(name, _LETTERS, max_lines=3, placeholder=" …")) or (name,)
    width = BOX_WIDTH
    height = max(_BOX_HEIGHT, 14 + LINE_HEIGHT * len(lines))
    if inner:
        lines = (name,)
        wide = sum(layout.width for layout in inner) - _MARGIN * (len(inner) - 1)
        width = max(width, wide)
        height = _INNER_HEAD + max(layout.height for layout in inner) - _MARGIN
    caught = [f"{_words(w.why)}: {w.target}" for w in ways if w.caught and w.source == name]
    return Box(
        name=name,
        type=str(state["Type"]),
        comment=str(state.get("Comment", "")),
        x=0,
        y=0,
        width=width,
        height=height,
        lines=lines,
        inner=inner,
        caught="; ".join(caught),
    )


def _words(errors: Sequence[str]) -> str:
    return ", ".join("any error" if error == "States.ALL" else error for error in errors)


@dataclass(slots=True)
class _Rows:
    """A layout in the making, its straight column at x = 0."""

    layer: dict[_Node, int] = field(default_factory=dict)
    x: dict[_Node, float] = field(default_factory=dict)
    boxes: dict[str, Box] = field(default_factory=dict)
    tops: list[float] = field(default_factory=list)
    bottoms: list[float] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    left: float = 0
    right: float = 0

    @property
    def height(self) -> float:
        return self.bottoms[-1] if self.bottoms else 0


def _rows(names: Sequence[str], ways: Iterable[Transition], boxes: Mapping[str, Box]) -> _Rows:
    """Place states in rows and columns, and draw the ways among them."""
    rows = _Rows()
    if not names:
        return rows
    among = [w for w in ways if w.source in names and w.target in names and w.source != w.target]
    back = _leading_back(names, among)
    down = {
        pair: min((w.caught for w in among if (w.source, w.target) == pair), default=False)
        for pair in dict.fromkeys((w.source, w.target) for w in among)
        if pair not in back
    }
    layers = _layers(names, list(down))
    chains: dict[tuple[str, str], list[_Node]] = {
        (a, b): [a, *((a, b, row) for row in range(layers[a] + 1, layers[b])), b]
        for a, b in dict.fromkeys([*down, *((target, source) for source, target in back)])
    }
    nodes: dict[_Node, int] = {name: row for name, row in layers.items()}  # noqa: C416 -- wider keys
    nodes |= {n: n[2] for chain in chains.values() for n in chain if isinstance(n, tuple)}
    rows.layer = nodes
    column = _longest([pair for pair, caught in down.items() if not caught], layers)
    straight = [node for pair in pairwise(column) for node in chains[pair]] or [*column]
    rows.x = _columns(nodes, chains.values(), dict.fromkeys(straight), boxes)
    _measure(rows, names, boxes)
    rows.lines = _lines(rows, chains, among)
    return rows


def _leading_back(names: Sequence[str], ways: Iterable[Transition]) -> set[tuple[str, str]]:
    """Return the pairs that lead back to a state on the way that was taken to get there."""
    following = _followers((way.source, way.target) for way in ways)
    back: set[tuple[str, str]] = set()
    seen: set[str] = set()
    for start in names:
        if start in seen:
            continue
        seen.add(start)
        trail = [(start, iter(following[start]))]
        while trail:
            name, rest = trail[-1]
            target = next(rest, None)
            if target is None:
                trail.pop()
            elif any(target == passed for passed, _ in trail):
                back.add((name, target))
            elif target not in seen:
                seen.add(target)
                trail.append((target, iter(following[target])))
    return back


def _layers(names: Sequence[str], down: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return each state's row: below all that lead to it."""
    layers = dict.fromkeys(names, 0)
    for _ in names:  # as often as the longest way is long; there are no cycles in it
        for source, target in down:
            layers[target] = max(layers[target], layers[source] + 1)
    return layers


def _longest(down: Sequence[tuple[str, str]], layers: Mapping[str, int]) -> list[str]:
    """Return the longest way, by transitions."""
    following = _followers(down)
    best: dict[str, list[str]] = {}
    for name in sorted(layers, key=lambda name: -layers[name]):
        tails = [best[target] for target in following[name]]
        best[name] = [name, *max(tails, key=len, default=[])]
    return max(best.values(), key=len)


def _columns(
    nodes: Mapping[_Node, int],
    chains: Iterable[Sequence[_Node]],
    straight: Collection[_Node],
    boxes: Mapping[str, Box],
) -> dict[_Node, float]:
    """Return the x of each node's middle: the straight column at 0, groups beside it."""
    half = {n: boxes[n].width / 2 if isinstance(n, str) else 1.0 for n in nodes}
    edge = {(side, row): 0.0 for side in (-1, 1) for row in nodes.values()}
    x: dict[_Node, float] = {}
    for node in straight:
        x[node] = 0.0
        for side in (-1, 1):
            edge[side, nodes[node]] = half[node]
    for group in _groups(nodes, chains, straight):
        columns: list[dict[int, _Node]] = []
        for node in group:
            free = next((c for c in columns if nodes[node] not in c), None)
            if free is None:
                columns.append(free := {})
            free[nodes[node]] = node
        rows = {nodes[node] for node in group}
        side = min((1, -1), key=lambda s: (max(edge[s, row] for row in rows), -s))
        for column in columns:
            for part in (  # states one below the other, lanes one straight line
                {row: node for row, node in column.items() if isinstance(node, str)},
                {row: node for row, node in column.items() if not isinstance(node, str)},
            ):
                wide = max((half[node] for node in part.values()), default=0)
                gap = _BOX_GAP if wide > 1 else _LANE_GAP
                inner = max((edge[side, row] for row in part), default=0)
                for row, node in part.items():
                    x[node] = side * (inner + gap + wide)
                    edge[side, row] = inner + gap + wide + half[node]
    return x


def _groups(
    nodes: Mapping[_Node, int], chains: Iterable[Sequence[_Node]], straight: Collection[_Node]
) -> list[list[_Node]]:
    """Return what hangs together without the straight column; short groups first, lanes before."""
    beside: dict[_Node, list[_Node]] = {node: [] for node in nodes if node not in straight}
    for chain in chains:
        for one, other in pairwise(chain):
            if one in beside and other in beside:
                beside[one].append(other)
                beside[other].append(one)
    groups: list[list[_Node]] = []
    seen: set[_Node] = set()
    for start in beside:
        if start in seen:
            continue
        group: list[_Node] = []
        todo = [start]
        while todo:
            if (node := todo.pop(0)) not in seen:
                seen.add(node)
                group.append(node)
                todo += beside[node]
        groups.append(group)

    def order(group: list[_Node]) -> tuple[int, bool]:
        return len({nodes[n] for n in group}), any(isinstance(n, str) for n in group)

    return sorted(groups, key=order)


def _measure(rows: _Rows, names: Sequence[str], boxes: Mapping[str, Box]) -> None:
    """Give rows their height and boxes their place."""
    top = 0.0
    for row in range(max(rows.layer[name] for name in names) + 1):
        high = max(boxes[name].height for name in names if rows.layer[name] == row)
        rows.tops.append(top)
        rows.bottoms.append(top + high)
        top += high + _ROW_GAP
    for name in names:
        box, row = boxes[name], rows.layer[name]
        down = (rows.bottoms[row] - rows.tops[row] - box.height) / 2
        rows.boxes[name] = replace(box, x=rows.x[name] - box.width / 2, y=rows.tops[row] + down)
    rows.left = min([*(b.x for b in rows.boxes.values()), *rows.x.values()])
    rows.right = max([*(b.x + b.width for b in rows.boxes.values()), *rows.x.values()])


def _lines(
    rows: _Rows,
    chains: Mapping[tuple[str, str], Sequence[_Node]],
    ways: Iterable[Transition],
) -> list[Line]:
    drawn: dict[tuple[str, str], list[Transition]] = defaultdict(list)
    for way in ways:
        pair = (way.source, way.target)
        drawn[pair if pair in chains else pair[::-1]].append(way)
    below = _ports(rows, {pair: chains[pair] for pair in drawn}, end=0)
    above = _ports(rows, {pair: chains[pair][::-1] for pair in drawn}, end=1)
    found = []
    for pair, among in drawn.items():
        passed = chains[pair][1:-1]
        high, low = rows.boxes[pair[0]], rows.boxes[pair[1]]
        found.append(
            Line(
                transition=among[0],
                start=(below[pair], high.y + high.height),
                end=(above[pair], low.y),
                bends=tuple((rows.x[n], y) for n in passed for y in _through(rows, rows.layer[n])),
                up=among[0].source != pair[0],
                both=len({way.source for way in among}) > 1,
            )
        )
    return found


def _through(rows: _Rows, row: int) -> tuple[float, float]:
    return rows.tops[row], rows.bottoms[row]


def _ports(
    rows: _Rows, chains: Mapping[tuple[str, str], Sequence[_Node]], *, end: int
) -> dict[tuple[str, str], float]:
    """Return where on a box's side each line begins: towards where it leads, apart from others."""
    sides: dict[str, list[tuple[float, tuple[str, str]]]] = defaultdict(list)
    for pair, chain in chains.items():
        sides[pair[end]].append((rows.x[chain[1]] - rows.x[chain[0]], pair))
    ports: dict[tuple[str, str], float] = {}
    for name, leading in sides.items():
        most = rows.boxes[name].width * _PORTS
        for side in (-1, 1):
            there = sorted((side * far, pair) for far, pair in leading if side * far > 0)
            step = min(_PORT_STEP, most / max(1, len(there)))
            for number, (_, pair) in enumerate(there, 1):
                ports[pair] = rows.x[name] + side * step * number
        ports |= {pair: rows.x[name] for far, pair in leading if not far}
    return ports


def _joined(upper: _Rows, lower: _Rows, crossing: Sequence[Transition]) -> Layout:
    """Put the main part above the bad ends, with the ways between them in a lane at the right."""
    lane = max(upper.right, lower.right) + 2 * _LANE_GAP
    left = min(upper.left, lower.left)
    right = lane if crossing else max(upper.right, lower.right)
    below = upper.height + _ROW_GAP + _PANEL_HEAD if upper.boxes else _PANEL_HEAD
    at = (_MARGIN - left, _MARGIN)
    down = (at[0], at[1] + below)
    boxes = [_moved(box, at) for box in upper.boxes.values()]
    boxes += [_moved(box, down) for box in lower.boxes.values()]
    lines = [_moved_line(line, at) for line in upper.lines]
    lines += [_moved_line(line, down) for line in lower.lines]
    placed = {box.name: box for box in boxes}
    for way in crossing:
        high, low = placed[way.source], placed[way.target]
        row = upper.layer[way.source]
        x = lane + at[0]
        begin = (upper.tops[row + 1] if row + 1 < len(upper.tops) else below - 8) + at[1]
        until = lower.tops[lower.layer[way.target]] + down[1] - _ROW_GAP * 0.6
        lines.append(
            Line(
                transition=way,
                start=(high.x + high.width * (0.5 + _PORTS), high.y + high.height),
                end=(low.x + low.width * (0.5 + _PORTS), low.y),
                bends=((x, begin), (x, max(begin, until))),
            )
        )
    height = (down[1] + lower.height if lower.boxes else at[1] + upper.height) + _MARGIN
    return Layout(
        width=right - left + 2 * _MARGIN,
        height=height,
        boxes=tuple(boxes),
        lines=tuple(lines),
        panel=down[1] - _PANEL_HEAD if lower.boxes and upper.boxes else None,
    )


def _moved(box: Box, by: Point) -> Box:
    """Move a box, and what is in it to where it then is."""
    moved = replace(box, x=box.x + by[0], y=box.y + by[1])
    inner = []
    wide = sum(layout.width for layout in box.inner) - _MARGIN * (len(box.inner) - 1)
    x = moved.x + (moved.width - wide) / 2
    for layout in box.inner:
        to = (x, moved.y + _INNER_HEAD - _MARGIN)
        inner.append(
            replace(
                layout,
                boxes=tuple(_shifted(b, to) for b in layout.boxes),
                lines=tuple(_moved_line(line, to) for line in layout.lines),
                panel=None if layout.panel is None else layout.panel + to[1],
            )
        )
        x += layout.width - _MARGIN
    return replace(moved, inner=tuple(inner))


def _shifted(box: Box, by: Point) -> Box:
    """Move a box whose inner machines are placed already."""
    return replace(
        box,
        x=box.x + by[0],
        y=box.y + by[1],
        inner=tuple(
            replace(
                layout,
                boxes=tuple(_shifted(b, by) for b in layout.boxes),
                lines=tuple(_moved_line(line, by) for line in layout.lines),
            )
            for layout in box.inner
        ),
    )


def _moved_line(line: Line, by: Point) -> Line:
    def to(point: Point) -> Point:
        return point[0] + by[0], point[1] + by[1]

    return replace(line, start=to(line.start), end=to(line.end), bends=tuple(map(to, line.bends)))
