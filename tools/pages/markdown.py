"""Markdown as GitHub shows it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

# What a line of instructions begins with when it is a command, and when that only reads.
_COMMAND = re.compile(r"(aws|curl|dig|\./runbook) ")
_READ = re.compile(
    r"curl |dig |\./runbook (doctor|report) |aws s3 (ls |cp \S+ - )|aws \S+ (describe|get|list)-"
)


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
    """Return commands and sentences, one a line, as blocks to copy and paragraphs.

    A command that changes something is copied by itself, so that nobody runs what is its opposite.
    """
    return "\n\n".join(
        shell(some) if one >= 0 else "\n\n".join(some)
        for one, some in ((key, [line for _, line in pairs]) for key, pairs in _blocks(lines))
    )


def _blocks(lines: Iterable[str]) -> Iterator[tuple[int, Iterator[tuple[int, str]]]]:
    """Group lines: sentences under -1, reads under 0, each other command under its own number."""

    def block(pair: tuple[int, str]) -> int:
        number, line = pair
        if not is_command(line):
            return -1
        return 0 if _READ.match(line) else number

    return groupby(enumerate(lines, 1), key=block)


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
