import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from oncall.machine_layout import Box, Layout, Line, View, place, transitions
from oncall.machine_svg import machine_svg
from oncall.svg import _DARK, _LIGHT, stylesheet
from tests.unit.pictures import SVG, parsed

ROOT = Path(__file__).parents[2]
MACHINES = {
    path.name.removesuffix(".asl.yaml"): yaml.safe_load(path.read_text())
    for path in sorted((ROOT / "statemachines").glob("*.asl.yaml"))
}
NASTY = '</title><script>alert("1")</script> & \x07'
RUN = (
    "Open incident",
    "Inspect queue",
    "Plan relief",
    "Only to observe?",
    "What is next?",
    "Set mapping concurrency",
    "What is next?",
    "Wait for the next look",
    "Look whether it helps",
)
BAD_END = ("Put everything back", "Hand over", "Close unresolved incident", "Not resolved")


@pytest.mark.parametrize("view", ["main", "all"])
@pytest.mark.parametrize("name", MACHINES)
def test_every_machine_has_a_clear_picture(name: str, view: View) -> None:
    assert_clear(place(MACHINES[name], view=view))


@pytest.mark.parametrize("name", MACHINES)
def test_every_machine_fits_a_column_of_1000_px(name: str) -> None:
    assert place(MACHINES[name], view="all").width <= 1000


@pytest.mark.parametrize("name", MACHINES)
def test_the_view_of_all_has_every_state(name: str) -> None:
    assert sorted(drawn(machine_svg(MACHINES[name], view="all"))) == sorted(states(MACHINES[name]))


def test_the_main_view_leaves_out_bad_ends_and_no_more() -> None:
    machine = MACHINES["queue-saturation"]
    left_out = set(states(machine)) - set(drawn(machine_svg(machine)))
    assert left_out == {*BAD_END, "Lock lost", "Not closed", "Not opened"}


def test_a_machine_without_a_good_end_is_drawn_whole() -> None:
    machine = {
        "StartAt": "a",
        "States": {"a": {"Type": "Task", "Next": "b"}, "b": {"Type": "Fail"}},
    }
    assert set(drawn(machine_svg(machine))) == {"a", "b"}


def test_a_run_that_failed_is_drawn_to_its_end_in_the_main_view() -> None:
    svg = machine_svg(MACHINES["queue-saturation"], entered=(*RUN, *BAD_END))
    shown = drawn(svg)
    assert set(BAD_END) < set(shown)
    assert "Lock lost" not in shown
    assert shown["Hand over"] == {"rb-state", "rb-done", "rb-bad"}
    assert "rb-failed" in shown["Not resolved"]
    assert "Look whether it helps → Put everything back" in taken(svg)
    assert_clear(place(MACHINES["queue-saturation"], entered=(*RUN, *BAD_END)))


def test_a_state_that_was_left_by_an_error_has_failed_until_it_is_left_otherwise() -> None:
    machine = MACHINES["queue-saturation"]
    moved = (*RUN[:6], "Put back and look again", "Inspect queue", "Plan relief")
    assert "rb-failed" in drawn(machine_svg(machine, entered=moved))["Set mapping concurrency"]
    again = (*moved, *RUN[3:])
    assert "rb-done" in drawn(machine_svg(machine, entered=again))["Set mapping concurrency"]
    helped = (*RUN, "Has it helped?", "Put back and look again")
    assert "rb-failed" not in drawn(machine_svg(machine, entered=helped))["Has it helped?"]


def test_states_and_ways_of_a_run_are_told_apart() -> None:
    machine = MACHINES["queue-saturation"]
    svg = machine_svg(machine, entered=RUN, current=RUN[-1], failed=["Plan relief"])
    shown = drawn(svg)
    assert "rb-current" in shown["Look whether it helps"]
    assert "rb-failed" in shown["Plan relief"]
    assert "rb-done" in shown["Inspect queue"]
    assert "rb-new" in shown["Ask on-call"]
    assert "Plan relief → Only to observe?" in taken(svg)
    assert not any(way.startswith("Only to observe? → Ask on-call") for way in taken(svg))
    description = parsed(svg).findtext(f"{SVG}desc") or ""
    assert "It is in Look whether it helps." in description


