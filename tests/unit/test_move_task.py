"""A round by SQS's own move task: it ends with its watcher, and is counted once, whoever dies."""
# ruff: noqa: N803 -- boto3's names of parameters

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from oncall import move_task
from oncall.errors import LockLost, NeedsHuman
from oncall.move_task import Order, Ports, Task, tally, why_end
from oncall.mover import Tally
from oncall.sqs_wire import Throttled, Unreachable

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

PREFIX = "arn:aws:sqs:us-east-1:123456789012"
DLQ, SOURCE = f"{PREFIX}:orders-dlq", f"{PREFIX}:orders"
CANARY = Order(DLQ, SOURCE, "1-0000", rate=1, most=10, seconds=30)
ROUND = Order(DLQ, SOURCE, "1-0001", rate=20, most=0, seconds=60)


class Died(Exception):  # noqa: N818 -- what the worker has done
    """The worker is gone."""


class Sqs:
    """Move tasks of one queue, whose letters move as the clock goes."""

    def __init__(self, letters: int) -> None:
        self.letters = letters
        self.now = 1_800_000_000.0
        self.tasks: list[dict[str, Any]] = []
        self.record: dict[str, Any] = {}
        self.stopped = False
        self.lags = 0
        """So many lists do not show the latest task."""
        self.ends_late = 0.0
        self.fail: dict[str, Callable[[], None]] = {}
        """By operation, before its effect; ``start.`` and the like after it."""

    # Clock and record

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        for task in self.tasks:
            if task["Status"] == "CANCELLING" and self.now >= task["ends"]:
                task["Status"] = "CANCELLED"
            if task["Status"] != "RUNNING":
                continue
            task["due"] += (task.get("MaxNumberOfMessagesPerSecond") or 500) * seconds
            moved = min(int(task["due"]), self.letters)
            task["due"] -= moved
            task["ApproximateNumberOfMessagesMoved"] += moved
            self.letters -= moved
            if not self.letters:
                task["Status"] = "COMPLETED"
        self.now += seconds

    def note(self, recorded: Mapping[str, Any]) -> None:
        self._meet("note")
        self.record = dict(recorded)
        self._meet("note.")

    def _meet(self, name: str) -> None:
        self.fail.get(name, lambda: None)()

    # boto3's client

    def start_message_move_task(
        self, SourceArn: str, MaxNumberOfMessagesPerSecond: int, DestinationArn: str = ""
    ) -> dict[str, Any]:
        self._meet("start")
        if any(task["Status"] in {"RUNNING", "CANCELLING"} for task in self.tasks):
            raise error("InvalidParameterValue", "There is already a task running.")
        task = {
            "Status": "RUNNING",
            "SourceArn": SourceArn,
            "StartedTimestamp": int(self.now * 1000) + len(self.tasks),
            "ApproximateNumberOfMessagesMoved": 0,
            "TaskHandle": f"task-{len(self.tasks)}",
            "MaxNumberOfMessagesPerSecond": MaxNumberOfMessagesPerSecond,
            "DestinationArn": DestinationArn,
            "due": 0.0,
        }
        self.tasks.append(task)
        self._meet("start.")
        return {"TaskHandle": task["TaskHandle"]}

    def list_message_move_tasks(self, SourceArn: str, MaxResults: int) -> dict[str, Any]:
        self._meet("list")
        assert SourceArn == DLQ
        shown = list(reversed(self.tasks))
        if self.lags and shown:
            self.lags -= 1
            shown = shown[1:]
        return {
            "Results": [
                {k: v for k, v in task.items() if k != "TaskHandle" or task["Status"] == "RUNNING"}
                for task in shown[:MaxResults]
            ]
        }

    def cancel_message_move_task(self, TaskHandle: str) -> dict[str, Any]:
        self._meet("cancel")
        [task] = [task for task in self.tasks if task["TaskHandle"] == TaskHandle]
        if task["Status"] != "RUNNING":
            raise error("InvalidParameterValue", "Only active tasks can be cancelled.")
        task |= {"Status": "CANCELLING", "ends": self.now + self.ends_late}
        self._meet("cancel.")
        return {"ApproximateNumberOfMessagesMoved": task["ApproximateNumberOfMessagesMoved"]}

    # What a test does

    def move(self, order: Order = CANARY) -> Tally:
        ports = Ports(
            cast("SQSClient", self), self.note, lambda: self.stopped, self.clock, self.sleep
        )
        return move_task.move(order, ports, self.record)

    def once(self, name: str, failure: Exception) -> None:
        """Let an operation fail once."""

        def fails() -> None:
            del self.fail[name]
            raise failure

        self.fail[name] = fails

    def always(self, name: str, failure: Exception) -> None:
        def fails() -> None:
            raise failure

        self.fail[name] = fails

    @property
    def statuses(self) -> list[str]:
        return [task["Status"] for task in self.tasks]

    @property
    def moved(self) -> int:
        return sum(task["ApproximateNumberOfMessagesMoved"] for task in self.tasks)


