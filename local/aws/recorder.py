"""What reached the emulator: every API call with its caller, for proofs of least privilege."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """One API call as the emulator saw it."""

    account: str
    region: str
    service: str
    """MiniStack's name of the service, e.g. `sqs`, `monitoring`, `states`."""
    operation: str
    """The API operation, e.g. `SendMessageBatch`; empty when it is not known."""
    action: str
    """The IAM action that it needs, e.g. `sqs:SendMessage`; empty when none covers it."""
    resource: str
    """The ARN that IAM checks, or `*`."""
    principal: str
    """The caller's ARN, e.g. `arn:aws:sts::123456789012:assumed-role/<role>/<function>`."""
    status: int
    """The HTTP status answered; 0 when a fault ate the answer."""
    error: str
    """The error code answered, or empty."""

    @property
    def role(self) -> str:
        """The name of the caller's role, or empty for root and users."""
        _, _, tail = self.principal.partition(":assumed-role/")
        return tail.partition("/")[0]


class Calls:
    """The calls of one account (or of all), oldest first."""

    def __init__(self) -> None:
        self._all: list[Call] = []
        self._lock = threading.Lock()
        self._account = ""

    def of(self, account: str) -> "Calls":
        """Return a live view of one account's calls."""
        view = Calls()
        view._all, view._lock, view._account = self._all, self._lock, account
        return view

    def add(self, call: Call) -> None:
        """Append a call."""
        with self._lock:
            self._all.append(call)

    def clear(self) -> None:
        """Forget the calls of this view."""
        with self._lock:
            self._all[:] = [call for call in self._all if not self._mine(call)]

    def by_role(self) -> "dict[str, list[Call]]":
        """Return the calls that roles made, by role name."""
        found: dict[str, list[Call]] = {}
        for call in self:
            if call.role:
                found.setdefault(call.role, []).append(call)
        return found

    def where(self, wanted: Callable[[Call], bool]) -> list[Call]:
        """Return the calls that `wanted` is true of."""
        return [call for call in self if wanted(call)]

    def __iter__(self) -> Iterator[Call]:
        with self._lock:
            return iter([call for call in self._all if self._mine(call)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _mine(self, call: Call) -> bool:
        return not self._account or call.account == self._account


CALLS = Calls()
"""The calls of all accounts."""
