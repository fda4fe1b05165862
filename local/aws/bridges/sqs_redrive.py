"""Gaps of SQS dead-letter queues: no move tasks, no list of their sources, FIFO ids of moved ones.

AWS:

- StartMessageMoveTask moves a dead-letter queue's messages to one queue of the same type, or each
  to the queue that it came from; one task a queue at a time, at 500 a second at most. A moved
  message is a new one, with a MessageId and an enqueue time of its own. ListMessageMoveTasks
  returns the newest (one unless asked for up to ten), CancelMessageMoveTask stops a running one
  (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html,
  https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ListMessageMoveTasks.html,
  https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CancelMessageMoveTask.html,
  https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-configure-dead-letter-queue-redrive.html).
- Who starts or cancels one needs sqs:ReceiveMessage, sqs:DeleteMessage and sqs:GetQueueAttributes
  on the dead-letter queue too, and sqs:SendMessage on the destination; who lists them
  sqs:GetQueueAttributes. A task fails with CouldNotDetermineMessageSource for a message that no
  redrive policy has moved, with AWS.SimpleQueueService.NonExistentQueue when a queue is gone
  (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/troubleshooting-dlq-redrive.html).
  The errors' texts are AWS's as recorded in
  https://github.com/localstack/localstack/blob/11c332ee/tests/aws/services/sqs/test_sqs_move_task.snapshot.json.
- ListDeadLetterSourceQueues returns the queues whose redrive policy names a queue, in pages
  (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ListDeadLetterSourceQueues.html).
- A message that moves from a FIFO queue to its dead-letter queue has its own id as deduplication id
  from then on (sqs-configure-dead-letter-queue-redrive, as above).

Here a task's counts are exact at once; on AWS they lag. It moves as many messages as were visible
when it started, so that a message which dies again is not moved again.
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import base64
import contextvars
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from ministack.core.responses import new_uuid
from ministack.services import lambda_svc, sqs

from local.aws.bridges import caller, iam
from local.aws.bridges.bridge import Bridge
from local.aws.bridges.sqs_messages import take_out

type _Message = dict[str, Any]
type _Queue = dict[str, Any]

BRIDGE = Bridge("sqs_redrive")
_FASTEST = 500
_LISTED = 10
_BATCH = 10
_PAGE = 1000
_VISIBILITY_SECONDS = 30
_NOT_FOUND = 404
_FORBIDDEN = 403


@dataclass
class _Task:
    source: str
    destination: str
    rate: int
    to_move: int
    id: str = field(default_factory=new_uuid)
    started: float = field(default_factory=time.time)
    status: str = "RUNNING"
    moved: int = 0
    reason: str = ""
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def handle(self) -> str:
        named = json.dumps({"taskId": self.id, "sourceArn": self.source}, separators=(",", ":"))
        return base64.b64encode(named.encode()).decode()

    def shown(self) -> dict[str, Any]:
        """Return the task as ListMessageMoveTasks shows it."""
        entry: dict[str, Any] = {
            "Status": self.status,
            "SourceArn": self.source,
            "ApproximateNumberOfMessagesMoved": self.moved,
            "ApproximateNumberOfMessagesToMove": self.to_move,
            "StartedTimestamp": int(self.started * 1000),
        }
        if self.status == "RUNNING":
            entry["TaskHandle"] = self.handle
        if self.destination:
            entry["DestinationArn"] = self.destination
        if self.rate:
            entry["MaxNumberOfMessagesPerSecond"] = self.rate
        if self.status == "FAILED":
            entry["FailureReason"] = self.reason
        return entry


_tasks: dict[str, list[_Task]] = {}
"""By the ARN of the source, the oldest first."""


@BRIDGE.replace(sqs, "reset")
def _reset_all() -> None:
    for tasks in _tasks.values():
        for task in tasks:
            task.stop.set()
    _tasks.clear()
    _reset()


# --- Operations --------------------------------------------------------------------------------


def _start(data: dict[str, Any], _url: str) -> dict[str, Any]:
    arn = _required(data, "SourceArn")
    source = _queue(arn, "SourceArn")
    destination_arn = data.get("DestinationArn") or ""
    if not _sources(arn):
        raise sqs._Err(
            "InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue."
        )
    if destination_arn:
        destination = _queue(destination_arn, "DestinationArn")
        if destination["is_fifo"] != source["is_fifo"] or destination_arn == arn:
            raise sqs._Err(
                "InvalidParameterValue",
                f"Value {destination_arn} for parameter DestinationArn is invalid. Reason: "
                "Must be another queue of the same type as the source.",
            )
    rate = data.get("MaxNumberOfMessagesPerSecond")
    if rate is not None and not 1 <= int(rate) <= _FASTEST:
        raise sqs._Err(
            "InvalidParameterValue",
            f"Value {rate} for parameter MaxNumberOfMessagesPerSecond is invalid. Reason: "
            f"Must be between 1 and {_FASTEST}, if provided.",
        )
    _check(arn, "ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
    if destination_arn:
        _check(destination_arn, "SendMessage")
    if any(not _ended(task) for task in _tasks.get(arn, [])):
        raise sqs._Err(
            "InvalidParameterValue",
            "There is already a task running. Only one active task is allowed for a source queue "
            "arn at a given time.",
        )
    sqs._refresh_counts(source)
    visible = int(source["attributes"]["ApproximateNumberOfMessages"])
    task = _Task(arn, destination_arn, int(rate or 0), visible)
    _tasks.setdefault(arn, []).append(task)
    # The account, the region and the caller go along.
    threading.Thread(
        target=contextvars.copy_context().run, args=(_run, task), name="sqs-move-task", daemon=True
    ).start()
    return {"TaskHandle": task.handle}


def _list(data: dict[str, Any], _url: str) -> dict[str, Any]:
    arn = _required(data, "SourceArn")
    _queue(arn, "SourceArn")
    number = int(data.get("MaxResults") or 1)
    if not 1 <= number <= _LISTED:
        raise sqs._Err(
            "InvalidParameterValue",
            f"Value {number} for parameter MaxResults is invalid. Reason: Must be between 1 and "
            f"{_LISTED}, if provided.",
        )
    _check(arn, "GetQueueAttributes")
    return {"Results": [task.shown() for task in reversed(_tasks.get(arn, []))][:number]}


def _cancel(data: dict[str, Any], _url: str) -> dict[str, Any]:
    handle = _required(data, "TaskHandle")
    if not (arn := iam.task_source(handle)):
        raise sqs._Err("InvalidParameterValue", "Value for parameter TaskHandle is invalid.")
    _queue(arn, "SourceArn")
    found = [task for task in _tasks.get(arn, []) if task.handle == handle]
    if not found:
        raise sqs._Err("ResourceNotFoundException", "Task does not exist.", _NOT_FOUND)
    _check(arn, "ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
    [task] = found
    if task.status != "RUNNING":
        raise sqs._Err("InvalidParameterValue", "Only active tasks can be cancelled.")
    task.status = "CANCELLING"
    task.stop.set()
    return {"ApproximateNumberOfMessagesMoved": task.moved}


def _list_sources(data: dict[str, Any], url: str) -> dict[str, Any]:
    queue = sqs._get_q(data.get("QueueUrl", url), "sqs:ListDeadLetterSourceQueues")
    urls = [source["url"] for source in _sources(queue["attributes"]["QueueArn"])]
    first, number = int(data.get("NextToken") or 0), data.get("MaxResults")
    if number is None:
        return {"queueUrls": urls[:_PAGE]}
    last = first + int(number)
    answer: dict[str, Any] = {"queueUrls": urls[first:last]}
    return answer | ({"NextToken": str(last)} if last < len(urls) else {})


for _name, _act in (
    ("StartMessageMoveTask", _start),
    ("ListMessageMoveTasks", _list),
    ("CancelMessageMoveTask", _cancel),
    ("ListDeadLetterSourceQueues", _list_sources),
):
    BRIDGE.add(sqs._HANDLERS, _name, _act)


def _required(data: dict[str, Any], name: str) -> str:
    if value := data.get(name):
        return str(value)
    raise sqs._Err("MissingParameter", f"The request must contain the parameter {name}.")


def _queue(arn: str, parameter: str) -> _Queue:
    found: _Queue | None = sqs._queue_by_arn(arn)
    if found is None:
        raise sqs._Err(
            "ResourceNotFoundException",
            f"The resource that you specified for the {parameter} parameter doesn't exist.",
            _NOT_FOUND,
        )
    return found


def _check(arn: str, *operations: str) -> None:
    for operation in operations:
        if not _may(operation, arn):
            raise sqs._Err(
                "AccessDenied",
                f"User: {caller.arn()} is not authorized to perform: sqs:{operation.lower()} on "
                f"resource: {arn} because no identity-based policy allows the "
                f"sqs:{operation.lower()} action",
                _FORBIDDEN,
            )


def _may(operation: str, arn: str) -> bool:
    return caller.may("sqs", f"sqs:{operation}", arn, operation=operation)


def _sources(arn: str) -> list[_Queue]:
    """Return the queues whose redrive policy names this one."""
    return [queue for _, queue in sqs._queues.items() if _dead_letters_go_to(queue) == arn]


def _dead_letters_go_to(queue: _Queue) -> str:
    policy = json.loads(queue["attributes"].get("RedrivePolicy") or "{}")
    return str(policy.get("deadLetterTargetArn", ""))


def _ended(task: _Task) -> bool:
    return task.status not in {"RUNNING", "CANCELLING"}


# --- Moving ------------------------------------------------------------------------------------


class _MoveError(Exception):
    """Ends a task; its text is the FailureReason."""


def _run(task: _Task) -> None:
    try:
        _move_all(task)
    except _MoveError as error:
        task.reason = str(error)
        task.status = "FAILED"
    except sqs._Err as error:
        task.reason = sqs._QUERY_COMPAT_CODES.get(error.code, error.code)
        task.status = "FAILED"
    else:
        task.status = "CANCELLED" if task.stop.is_set() else "COMPLETED"


def _move_all(task: _Task) -> None:
    source = sqs._queue_by_arn(task.source)
    begun = time.monotonic()
    allowed: dict[str, _Queue] = {}
    while task.moved < task.to_move:
        due = begun + (task.moved + 1) / task.rate if task.rate else 0
        if task.stop.wait(max(due - time.monotonic(), 0)):
            return
        number = int((time.monotonic() - begun) * task.rate) - task.moved if task.rate else _BATCH
        number = min(max(number, 1), _BATCH, task.to_move - task.moved)
        if sqs._queue_by_arn(task.source) is not source:
            raise _MoveError("AWS.SimpleQueueService.NonExistentQueue")
        sqs._expire_retained(source)
        messages = sqs._collect_msgs(source, number, _VISIBILITY_SECONDS)
        if not messages:
            return
        try:
            while messages:
                _move(task, source, messages[0], allowed)
                messages.pop(0)
        finally:
            for message in messages:
                message["visible_at"] = time.time()


def _move(task: _Task, source: _Queue, message: _Message, allowed: dict[str, _Queue]) -> None:
    arn = task.destination or message["sys"].get("DeadLetterQueueSourceArn", "")
    if not arn:
        raise _MoveError("CouldNotDetermineMessageSource")
    destination = sqs._queue_by_arn(arn)
    if destination is None:
        raise _MoveError("AWS.SimpleQueueService.NonExistentQueue")
    if arn not in allowed:
        if not task.destination and not _may("SendMessage", arn):
            raise _MoveError("AccessDenied")
        allowed[arn] = destination
    trace = message["sys"].get("AWSTraceHeader")
    sqs._act_send_message(
        {
            "MessageBody": message["body"],
            "MessageAttributes": message["message_attributes"],
            "MessageSystemAttributes": {
                "AWSTraceHeader": {"DataType": "String", "StringValue": trace}
            }
            if trace
            else {},
            "MessageGroupId": message["group_id"],
            "MessageDeduplicationId": message["dedup_id"],
        },
        destination["url"],
    )
    sqs._delete_messages_for_esm(source["url"], {message["receipt_handle"]})
    task.moved += 1


# --- What a redrive policy moves ---------------------------------------------------------------


@BRIDGE.replace(sqs, "_dlq_sweep")
def _dlq_sweep(queue: _Queue) -> None:
    target = sqs._queue_by_arn(_dead_letters_go_to(queue))
    if target is None:
        return
    most = int(json.loads(queue["attributes"]["RedrivePolicy"])["maxReceiveCount"])
    now = time.time()
    dead = take_out(
        queue, lambda message: message["receive_count"] >= most and message["visible_at"] <= now
    )
    for message in dead:
        moved = {**message, "receipt_handle": None, "visible_at": now, "sys": {**message["sys"]}}
        moved["sys"].setdefault("DeadLetterQueueSourceArn", queue["attributes"]["QueueArn"])
        if target["is_fifo"]:
            target["fifo_seq"] += 1
            moved |= {
                "enqueued_at": now,
                "dedup_id": message["id"],
                "seq": str(target["fifo_seq"]).zfill(20),
            }
        target["messages"].append(moved)
    if dead:
        lambda_svc.esm_wake.set()


_reset = BRIDGE.original(sqs, "reset")