def error(code: str, message: str = "", status: int = 400) -> ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "Call")


# What is decided


def test_a_task_is_ended_for_the_first_reason_that_there_is() -> None:
    assert why_end(CANARY, 0, 1, 2, stopped=False) == ""
    assert why_end(CANARY, 10, 2, 2, stopped=True) == "stopped"
    assert why_end(CANARY, 10, 2, 2, stopped=False) == "limit"
    assert why_end(ROUND, 10, 1, 2, stopped=False) == ""
    assert why_end(ROUND, 10, 2, 2, stopped=False) == "deadline"


@pytest.mark.parametrize(
    ("task", "why", "ended", "trouble"),
    [
        (Task("COMPLETED", 1, moved=5), "limit", "empty", ""),
        (Task("CANCELLED", 1, moved=5), "limit", "limit", ""),
        (Task("CANCELLED", 1, moved=5), "deadline", "deadline", ""),
        (Task("CANCELLED", 1), "stopped", "stopped", ""),
        (Task("CANCELLED", 1), "deadline", "failed", "has moved nothing in its time"),
        (Task("CANCELLED", 1, moved=5), "", "failed", "somebody has cancelled the move task"),
        (Task("FAILED", 1, moved=5, reason="AccessDenied"), "", "failed", "failed: AccessDenied"),
    ],
)
def test_what_a_task_has_come_to(task: Task, why: str, ended: str, trouble: str) -> None:
    found = tally([task], why)
    assert (found.replayed, found.archived, found.ended) == (task.moved, 0, ended)
    assert trouble in found.trouble
    assert bool(trouble) == bool(found.trouble)


@pytest.mark.parametrize(
    ("task", "owns"),
    [
        (Task("RUNNING", 101, destination=SOURCE, rate=1), True),
        (Task("COMPLETED", 101, destination=SOURCE, rate=1), True),
        (Task("RUNNING", 100, destination=SOURCE, rate=1), False),
        (Task("RUNNING", 101, destination="", rate=1), False),
        (Task("RUNNING", 101, destination=SOURCE, rate=0), False),
    ],
)
def test_a_round_knows_its_task(task: Task, owns: bool) -> None:  # noqa: FBT001 -- a parameter of the test, not a switch
    assert CANARY.owns(task, 100) is owns


# A round


def test_a_canary_is_cancelled_when_its_letters_are_moved() -> None:
    sqs = Sqs(60)
    found = sqs.move()
    assert (found.replayed, found.ended, found.archived) == (10, "limit", 0)
    assert sqs.statuses == ["CANCELLED"]
    assert sqs.record["moved"] == {"1-0000": 10}


def test_a_round_ends_when_nothing_is_left_or_its_time_is_over() -> None:
    sqs = Sqs(2000)
    sqs.move()
    assert sqs.move(ROUND).ended == "deadline"
    assert sqs.statuses == ["CANCELLED", "CANCELLED"]
    assert sqs.record["moved"] == {"1-0000": 10, "1-0001": 1200}
    sqs = Sqs(30)
    assert sqs.move(ROUND).ended == "empty"
    assert sqs.statuses == ["COMPLETED"]


def test_a_stop_cancels_the_task() -> None:
    sqs = Sqs(60)
    sqs.fail["cancel"] = lambda: None

    def stops() -> None:
        sqs.stopped = sqs.moved >= 3

    sqs.fail["list"] = stops
    found = sqs.move()
    assert (found.replayed, found.ended, sqs.statuses) == (3, "stopped", ["CANCELLED"])


def test_nothing_is_started_once_a_stop_is_wanted_or_the_lock_is_lost() -> None:
    sqs = Sqs(60)
    sqs.stopped = True
    assert sqs.move().ended == "stopped"
    sqs.stopped = False
    sqs.once("note", LockLost("gone"))
    with pytest.raises(LockLost):
        sqs.move()
    assert sqs.tasks == []


@pytest.mark.parametrize("dies", ["note.", "start", "start.", "cancel", "cancel."])
def test_whoever_dies_the_next_try_adopts_the_task_and_counts_it_once(dies: str) -> None:
    sqs = Sqs(60)
    sqs.once(dies, Died())
    with pytest.raises(Died):
        sqs.move()
    sqs.sleep(3)
    found = sqs.move()
    assert found.replayed == sqs.moved == sqs.record["moved"]["1-0000"]
    assert 10 <= found.replayed <= 13
    assert (found.ended, sqs.statuses) == ("limit", ["CANCELLED"])
    again = sqs.move()  # its answer was lost
    assert again.replayed == found.replayed
    assert sqs.record["moved"] == {"1-0000": found.replayed}