def test_a_state_tells_its_comment_and_where_its_errors_lead() -> None:
    root = parsed(machine_svg(MACHINES["queue-saturation"]))
    said = next(
        group.findtext(f"{SVG}title") or ""
        for group in root.iter(f"{SVG}g")
        if group.get("data-state") == "Set mapping concurrency"
    )
    assert "update-event-source-mapping" in said
    assert "WorldMoved: Put back and look again" in said


def test_the_machine_inside_a_map_is_drawn_in_its_box() -> None:
    svg = machine_svg(
        MACHINES["dlq-replay"], entered=["Replay a round", "Move dead letters", "Hand over"]
    )
    assert "rb-done" in drawn(svg)["Move dead letters"]
    boxes = {box.name: box for box in place(MACHINES["dlq-replay"]).every_box}
    assert inside(boxes["Move dead letters"], boxes["Replay a round"])


def test_text_from_outside_stays_text() -> None:
    machine = {
        "StartAt": NASTY,
        "States": {
            NASTY: {
                "Type": "Task",
                "Comment": NASTY,
                "Next": "b",
                "Catch": [{"ErrorEquals": [NASTY], "Next": "b"}],
            },
            "b": {"Type": "Choice", "Choices": [{"Condition": NASTY, "Next": "c"}]},
            "c": {"Type": "Succeed"},
        },
    }
    svg = machine_svg(machine, title=NASTY, entered=[NASTY], failed=[NASTY])
    assert "<script" not in svg
    assert 'alert("1")' in (parsed(svg).findtext(f"{SVG}title") or "")


def test_a_widget_may_show_it_as_it_is() -> None:
    svg = machine_svg(MACHINES["dlq-replay"], view="all")
    assert not re.search(r"<(script|use|iframe|foreignObject|image|a)\b", svg)
    assert not re.search(r"\b(id|href|on\w+)=|url\(", svg)
    assert parsed(svg).get("role") == "img"


def test_a_page_with_the_stylesheet_draws_without_style() -> None:
    assert "<style>" not in machine_svg(MACHINES["wind-down"], theme=None)
    assert f"<style>{stylesheet('dark')}</style>" in machine_svg(
        MACHINES["wind-down"], theme="dark"
    )


@pytest.mark.parametrize("colours", [_LIGHT, _DARK], ids=["light", "dark"])
def test_colours_have_contrast(colours: Mapping[str, str]) -> None:
    for name in ("text", "muted", "done", "current", "failed", "warn"):
        assert contrast(colours[name], colours["ground"]) >= 4.5, name
    for name in ("box", "done-box", "current-box", "failed-box", "warn-box"):
        assert contrast(colours["text"], colours[name]) >= 4.5, name
        assert contrast(colours["muted"], colours["box"]) >= 4.5
    for number in range(4):
        assert contrast(colours[f"series-{number}"], colours["ground"]) >= 4.5
    assert contrast(colours["line"], colours["ground"]) >= 3


@st.composite
def machines(draw: st.DrawFn) -> Mapping[str, Any]:
    names = [f"State {number}" for number in range(draw(st.integers(1, 14)))]
    some = st.lists(st.sampled_from(names), max_size=3)
    found: dict[str, Any] = {}
    for name in names:
        targets = draw(some)
        found[name] = {"Type": "Task", "End": True}
        if targets:
            found[name] = {
                "Type": "Choice",
                "Default": targets[0],
                "Choices": [{"Condition": "{% x %}", "Next": target} for target in targets[1:]],
            }
        found[name]["Catch"] = [{"ErrorEquals": ["States.ALL"], "Next": t} for t in draw(some)]
    return {"StartAt": names[0], "States": found}


