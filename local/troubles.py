"""Trouble that a person makes while a story plays, each the real thing on the embedded AWS.

A story names those that mean something to it (``Story.injects``); a page has no button for others.
"""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import BotoCoreError, ClientError

from local.stories import set_kill_switch
from oncall.errors import BadInput, NotFound
from workload.load import SendFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from local.fake_http import FakeService
    from local.playground import Playground
    from local.stories import Story
    from workload.load import LoadGenerator

_SPIKE = 400
_SPIKE_SECONDS = 60
_CALLERS = 5
_CALLS = 70
_POISON = 5
_SLOW_MS = 900
_SENDERS = 4


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing to do: a load that ends by itself, or a state that lasts until it is undone."""

    label: str
    says: str
    """What it does, for who is about to do it."""
    make: Callable[[], object]
    undo: Callable[[], object] | None = None
    """None for a load."""
    lasts: Callable[[], bool] = lambda: False
    """Whether it is so now, read from where it is done."""


class Troubles:
    """The troubles of a story; ``with Troubles(ground, story) as troubles: ...``.

    Leaving undoes what lasts and was made here.
    """

    def __init__(self, ground: Playground, story: Story) -> None:
        self._stop = threading.Event()
        load = ground.load(stop=self._stop)
        self._pool = ThreadPoolExecutor(_SENDERS)
        self._running: dict[str, Future[object]] = {}
        self._made: set[str] = set()
        self.all: Mapping[str, Trouble] = {id_: _MAKERS[id_](ground, load) for id_ in story.injects}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Undo what lasts and wait for loads to end."""
        self._stop.set()
        for id_ in self._made:
            undo = self.all[id_].undo
            if undo and self.all[id_].lasts():
                undo()
        self._pool.shutdown()

    def do(self, id_: str) -> str:
        """Make a trouble, or undo one that lasts; return what is done now, in words.

        Raises ``NotFound`` for one that the story does not have, ``BadInput`` while it still runs.
        """
        trouble = self.all.get(id_)
        if trouble is None:
            raise NotFound(f"There is no trouble {id_!r} here, but {', '.join(self.all)}.")
        if trouble.undo is None:
            if self._busy(id_):
                raise BadInput(f"{trouble.label}: it is on its way; wait until it has been sent.")
            self._running[id_] = self._pool.submit(trouble.make)
            return f"{trouble.label}: on its way."
        if trouble.lasts():
            trouble.undo()
            return f"{trouble.label}: ended."
        trouble.make()
        self._made.add(id_)
        return f"{trouble.label}: on."

    def shown(self) -> list[dict[str, Any]]:
        """Return each trouble as a page shows it."""
        return [
            {
                "id": id_,
                "label": trouble.label,
                "says": trouble.says,
                "toggle": trouble.undo is not None,
                "on": trouble.lasts(),
                "busy": self._busy(id_),
                "failed": self._failure(id_),
            }
            for id_, trouble in self.all.items()
        ]

    def _busy(self, id_: str) -> bool:
        return id_ in self._running and not self._running[id_].done()

    def _failure(self, id_: str) -> str:
        """Return why a load did not get through, or ``""``."""
        sent = self._running.get(id_)
        if sent is None or not sent.done():
            return ""
        try:
            sent.result()
        except (SendFailedError, ClientError, BotoCoreError) as error:
            return str(error)
        return ""


def _service(service: FakeService, label: str, says: str) -> Trouble:
    return Trouble(label, says, service.down, service.up, lambda: not service.is_up)


def _region(ground: Playground, role: str) -> Trouble:
    shop = ground.shop
    return Trouble(
        f"{role.capitalize()} down",
        f"The web server in {shop.regions[role]} answers 503 to every client.",
        lambda: shop.broken.add(role),
        lambda: shop.broken.discard(role),
        lambda: role in shop.broken,
    )


def _parameter(ground: Playground, name: str) -> str:
    return str(ground.account.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])


def _downstream(ground: Playground) -> dict[str, Any]:
    """Return how the worker's downstream is told to behave; empty when it is well."""
    found = _parameter(ground, ground.pilot.downstream_parameter)
    return {} if found == "off" else dict(json.loads(found))


_MAKERS: Mapping[str, Callable[[Playground, LoadGenerator], Trouble]] = {
    "spike": lambda _, load: Trouble(
        f"Spike of {_SPIKE}",
        f"{_SPIKE} more orders, as fast as the queue takes them.",
        lambda: load.spike(_SPIKE, _SPIKE_SECONDS),
    ),
    "callers": lambda _, load: Trouble(
        f"{_CALLERS} callers",
        f"{_CALLERS} callers send {_CALLS} orders by the API; each tries again until it is let in.",
        lambda: load.burst(_CALLS, callers=_CALLERS, seconds=_SPIKE_SECONDS),
    ),
    "poison": lambda _, load: Trouble(
        f"{_POISON} poison orders",
        "Orders that the worker can never process: they are retried, then lie dead.",
        lambda: load.poison(_POISON),
    ),
    "slow": lambda ground, load: Trouble(
        "Slow downstream",
        f"Every call of the worker's downstream takes {_SLOW_MS} ms longer.",
        lambda: load.slow_downstream(_SLOW_MS),
        load.recover,
        lambda: "latency_ms" in _downstream(ground),
    ),
    "failing": lambda ground, load: Trouble(
        "Failing downstream",
        "Every call of the worker's downstream fails.",
        lambda: load.fail_downstream(1),
        load.recover,
        lambda: bool(_downstream(ground).get("error_rate")),
    ),
    "primary": lambda ground, _: _region(ground, "primary"),
    "standby": lambda ground, _: _region(ground, "standby"),
    "slack": lambda ground, _: _service(
        ground.slack,
        "Slack down",
        "Slack takes no connection: the run goes on, and what it has to say comes later.",
    ),
    "pagerduty": lambda ground, _: _service(
        ground.pagerduty,
        "PagerDuty down",
        "PagerDuty takes no connection: Slack must not wait for it.",
    ),
    "stop": lambda ground, _: Trouble(
        "Kill switch",
        "Every runbook stops before its next change and puts back what it has changed.",
        lambda: set_kill_switch(ground, "stopped from the page"),
        lambda: set_kill_switch(ground, "run"),
        lambda: _parameter(ground, ground.outputs["KillSwitch"]) != "run",
    ),
}
