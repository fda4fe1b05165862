"""Read the comments of a YAML document, which parsers drop: a comment above an item explains it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

type Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """A key of a mapping or an item of a list."""

    path: Path
    """Keys and, in lists, indexes, e.g. `("limits", "max_factor")`."""
    scalar: str
    """The value as it is written, "" where it is no scalar."""
    comment: str
    """The comment lines right above it as one line, "" where there are none."""


def items(text: str) -> Iterator[Item]:
    """Yield the items of a document, those within others too."""
    lines = text.splitlines()
    for path, line, value in _items(yaml.compose(text, Loader=yaml.SafeLoader), ()):
        scalar = value.value if isinstance(value, ScalarNode) else ""
        yield Item(path, scalar, _comment(lines, line))


def above(text: str) -> Mapping[Path, str]:
    """Return the comment above each item that has one."""
    return {item.path: item.comment for item in items(text) if item.comment}


def _items(node: Node | None, path: Path) -> Iterator[tuple[Path, int, Node]]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield (*path, key.value), key.start_mark.line, value
            yield from _items(value, (*path, key.value))
    elif isinstance(node, SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark.line, value
            yield from _items(value, (*path, index))


def _comment(lines: Sequence[str], line: int) -> str:
    found: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].strip().lstrip("# "))
    return " ".join(found)
