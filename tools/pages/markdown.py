"""Markdown as GitHub shows it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

# What a line of instructions begins with when it is a command.
_COMMAND = re.compile(r"(aws|curl|dig|\./runbook) ")


def generated(*sources: str) -> str:
    """Return the first line of a page."""
    return f"<!-- Written by `make pages` from {', '.join(sources)}: edit those, not this. -->"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def cell(text: str) -> str:
    """Return text that stays within its cell."""
    return " ".join(text.split()).replace("|", "\\|")


def bullets(texts: Iterable[str]) -> str:
    """Return a list."""
    return "\n".join(f"- {text}" for text in texts)


def code(text: str) -> str:
    """Return text as code within a line."""
    return f"`{text}`"


def shell(commands: Iterable[str]) -> str:
    """Return commands that can be copied together."""
    return "\n".join(["```sh", *commands, "```"])


def instructions(lines: Iterable[str]) -> str:
    """Return commands and sentences, one a line, as blocks to copy and paragraphs."""
    return "\n\n".join(
        shell(some) if command else "\n\n".join(some)
        for command, some in groupby(lines, key=is_command)
    )


def is_command(line: str) -> bool:
    """Tell a command from a sentence."""
    return _COMMAND.match(line) is not None


def anchor(heading: str) -> str:
    """Return GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def page(parts: Iterable[str]) -> str:
    """Return the parts of a page, one below the other."""
    return "\n\n".join(filter(None, _stripped(parts))) + "\n"


def _stripped(parts: Iterable[str]) -> Iterator[str]:
    for part in parts:
        yield part.strip("\n")
