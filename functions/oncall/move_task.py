"""One round of a replay by SQS's own move task: started, watched, ended, counted; safe to repeat.

What holds:

- What a round's task is known by is recorded before it is started: it is later than every task
  that was listed before, goes to the round's destination at the round's rate. A call that is made
  again after a crash finds it so, watches it on and counts it once.
- A task ends with the call that watches it: completed, or cancelled at its deadline, when a person
  or a kill switch wants it to stop, and when a canary's letters are moved.
- Only one task of a queue is active at a time. One that this round did not start is somebody
  else's, and stops the run.

API Reference, StartMessageMoveTask, ListMessageMoveTasks (``TaskHandle`` only while RUNNING, counts
are approximate) and CancelMessageMoveTask (only while RUNNING):
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from oncall import unarchived
from oncall.errors import NeedsHuman
from oncall.mover import Tally
from oncall.sqs_wire import Refused, Throttled, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mypy_boto3_sqs.client import SQSClient

CANARY_RATE = 1
"""Letters a second: slow enough that few more are moved than were asked for."""
ENDING_SECONDS = 30
"""How long a cancelled task may take to end, and an earlier one to be over."""
_BLIND_SECONDS = 15
"""How long a task may go on while nobody can see what it does."""
_LOOK_SECONDS = 1.0
_LISTED = 10
_ACTIVE = frozenset({"RUNNING", "CANCELLING"})
_SERVER_ERROR = 500
_TOO_MANY = 429
_RUNS_ALREADY = "InvalidParameterValue"
"""What SQS answers where a task of the queue is active, as for any other wrong parameter."""
_ENDED_ALREADY = frozenset({"InvalidParameterValue", "ResourceNotFoundException"})
_NOT_SEEN = "nobody could see what SQS's move task did"


@dataclass(frozen=True, slots=True)
class Task:
    """A move task as ListMessageMoveTasks shows it."""

    status: str
    """``RUNNING COMPLETED CANCELLING CANCELLED FAILED``"""
    started: int
    """Milliseconds since 1970, by SQS's clock."""
    moved: int = 0
    destination: str = ""
    """Empty where each letter goes to its own source."""
    rate: int = 0
    """Letters a second; 0 where SQS chooses."""
    handle: str = ""
    reason: str = ""
    """Why it has ``FAILED``."""

    @property
    def active(self) -> bool:
        """Whether it may still move letters."""
        return self.status in _ACTIVE


def read(entry: Mapping[str, Any]) -> Task:
    """Read a ListMessageMoveTasksResultEntry."""
    return Task(
        status=entry["Status"],
        started=int(entry.get("StartedTimestamp", 0)),
        moved=int(entry.get("ApproximateNumberOfMessagesMoved", 0)),
        destination=entry.get("DestinationArn") or "",
        rate=int(entry.get("MaxNumberOfMessagesPerSecond") or 0),
        handle=entry.get("TaskHandle") or "",
        reason=entry.get("FailureReason") or "",
    )


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be moved in one round."""

    dlq: str
    """The ARN of the queue that letters are moved from."""
    destination: str
    round: str
    """Unique among the rounds of a run."""
    rate: int
    most: int
    """After about so many it is cancelled; 0 for no limit."""
    seconds: float
    """After so many it is cancelled."""

    def owns(self, task: Task, after: int) -> bool:
        """Return whether a task is this round's; ``after`` is when the last one before began."""
        alike = (task.destination, task.rate) == (self.destination, self.rate)
        return alike and task.started > after


@dataclass(frozen=True, slots=True)
class Ports:
    """What a round reaches the world by."""

    sqs: SQSClient
    note: Callable[[Mapping[str, Any]], None]
    """Write ``Incident.move_task``, if the run still holds its lock."""
    stop: Callable[[], bool]
    """Whether a person or a kill switch wants it to stop."""
    clock: Callable[[], float]
    sleep: Callable[[float], None]


def why_end(order: Order, moved: int, now: float, until: float, *, stopped: bool) -> str:
    """Return why a task is to be cancelled, a word of ``Tally.ended``; ``""`` to let it go on."""
    if stopped:
        return "stopped"
    if order.most and moved >= order.most:
        return "limit"
    return "deadline" if now >= until else ""