@given(machines(), st.sampled_from(["main", "all"]), st.lists(st.integers(0, 13), max_size=9))
def test_any_machine_has_a_clear_picture(
    machine: Mapping[str, Any], view: View, walk: list[int]
) -> None:
    entered = [f"State {number}" for number in walk if f"State {number}" in machine["States"]]
    layout = place(machine, view=view, entered=entered)
    assert_clear(layout)
    assert set(entered) <= {box.name for box in layout.boxes}
    if view == "all":
        assert {box.name for box in layout.boxes} == set(machine["States"])
    svg = machine_svg(machine, view=view, entered=entered)
    parsed(svg)
    assert svg == machine_svg(machine, view=view, entered=entered)


@given(machines())
def test_each_way_without_an_error_is_drawn(machine: Mapping[str, Any]) -> None:
    layout = place(machine, view="all")
    lines = {(w.source, w.target) for w in (line.transition for line in layout.lines)}
    lines |= {pair[::-1] for pair in lines}
    bad = {box.name for box in layout.boxes if box.bad}
    for way in transitions(machine["States"]):
        if not way.caught and way.source != way.target:
            assert (way.source, way.target) in lines, (way, bad)


def states(machine: Mapping[str, Any]) -> Iterator[str]:
    for name, state in machine["States"].items():
        yield name
        if "ItemProcessor" in state:
            yield from states(state["ItemProcessor"])


def drawn(svg: str) -> dict[str, set[str]]:
    return {
        str(group.get("data-state")): set(str(group.get("class")).split())
        for group in parsed(svg).iter(f"{SVG}g")
        if group.get("data-state")
    }


def taken(svg: str) -> set[str]:
    return {
        (group.findtext(f"{SVG}title") or "").split(": ")[0]
        for group in parsed(svg).iter(f"{SVG}g")
        if "rb-taken" in str(group.get("class"))
    }


def inside(box: Box, other: Box) -> bool:
    return (
        other.x <= box.x
        and other.y <= box.y
        and box.x + box.width <= other.x + other.width
        and box.y + box.height <= other.y + other.height
    )


def assert_clear(layout: Layout) -> None:
    """No two boxes overlap, no line crosses one, all is within the picture."""
    for one, other in combinations(layout.boxes, 2):
        apart = (
            one.x + one.width < other.x
            or other.x + other.width < one.x
            or one.y + one.height < other.y
            or other.y + other.height < one.y
        )
        assert apart, (one.name, other.name)
    for box in layout.boxes:
        assert box.x >= 0
        assert box.x + box.width <= layout.width
        assert box.y >= 0
        assert box.y + box.height <= layout.height
        for inner in box.inner:
            assert_clear_inside(inner, box)
    for line in layout.lines:
        for x, y in sampled(line):
            assert 0 <= x <= layout.width
            crossed = [
                box.name
                for box in layout.boxes
                if box.x + 1 < x < box.x + box.width - 1 and box.y + 1 < y < box.y + box.height - 1
            ]
            assert not crossed, (line.transition, crossed)


def assert_clear_inside(layout: Layout, outer: Box) -> None:
    assert all(inside(box, outer) for box in layout.boxes)


def sampled(line: Line) -> Iterator[tuple[float, float]]:
    """Points of the line as drawn: curves with upright tangents, straight through rows."""
    stops = [line.start, *line.bends, line.end]
    for number in range(0, len(stops) - 1, 2):
        (x0, y0), (x1, y1) = stops[number], stops[number + 1]
        bend = (y1 - y0) * 0.55
        for step in range(21):
            t = step / 20
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            ys = (y0, y0 + bend, y1 - bend, y1)
            yield (
                sum(w * x for w, x in zip(weights, (x0, x0, x1, x1), strict=True)),
                sum(w * y for w, y in zip(weights, ys, strict=True)),
            )
        if number + 2 < len(stops):
            x, low = stops[number + 2]
            yield from ((x, y1 + (low - y1) * part / 10) for part in range(11))


def contrast(one: str, other: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)