def test_a_try_that_comes_late_ends_a_task_past_its_time() -> None:
    sqs = Sqs(6000)
    sqs.once("start.", Died())
    with pytest.raises(Died):
        sqs.move(ROUND)
    sqs.sleep(100)
    found = sqs.move(ROUND)
    assert (found.replayed, found.ended, sqs.statuses) == (2000, "deadline", ["CANCELLED"])


def test_a_start_whose_answer_is_lost_is_the_rounds_own() -> None:
    sqs = Sqs(60)

    def repeats() -> None:  # as boto3 does, which then meets its own task
        del sqs.fail["start."]
        sqs.start_message_move_task(DLQ, 1, SOURCE)

    sqs.fail["start."] = repeats
    sqs.lags = 4
    assert sqs.move().replayed == 10
    assert sqs.statuses == ["CANCELLED"]


def test_a_task_of_somebody_else_stops_the_run_before_or_at_the_start() -> None:
    sqs = Sqs(6000)
    sqs.start_message_move_task(DLQ, 5)
    with pytest.raises(NeedsHuman, match="orders-dlq to where they came from"):
        sqs.move()
    assert sqs.record == {}
    assert sqs.now == Sqs(0).now  # nothing to wait for
    sqs = Sqs(6000)

    def begins() -> None:
        del sqs.fail["start"]
        sqs.start_message_move_task(DLQ, 5, f"{PREFIX}:other")

    sqs.fail["start"] = begins
    with pytest.raises(NeedsHuman, match="orders-dlq to other"):
        sqs.move()
    assert sqs.statuses == ["RUNNING"]


def test_an_earlier_task_that_is_being_cancelled_is_waited_for() -> None:
    sqs = Sqs(60)
    handle = sqs.start_message_move_task(DLQ, 5)["TaskHandle"]
    sqs.ends_late = 5
    sqs.cancel_message_move_task(handle)
    assert sqs.move().replayed == 10
    sqs = Sqs(60)
    handle = sqs.start_message_move_task(DLQ, 5)["TaskHandle"]
    sqs.ends_late = 500
    sqs.cancel_message_move_task(handle)
    with pytest.raises(NeedsHuman):
        sqs.move()


def test_what_sqs_refuses_is_told() -> None:
    sqs = Sqs(60)
    sqs.always("start", error("AccessDenied", "no"))
    found = sqs.move()
    assert (found.ended, found.trouble) == (
        "failed",
        "SQS does not start a move task, AccessDenied: no",
    )
    sqs = Sqs(60)
    sqs.always("start", error("InvalidParameterValue", "no such destination"))
    assert "no such destination" in sqs.move().trouble


def test_a_list_that_fails_for_a_while_is_put_up_with() -> None:
    sqs = Sqs(60)
    failures = iter(range(5))

    def fails() -> None:
        if sqs.tasks and next(failures, None) is not None:
            raise error("RequestThrottled")

    sqs.fail["list"] = fails
    assert sqs.move().ended == "limit"


def test_a_task_that_nobody_can_see_is_cancelled() -> None:
    sqs = Sqs(600)

    def fails() -> None:
        if sqs.statuses == ["RUNNING"]:
            raise ReadTimeoutError(endpoint_url="sqs")

    sqs.fail["list"] = fails
    found = sqs.move()
    assert (found.ended, sqs.statuses) == ("failed", ["CANCELLED"])
    assert "nobody could see" in found.trouble
    assert found.replayed == sqs.moved == 15


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (error("RequestThrottled"), Throttled),
        (error("Busy", status=429), Throttled),
        (error("InternalError", status=500), Unreachable),
        (ReadTimeoutError(endpoint_url="sqs"), Unreachable),
    ],
)
def test_a_task_that_cannot_be_ended_is_for_another_try(
    failure: Exception, raised: type[Exception]
) -> None:
    sqs = Sqs(600)
    sqs.always("cancel", failure)
    with pytest.raises(raised):
        sqs.move()
    del sqs.fail["cancel"]
    assert sqs.move().replayed == sqs.moved
    assert sqs.statuses == ["CANCELLED"]


def test_a_task_that_may_not_be_ended_is_told_with_the_commands() -> None:
    sqs = Sqs(600)
    sqs.always("cancel", error("AccessDenied", "no"))
    found = sqs.move()
    assert found.ended == "failed"
    assert "may still run, AccessDenied: no." in found.trouble
    assert "cancel-message-move-task" in found.trouble


def test_a_task_that_does_not_end_is_for_another_try() -> None:
    sqs = Sqs(600)
    sqs.ends_late = 1000
    with pytest.raises(Unreachable, match="has not ended its move task in time"):
        sqs.move()