def tally(tasks: Sequence[Task], why: str) -> Tally:
    """Return what a round's tasks, all of which have ended, have come to.

    ``why`` is why the last was, or is to be, cancelled: the reasons do not pass, so that a call
    that is made again finds the same one.
    """
    moved, last = sum(task.moved for task in tasks), max(tasks, key=lambda task: task.started)
    found = Tally(replayed=moved, ended=why)
    if last.status == "COMPLETED":
        found.ended = "empty"
    elif last.status == "FAILED":
        found.ended, found.trouble = "failed", f"SQS's move task failed: {last.reason}"
    elif not why:
        found.ended, found.trouble = "failed", "somebody has cancelled the move task"
    elif why == "deadline" and not moved:
        found.ended, found.trouble = "failed", "SQS's move task has moved nothing in its time"
    return found


def move(order: Order, ports: Ports, recorded: Mapping[str, Any]) -> Tally:
    """Let SQS move letters for one round; ``recorded`` is the incident's ``move_task``.

    Raises ``NeedsHuman`` (somebody else's task moves letters of the queue; nothing was started),
    ``Throttled`` or ``Unreachable`` (call again: it goes on from there), and what ``ports.note``
    raises.
    """
    return _Round(order, ports, recorded).work()


def end(dlq: str, destination: str, ports: Ports, recorded: Mapping[str, Any]) -> None:
    """End the task of a round whose workers have all died, and record what it has moved.

    Raises what ``move`` raises; ``Unreachable`` too where SQS does not let it be ended.
    """
    number = str(recorded.get("round", ""))
    if not number or number in recorded.get("moved", {}):
        return
    rate = int(recorded["rate"])
    order = Order(dlq, destination, number, rate, most=0, seconds=0)
    done = move(order, replace(ports, stop=lambda: True), recorded)
    if done.ended == "failed":
        raise Unreachable(done.trouble)


