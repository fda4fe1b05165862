"""The frame around every step: typed call in, plain dict out, one JSON log line a record.

A step is ``def work(call: Call, aws: Services) -> dict``; ``handler = step(work)`` makes it a
Lambda handler. What a step raises reaches the state machine under its class name.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from oncall import changes
from oncall.errors import OnCallError
from oncall.incident import Run
from oncall.services import Services, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

logger = Logger(service=os.environ.get("STACK_NAME", "runbooks"))


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a step by a state machine."""

    run: Run
    state: str
    """The state's name in the machine."""
    payload: Mapping[str, Any]
    """All that the state passed, ``run`` included."""


@cache
def services() -> Services:
    """Return this container's services."""
    return Services(Settings.from_environment())


def step(
    work: Callable[[Call, Services], Mapping[str, Any]],
) -> Callable[[Mapping[str, Any], object], Mapping[str, Any]]:
    """Make a Lambda handler of a step that runs within an incident.

    The event is ``{"run": {incident, runbook, target, mode, fence, round}, "state": …, …}``.
    """

    def handler(event: Mapping[str, Any], _context: object) -> Mapping[str, Any]:
        call = Call(run=Run(**event["run"]), state=str(event["state"]), payload=event)
        with logged(incident=call.run.incident, runbook=call.run.runbook, state=call.state):
            return work(call, services())

    return handler


def change_step(lever: str) -> Callable[[Mapping[str, Any], object], Mapping[str, Any]]:
    """Make a Lambda handler that makes the plan's change of one lever.

    The event is a step's, with ``plan_hash``; the answer and the errors are those of
    ``changes.make``.
    """
    return step(
        lambda call, aws: changes.make(aws, call.run, lever, str(call.payload["plan_hash"]))
    )


@contextmanager
def logged(**keys: str) -> Iterator[None]:
    """Log how a piece of work ended, each line bearing the given keys.

    ``incident`` doubles as the correlation id from the alarm to Slack.
    """
    with logger.append_context_keys(correlation_id=keys.get("incident", ""), **keys):
        try:
            yield
        except OnCallError as error:
            logger.warning(str(error), extra={"error": type(error).__name__})
            raise
        except Exception:
            logger.exception("failed")
            raise
        logger.info("done")
