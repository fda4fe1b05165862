"""Replacing functions of MiniStack's modules, and putting them back."""

from collections.abc import Callable
from typing import Any


class Patches:
    """Remembers what was replaced. Undo in reverse, unless somebody has patched over it since."""

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, Any, Any]] = []

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace ``owner.name`` (or ``owner[name]``) by ``make(original)``."""
        original = owner[name] if isinstance(owner, dict) else getattr(owner, name)
        made = make(original)
        _put(owner, name, made)
        self._done.append((owner, name, original, made))

    def undo(self) -> None:
        """Put the originals back."""
        while self._done:
            owner, name, original, made = self._done.pop()
            current = owner[name] if isinstance(owner, dict) else getattr(owner, name)
            if current is made:
                _put(owner, name, original)


def _put(owner: Any, name: str, value: Any) -> None:
    if isinstance(owner, dict):
        owner[name] = value
    else:
        setattr(owner, name, value)
