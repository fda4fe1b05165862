"""Plant one flaw into a copy of a flawless document."""

import copy
from collections.abc import Sequence
from typing import Any

GONE = object()


def planted(document: Any, path: Sequence[str | int], value: Any) -> Any:
    """Return a copy in which the item at `path` is `value`, or is missing when that is GONE.

    Raises KeyError when there is nothing to remove: such a flaw would plant nothing.
    """
    changed = copy.deepcopy(document)
    *way, last = path
    holder = changed
    for step in way:
        holder = holder[step]
    if value is GONE:
        del holder[last]
    else:
        holder[last] = value
    if changed == document:
        raise ValueError(f"no flaw planted at {path}")
    return changed
