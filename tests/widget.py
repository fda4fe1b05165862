"""The dashboard's widget, read as a browser would: its words, fields and what its buttons do.

As strict as a test may be: tags are balanced, and none but those that the widget writes itself.
"""

import json
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

_HTML = frozenset(
    ["style", "div", "h3", "p", "b", "br", "span", "table", "tr", "th", "td", "a", "input"]
)
_OURS = frozenset(["cwdb-action", "details", "summary", "pre"])
_SVG = frozenset(
    ["svg", "title", "desc", "g", "path", "rect", "polygon", "text", "tspan", "circle", "line"]
)
_ALLOWED = _HTML | _OURS | _SVG
_VOID = frozenset({"br", "input"})

type Json = dict[str, Any]


@dataclass
class Action:
    """What a click does."""

    label: str
    endpoint: str
    confirmation: str
    payload: Json


class Widget(HTMLParser):
    """One answer of the widget's function, or of a function that a button has called."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.actions: list[Action] = []
        self.fields: dict[str, str] = {}
        self.tags: set[str] = set()
        self.words: list[str] = []
        self._open: list[str] = []
        self._label = ""
        self._attributes: dict[str, str] = {}
        self._json = ""
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _ALLOWED, f"a <{tag}> that nobody wrote"
        given = {name: value or "" for name, value in attrs}
        assert not [name for name in given if name.startswith("on")]
        assert not [v for v in given.values() if v.lower().startswith("javascript:")]
        self.tags.add(tag)
        if tag == "input":
            self.fields[given["name"]] = ""
        if tag == "cwdb-action":
            self._attributes, self._json = given, ""
        if tag == "a":
            self._label = ""
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _ALLOWED, f"a <{tag}> that nobody wrote"

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "cwdb-action":
            self.actions.append(
                Action(
                    self._label,
                    self._attributes["endpoint"],
                    self._attributes["confirmation"],
                    json.loads(self._json),
                )
            )

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["cwdb-action"]:
            self._json += data
            return
        if self._open[-1:] == ["a"]:
            self._label += data
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def action(self, label: str, **payload: str) -> Action:
        [found] = [
            one
            for one in self.actions
            if one.label == label and payload.items() <= one.payload.items()
        ]
        return found
