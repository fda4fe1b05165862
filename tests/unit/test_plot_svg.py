import math
from datetime import UTC, datetime, timedelta
from itertools import combinations, pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncall.plot_svg import Mark, Series, plot_svg
from oncall.svg import width_of
from tests.unit.pictures import SVG, parsed

START = datetime(2026, 11, 27, 3, 12, 7, tzinfo=UTC)
DEPTH = Series("waiting", [(START + timedelta(seconds=n), 10.0 * n) for n in range(40)])


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter(f"{SVG}text")]


def of_class(svg: str, kind: str) -> list[ET.Element]:
    return [e for e in parsed(svg).iter() if kind in str(e.get("class")).split()]


def test_a_plot_tells_its_unit_times_and_threshold() -> None:
    svg = plot_svg(
        [DEPTH], title="Queue orders", unit="messages", threshold=100, threshold_label="alarm > 100"
    )
    said = texts(svg)
    assert "Queue orders, messages" in said
    assert "03:12:20" in said
    assert "UTC" in said
    assert "alarm > 100" in said
    assert "400" not in said[-1:]
    assert "0" in said


def test_values_stand_where_the_axis_says() -> None:
    svg = plot_svg([DEPTH], title="q")
    (line,) = of_class(svg, "rb-series")
    ys = [float(pair.split(",")[1]) for pair in str(line.get("points")).split()]
    (axis,) = [e for e in of_class(svg, "rb-axis") if " " in str(e.get("points"))][:1]
    assert ys[0] == float(str(axis.get("points")).split()[0].split(",")[1])
    assert ys == sorted(ys, reverse=True)


def test_nothing_to_show_is_said() -> None:
    assert "No data yet" in texts(plot_svg([], title="q"))
    assert "No data yet" in texts(plot_svg([Series("a", [(START, None)])], title="q"))


def test_one_point_is_a_dot() -> None:
    svg = plot_svg([Series("a", [(START, 3)])], title="q")
    assert len(of_class(svg, "rb-dot-0")) == 1
    assert not of_class(svg, "rb-series")


def test_a_gap_interrupts_the_line() -> None:
    values: list[tuple[datetime, float | None]] = [(at(n), 5.0) for n in range(9)]
    values[4] = (at(4), None)
    values[7] = (at(7), math.nan)
    svg = plot_svg([Series("a", values)], title="q")
    assert len(of_class(svg, "rb-series")) == 2
    assert len(of_class(svg, "rb-dot-0")) == 1


def test_a_setting_is_drawn_in_steps() -> None:
    svg = plot_svg([Series("cap", [(at(0), 2), (at(9), 5)], stepped=True)], title="q")
    (line,) = of_class(svg, "rb-series")
    pairs = [tuple(map(float, p.split(","))) for p in str(line.get("points")).split()]
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(pairs))


def test_what_is_not_in_the_times_shown_is_left_out() -> None:
    svg = plot_svg([DEPTH], [Mark(at(30), "late", "alarm")], title="q", start=at(0), end=at(20))
    assert "late" not in texts(svg)


def test_text_from_outside_stays_text() -> None:
    nasty = "</text><script>x</script>"
    svg = plot_svg(
        [Series(nasty, [(START, 1)]), DEPTH],
        [Mark(START, nasty)],
        title=nasty,
        unit=nasty,
        threshold=1,
        threshold_label=nasty,
    )
    assert "<script" not in svg
    parsed(svg)


def test_a_screen_reader_hears_what_is_to_be_seen() -> None:
    svg = plot_svg([DEPTH], [Mark(at(20), "alarm", "alarm")], title="Queue", threshold=100)
    root = parsed(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Queue"
    described = root.findtext(f"{SVG}desc") or ""
    assert "at most 390" in described
    assert "03:12:27 alarm." in described


@pytest.mark.parametrize("seconds", [1, 40, 900, 5_000, 90_000, 900_000])
def test_clock_times_do_not_overlap(seconds: int) -> None:
    svg = plot_svg([Series("a", [(at(0), 1), (at(seconds), 2)])], title="q")
    times = [e for e in parsed(svg).iter(f"{SVG}text") if ":" in (e.text or "") or e.text == "UTC"]
    assert times
    assert_apart(times)


@given(
    st.lists(st.tuples(st.floats(0, 60), st.text("abc mW", min_size=1, max_size=25)), max_size=12)
)
def test_labels_of_marks_never_overlap(marks: list[tuple[float, str]]) -> None:
    svg = plot_svg(
        [Series("a", [(at(0), 1), (at(60), 2)])],
        [Mark(at(seconds), label, "change") for seconds, label in marks],
        title="q",
    )
    labels = of_class(svg, "rb-mark-text")
    assert len(labels) == len(marks)
    assert_apart(labels)


def assert_apart(labels: list[ET.Element]) -> None:
    def span(label: ET.Element) -> tuple[float, float]:
        x, wide = float(str(label.get("x"))), width_of(label.text or "", 11)
        part = {"start": 0.0, "middle": 0.5, "end": 1.0}[str(label.get("text-anchor"))]
        return x - wide * part, x + wide * (1 - part)

    for one, other in combinations(labels, 2):
        if one.get("y") == other.get("y"):
            (a, b), (c, d) = span(one), span(other)
            assert b <= c + 0.1 or d <= a + 0.1, (one.text, other.text)
