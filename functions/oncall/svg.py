"""What all drawings share: text made safe for XML, colours for light and dark, the frame. Pure.

A drawing is used in a page, a report, a README and a CloudWatch custom widget. That last one
removes scripts, ``<iframe>`` and ``<use>`` and keeps ``<style>`` and SVG
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard_security.html,
…/add_custom_widget_dashboard_about.html), so nothing here has an id, refers to one, or needs more
than presentation attributes and rules for classes that start with ``rb-``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from xml.sax.saxutils import escape, quoteattr

from oncall.texts import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

type Theme = Literal["auto", "light", "dark"]
"""``auto`` follows the reader's ``prefers-color-scheme``; a custom widget is told which it is."""

_FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
_WIDTHS = {"narrow": frozenset("fijlrtI.,:;'|!()[] "), "wide": frozenset("mwMWQOG@%")}

# Text has a contrast of at least 4.5 to its ground, a line that carries meaning 3 (WCAG 2.2).
_LIGHT = {
    "ground": "#ffffff",
    "text": "#1c2430",
    "muted": "#5b6675",
    "line": "#8a94a3",
    "faint": "#dde2e9",
    "box": "#f4f6f9",
    "done": "#1a7f45",
    "done-box": "#e3f5ea",
    "current": "#1d5fd1",
    "current-box": "#dce9ff",
    "failed": "#c0281f",
    "failed-box": "#fde8e6",
    "warn": "#9a5b00",
    "warn-box": "#fdf0d9",
    "series-0": "#1d5fd1",
    "series-1": "#b0471d",
    "series-2": "#6b3fc4",
    "series-3": "#0b7a75",
}
_DARK = {
    "ground": "#12161d",
    "text": "#e8ecf2",
    "muted": "#a3aebd",
    "line": "#74808f",
    "faint": "#2c3440",
    "box": "#1c232d",
    "done": "#4cc57f",
    "done-box": "#12331f",
    "current": "#7db0ff",
    "current-box": "#17305c",
    "failed": "#ff8a80",
    "failed-box": "#45191a",
    "warn": "#f0b44c",
    "warn-box": "#3d2c0c",
    "series-0": "#7db0ff",
    "series-1": "#ffa374",
    "series-2": "#c3a6ff",
    "series-3": "#58cfc8",
}

# `{name}` stands for a colour; a literal one for each theme, as not every renderer knows var().
_RULES = """\
.rb-ground{{fill:{ground}}}
.rb-text{{fill:{text};font:13px {font}}}
.rb-small{{fill:{muted};font:11px {font}}}
.rb-strong{{font-weight:600}}
.rb-box{{fill:{box};stroke:{line};stroke-width:1.2}}
.rb-inner{{fill:none;stroke:{line};stroke-width:1}}
.rb-edge{{fill:none;stroke:{line};stroke-width:1.3}}
.rb-head{{fill:{line}}}
.rb-caught{{stroke-dasharray:4 4}}
.rb-new .rb-text{{fill:{muted}}}
.rb-done .rb-box{{fill:{done-box};stroke:{done};stroke-width:1.6}}
.rb-current .rb-box{{fill:{current-box};stroke:{current};stroke-width:3}}
.rb-bad.rb-done .rb-box{{fill:{warn-box};stroke:{warn}}}
.rb-failed .rb-box{{fill:{failed-box};stroke:{failed};stroke-width:2}}
.rb-taken .rb-edge{{stroke:{done};stroke-width:2.2}}
.rb-taken .rb-head{{fill:{done}}}
.rb-taken.rb-bad .rb-edge{{stroke:{warn}}}
.rb-taken.rb-bad .rb-head{{fill:{warn}}}
.rb-grid{{stroke:{faint};stroke-width:1}}
.rb-axis{{stroke:{line};stroke-width:1}}
.rb-limit{{fill:none;stroke:{failed};stroke-width:1.3;stroke-dasharray:6 4}}
.rb-limit-text{{fill:{failed};font:11px {font}}}
.rb-mark{{stroke:{muted};stroke-width:1.2}}
.rb-mark-text{{fill:{text};font:11px {font}}}
.rb-mark-alarm .rb-mark{{stroke:{failed}}}
.rb-mark-alarm .rb-mark-text{{fill:{failed}}}
.rb-mark-change .rb-mark{{stroke:{current}}}
.rb-mark-change .rb-mark-text{{fill:{current}}}
.rb-mark-undo .rb-mark{{stroke:{warn}}}
.rb-mark-undo .rb-mark-text{{fill:{warn}}}
.rb-mark-proof .rb-mark{{stroke:{done}}}
.rb-mark-proof .rb-mark-text{{fill:{done}}}
.rb-series{{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}}
.rb-series-0{{stroke:{series-0}}}.rb-dot-0{{fill:{series-0}}}
.rb-series-1{{stroke:{series-1}}}.rb-dot-1{{fill:{series-1}}}
.rb-series-2{{stroke:{series-2}}}.rb-dot-2{{fill:{series-2}}}
.rb-series-3{{stroke:{series-3}}}.rb-dot-3{{fill:{series-3}}}
"""


def stylesheet(theme: Theme = "auto") -> str:
    """Return the rules that every drawing needs, for a page that draws without ``<style>``."""
    if theme != "auto":
        return _rules(_DARK if theme == "dark" else _LIGHT)
    return f"{_rules(_LIGHT)}@media (prefers-color-scheme:dark){{{_rules(_DARK)}}}"


def _rules(colours: Mapping[str, str]) -> str:
    return _RULES.format(font=_FONT, **colours).replace("\n", "")


def drawing(
    body: Iterable[str],
    *,
    size: tuple[float, float],
    label: str,
    description: str,
    theme: Theme | None,
) -> str:
    """Return a whole SVG: ``label`` is its name for a screen reader. ``theme`` None: no style."""
    width, height = (_number(length) for length in size)
    style = f"<style>{stylesheet(theme)}</style>" if theme else ""
    # A page with a stylesheet of its own may forbid styles in attributes.
    fits = ' style="max-width:100%;height:auto"' if theme else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"{fits} '
        f'role="img" aria-label={attribute(label)}>'
        f"<title>{text(label)}</title><desc>{text(description, 4_000)}</desc>{style}"
        f'<rect class="rb-ground" width="{width}" height="{height}" rx="8"/>'
        f"{''.join(body)}</svg>"
    )


def text(words: object, limit: int = 1_200) -> str:
    """Return text from anywhere as character data."""
    return escape(clean(words, limit))


def attribute(words: object) -> str:
    """Return text from anywhere as an attribute's value, with its quotes."""
    return quoteattr(clean(words))


def words_at(
    x: float, y: float, words: object, kind: str = "rb-text", anchor: str = "start"
) -> str:
    """Return a line of text with its baseline at ``y``."""
    at = f'x="{_number(x)}" y="{_number(y)}"'
    return f'<text {at} class="{kind}" text-anchor="{anchor}">{text(words)}</text>'


def points(*pairs: tuple[float, float]) -> str:
    """Write points as SVG does: ``1,2 3,4``."""
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in pairs)


def width_of(words: str, size: float = 13) -> float:
    """Estimate how wide a line of text is, in px; a little too much rather than too little."""
    narrow = sum(letter in _WIDTHS["narrow"] for letter in words)
    wide = sum(letter in _WIDTHS["wide"] or letter > "ɏ" for letter in words)
    return size * (0.33 * narrow + 0.95 * wide + 0.58 * (len(words) - narrow - wide))


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