class _Round:
    def __init__(self, order: Order, ports: Ports, recorded: Mapping[str, Any]) -> None:
        self._order = order
        self._ports = ports
        self._recorded = dict(recorded)
        self._handle = ""
        self._error: Throttled | Unreachable | Refused | None = None
        """What has failed last."""

    def work(self) -> Tally:
        order, begun = self._order, self._ports.clock()
        if self._recorded.get("round") == order.round:
            after, until = int(self._recorded["after"]), float(self._recorded["until"])
            started = bool(self._own(self._list(), after))
        else:
            after, until, started = self._nobody_moves(), 0.0, False
        if not started:
            if self._ports.stop():
                return Tally(ended="stopped")
            until = begun + order.seconds
            self._note(round=order.round, rate=order.rate, after=after, until=until)
            if refused := self._start(after):
                return Tally(ended="failed", trouble=refused)
        found = self._watch(after, until)
        found.seconds = self._ports.clock() - begun
        self._note(moved={**self._recorded.get("moved", {}), order.round: found.replayed})
        return found

    def _note(self, **fields: Any) -> None:
        self._recorded |= fields
        self._ports.note(self._recorded)

    def _nobody_moves(self) -> int:
        """Wait until an earlier task is over; return when the latest one began."""
        patience = self._ports.clock() + ENDING_SECONDS
        while True:
            tasks = self._list()
            active = next((task for task in tasks if task.active), None)
            if active is None:
                return max((task.started for task in tasks), default=0)
            if active.status == "RUNNING" or self._ports.clock() >= patience:
                raise self._somebody_else(active)
            self._ports.sleep(_LOOK_SECONDS)

    def _somebody_else(self, task: Task) -> NeedsHuman:
        name = self._order.dlq.rsplit(":", 1)[-1]
        to = task.destination.rsplit(":", 1)[-1] or "where they came from"
        return NeedsHuman(
            f"A move task that I have not started moves letters of {name} to {to}. Wait until it "
            f"ends, or end it, then start me again: {unarchived.how_to_end(self._order.dlq)}"
        )

    def _start(self, after: int) -> str:
        """Start the round's task; return why SQS does not."""
        order = self._order
        try:
            self._handle = _call(
                self._ports.sqs.start_message_move_task,
                SourceArn=order.dlq,
                DestinationArn=order.destination,
                MaxNumberOfMessagesPerSecond=order.rate,
            )["TaskHandle"]
        except Refused as refusal:
            return self._why_refused(after, refusal)
        return ""

    def _why_refused(self, after: int, refusal: Refused) -> str:
        """Return why; ``""`` if this round's task runs: the answer to its start was lost."""
        patience = self._ports.clock() + _BLIND_SECONDS
        while True:
            active = next((task for task in self._list() if task.active), None)
            if active is not None:
                if self._order.owns(active, after):
                    return ""
                raise self._somebody_else(active)
            # A task that has just been started may not be listed yet.
            if refusal.code != _RUNS_ALREADY or self._ports.clock() >= patience:
                return f"SQS does not start a move task, {refusal}"
            self._ports.sleep(_LOOK_SECONDS)

    def _watch(self, after: int, until: float) -> Tally:
        """Look until the round's tasks have ended, and end them when it is time."""
        clock, why, moved, give_up = self._ports.clock, "", 0, math.inf
        seen = clock()
        while True:
            tasks = self._look(after)
            if tasks is not None:
                seen, moved = clock(), sum(task.moved for task in tasks)
            if not why:
                stopped, blind = self._ports.stop(), clock() - seen >= _BLIND_SECONDS
                why = why_end(self._order, moved, clock(), until, stopped=stopped)
                why = why or ("failed" if blind else "")
                give_up = clock() + ENDING_SECONDS if why else math.inf
            if tasks and not any(task.active for task in tasks):
                return self._ended(tasks, why)
            if why:
                self._cancel()
            if clock() >= give_up:
                return self._given_up(moved)
            self._ports.sleep(_LOOK_SECONDS)

    def _look(self, after: int) -> list[Task] | None:
        """Return the round's tasks; ``None`` when they cannot be listed."""
        try:
            tasks = self._own(self._list(), after)
        except (Throttled, Unreachable, Refused) as failed:
            self._error = failed
            return None
        self._handle = next((task.handle for task in tasks if task.handle), self._handle)
        return tasks

    def _ended(self, tasks: Sequence[Task], why: str) -> Tally:
        found = tally(tasks, why)
        if found.ended == "failed" and not found.trouble:
            found.trouble = f"{_NOT_SEEN}: {self._error}"
        return found

    def _given_up(self, moved: int) -> Tally:
        """Tell a person of a task that cannot be ended; raise what another call may mend."""
        if isinstance(self._error, Refused):
            ways = unarchived.how_to_end(self._order.dlq)
            trouble = f"SQS's move task may still run, {self._error}. {ways}"
            return Tally(replayed=moved, ended="failed", trouble=trouble)
        raise self._error or Unreachable("SQS has not ended its move task in time.")

    def _cancel(self) -> None:
        if not self._handle:
            return
        try:
            _call(self._ports.sqs.cancel_message_move_task, TaskHandle=self._handle)
        except (Throttled, Unreachable, Refused) as failed:
            # One that has just ended, or is being cancelled, cannot be cancelled.
            if not isinstance(failed, Refused) or failed.code not in _ENDED_ALREADY:
                self._error = failed

    def _own(self, tasks: Sequence[Task], after: int) -> list[Task]:
        return [task for task in tasks if self._order.owns(task, after)]

    def _list(self) -> list[Task]:
        answer = _call(
            self._ports.sqs.list_message_move_tasks,
            SourceArn=self._order.dlq,
            MaxResults=_LISTED,
        )
        return [read(entry) for entry in answer.get("Results", [])]


def _call(method: Callable[..., Mapping[str, Any]], **arguments: Any) -> Mapping[str, Any]:
    """Call SQS by boto3, which repeats what may be repeated, in the errors of ``sqs_wire``."""
    try:
        return method(**arguments)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == _TOO_MANY or any(word in code for word in ("Throttl", "TooManyRequests")):
            raise Throttled(str(error)) from error
        if status >= _SERVER_ERROR:
            raise Unreachable(str(error)) from error
        raise Refused(code, error.response["Error"].get("Message", "")) from error
    except BotoCoreError as error:
        raise Unreachable(str(error)) from error
