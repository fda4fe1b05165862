"""How a bridge goes in and out."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

_ABSENT = object()
_taken: set[tuple[int, str]] = set()


class Bridge:
    """Replacements in MiniStack's modules that go in and out together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._replaced: list[tuple[Any, str, Any, Any]] = []
        self._is_on = False

    def replace(self, owner: Any, attribute: str) -> Callable[[Any], Any]:
        """Plan the decorated object in place of `owner.attribute` (or of `owner[attribute]`).

        Raises KeyError or AttributeError when upstream no longer has it, ValueError when another
        bridge replaces it already.
        """
        if (id(owner), attribute) in _taken:
            raise ValueError(f"Another bridge replaces {attribute} already; extend that one.")
        _taken.add((id(owner), attribute))
        original = owner[attribute] if isinstance(owner, dict) else getattr(owner, attribute)

        def planned(replacement: Any) -> Any:
            self._replaced.append((owner, attribute, original, replacement))
            return replacement

        return planned

    def add(self, owner: dict[str, Any], key: str, value: Any) -> None:
        """Plan an entry that MiniStack lacks; raises UpstreamChangedError when it has it by now."""
        if key in owner:
            raise UpstreamChangedError(f"MiniStack has {key} by now; this bridge is needless.")
        self._replaced.append((owner, key, _ABSENT, value))

    def original(self, owner: Any, attribute: str) -> Any:
        """Return what MiniStack itself has there."""
        return owner[attribute] if isinstance(owner, dict) else getattr(owner, attribute)

    def on(self) -> None:
        """Put the replacements in."""
        if not self._is_on:
            for owner, attribute, _, replacement in self._replaced:
                _set(owner, attribute, replacement)
        self._is_on = True

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """Take the replacements out for a while: the gap itself, for the test that looks for it."""
        for owner, attribute, original, _ in reversed(self._replaced):
            _set(owner, attribute, original)
        self._is_on = False
        try:
            yield
        finally:
            self.on()


class UpstreamChangedError(RuntimeError):
    """MiniStack no longer has the piece that a bridge changes."""


def edit(source: str, old: str, new: str) -> str:
    """Replace the one occurrence of `old`; raises UpstreamChangedError unless there is one."""
    if source.count(old) != 1:
        raise UpstreamChangedError(f"MiniStack's source has {source.count(old)} times: {old}")
    return source.replace(old, new)


def _set(owner: Any, attribute: str, value: Any) -> None:
    if value is _ABSENT:
        owner.pop(attribute, None)
    elif isinstance(owner, dict):
        owner[attribute] = value
    else:
        setattr(owner, attribute, value)
