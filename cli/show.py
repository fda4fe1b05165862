"""How the command line prints: tables for people, JSON for programs, lines for grep."""

from __future__ import annotations

import json
from collections.abc import Sized
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from oncall.texts import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_WIDE = 220
"""Columns of a table that goes into a file or a pipe: nothing is folded."""
_LONGEST = 20_000
_LABEL = 17
_NEW_LINE = "⏎"


def safe(text: object) -> str:
    """Return one line that a terminal cannot take for commands of its own."""
    return clean(text, _LONGEST)


def safe_lines(text: object) -> list[str]:
    """Return the lines of a text, each safe."""
    return [safe(line) for line in str(text).splitlines() if line.strip()]


def out() -> Console:
    """Return the console of stdout; rich leaves colour out for NO_COLOR, files and pipes."""
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(width=_WIDE, highlight=False, markup=False)


def say(sentence: str) -> None:
    """Talk to whoever watches; stdout is for what was asked for."""
    click.echo(sentence, err=True)


def document(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def lines(rows: Iterable[Sequence[object]]) -> None:
    """Print a line for each row, its fields separated by tabs; what is unknown is empty."""
    for row in rows:
        click.echo("\t".join(field(value) for value in row))


def field(value: object) -> str:
    """Return a value as a field of a line; its own lines are told apart by ``⏎``."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f" {_NEW_LINE} ".join(safe_lines(value))


def paragraph(first: str, rest: Iterable[str] = ()) -> None:
    """Print a sentence and what belongs to it, each on a line of its own."""
    for line in (first, *rest):
        out().print(Text(line), soft_wrap=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table; cells are text, never markup."""
    made = Table(box=None, pad_edge=False)
    for heading in headings:
        made.add_column(heading, overflow="fold")
    for row in rows:
        made.add_row(*row)
    out().print(made)


def overview(rows: Sequence[Mapping[str, Any]], output: str) -> None:
    """Print rows that have the same keys, which are the table's headings."""
    if output == "json":
        document(rows)
    elif output == "text":
        lines(list(row.values()) for row in rows)
    else:
        headings = list(rows[0]) if rows else ()
        table(headings, [[field(value) for value in row.values()] for row in rows])


def sections(about: Mapping[str, Any], titles: Mapping[str, str], output: str) -> None:
    """Print a document of text, lists and lists of mappings; what is empty is left out.

    ``titles`` names and orders the sections of the table. In lines, the first field is the key.
    """
    if output == "json":
        document(about)
        return
    if output == "text":
        for key, value in about.items():
            lines((key, *row) for row in _rows(value))
        return
    console = out()
    for key, title in titles.items():
        if not _empty(about.get(key)):
            console.print(Text(title, style="bold"))
            for line in _section(about[key]):
                # A command stays in one piece, so that it can be copied.
                if isinstance(line, _Whole) or "`" in line.plain or not console.is_terminal:
                    console.print(Text("  ") + line, soft_wrap=True)
                else:
                    console.print(Padding(line, (0, 0, 0, 2)))


class _Whole(Text):
    """A line that is not folded."""


def _rows(value: Any) -> list[tuple[object, ...]]:
    """Return the fields of each line that a value makes."""
    if isinstance(value, dict):
        return [(key, *row) for key, one in value.items() for row in _rows(one)]
    if isinstance(value, list | tuple):
        return [tuple(one.values()) if isinstance(one, dict) else (one,) for one in value]
    return [] if value in {None, ""} else [(value,)]


def _section(value: Any) -> list[Text]:
    if isinstance(value, dict):
        return [_labelled(key, one) for key, one in value.items() if not _empty(one)]
    if not isinstance(value, list | tuple):
        return [Text(safe(value))]
    found: list[Text] = []
    for one in value:
        found += _block(one) if isinstance(one, dict) else [Text(f"• {safe(one)}")]
    return found


def _block(item: Mapping[str, Any]) -> list[Text]:
    """Show a mapping as its first value, and the rest below it."""
    (_, first), *rest = item.items()
    named = _Whole.assemble((safe(first), "cyan"))
    return [named, *(_labelled(key, one, indent=4) for key, one in rest if not _empty(one))]


def _labelled(key: str, value: Any, indent: int = 0) -> Text:
    """Show a value beside its label; each of its lines, which may be a command, on its own."""
    words = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
    shown = ["yes"] if words is True else safe_lines(words)
    label = (f"{key.replace('_', ' '):<{_LABEL}}", "dim")
    # Two spaces more: whoever prints the first line indents it.
    below = "\n" + " " * (2 + indent + _LABEL)
    return _Whole.assemble(" " * indent, label, below.join(shown))


def _empty(value: Any) -> bool:
    """Whether there is nothing to say; 0 is something."""
    return value is None or value is False or (isinstance(value, Sized) and not len(value))
