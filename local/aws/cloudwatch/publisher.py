"""The metrics that AWS services publish about themselves.

AWS/SQS: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
AWS/Lambda: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
AWS/States: https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html
Embedded metric format:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

Gauges are read from MiniStack's memory at each tick; events are counted where they happen.
"""

import json
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import (
    cloudwatch_logs,
    eventbridge,
    lambda_svc,
    s3,
    sns,
    sqs,
    stepfunctions,
)

from local.aws.bridges import account_concurrency, queue_message
from local.aws.cloudwatch import store
from local.aws.cloudwatch.patching import Patches

logger = logging.getLogger(__name__)

type Scope = tuple[str, str]  # account, region

# "After a message is received three times (or more) and not processed, […] the
# ApproximateAgeOfOldestMessage metric points at the second-oldest message that hasn't been
# received more than three times."
POISON_RECEIVES = 3
_SQS_COUNTS = (
    "NumberOfMessagesSent",
    "NumberOfMessagesReceived",
    "NumberOfMessagesDeleted",
    "NumberOfEmptyReceives",
)


class Publisher:
    """Counts what happens between two ticks and publishes it, with the gauges, at the tick."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left_alone: set[str] = set()
        self._counts: dict[tuple[str, str], int] = defaultdict(int)  # (queue ARN, metric)
        self._running: dict[str, int] = defaultdict(int)  # by function key account:region:name
        self._reserved: set[str] = set()  # function keys that have a reservation
        self._peaks: dict[tuple[str, ...], int] = {}  # (kind, key or account, region)

    # Which targets

    def leave_alone(self, arn: str) -> None:
        """Publish nothing about this queue or function any more (its history is seeded)."""
        with self._lock:
            self._left_alone.add(arn)

    def resume(self, arn: str) -> None:
        """Publish about this queue or function again."""
        with self._lock:
            self._left_alone.discard(arn)

    # Counting

    def install(self, patches: Patches) -> None:
        """Count sends, receives, deletes, invocations, executions and EMF log lines."""
        self._install_sqs(patches)
        patches.replace(lambda_svc, "_emit_lambda_metrics", lambda _original: _publish_nothing)
        patches.replace(lambda_svc, "_acquire_execution_slot", self._around_acquire)
        patches.replace(lambda_svc, "_release_execution_slot", self._around_release)
        patches.replace(lambda_svc, "_execute_function_dispatch", self._around_dispatch)
        patches.replace(stepfunctions, "_emit_execution_status_event", _around_status)
        patches.replace(cloudwatch_logs, "_append_log_events", _around_log_events)

    def _install_sqs(self, patches: Patches) -> None:
        handlers = sqs._HANDLERS  # noqa: SLF001 -- its registry
        patches.replace(sqs, "_act_send_message", self._around_send)
        patches.replace(handlers, "SendMessage", lambda _original: sqs._act_send_message)  # noqa: SLF001 -- the one just wrapped
        patches.replace(sqs, "_collect_msgs", self._around_collect)
        patches.replace(handlers, "ReceiveMessage", self._around_receive)
        patches.replace(handlers, "DeleteMessage", self._around_delete)
        patches.replace(handlers, "DeleteMessageBatch", self._around_delete)
        patches.replace(sqs, "_delete_messages_for_esm", self._around_poller_delete)
        for module, name in (
            (sns, "_deliver_to_sqs"),
            (eventbridge, "_dispatch_to_sqs"),
            (s3, "_deliver_event_to_sqs"),
            (lambda_svc, "_route_async_failure"),
            (queue_message, "put_message"),
        ):
            patches.replace(module, name, self._around_delivery)

    def _around_send(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def send(data: Mapping[str, Any], url: str) -> Any:
            queue = _queue(data, url)
            sequence = queue["fifo_seq"]
            result = original(data, url)
            # A FIFO duplicate is accepted but not added: the sequence stands still.
            if not queue["is_fifo"] or queue["fifo_seq"] != sequence:
                self.count(queue, "NumberOfMessagesSent")
            return result

        return send

    def _around_delivery(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Count what a service appends to a queue itself; on AWS it calls SendMessage."""

        def deliver(target: object, *args: Any, **kwargs: Any) -> Any:
            queue = sqs._queue_by_arn(str(target))  # noqa: SLF001 -- its index
            before = len(queue["messages"]) if queue else 0
            result = original(target, *args, **kwargs)
            if queue and len(queue["messages"]) > before:
                self.count(queue, "NumberOfMessagesSent")
            return result

        return deliver

    def _around_collect(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def collect(queue: dict[str, Any], *args: Any) -> Any:
            found = original(queue, *args)
            if found:
                self.count(queue, "NumberOfMessagesReceived", len(found))
            return found

        return collect

    def _around_receive(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def receive(data: Mapping[str, Any], url: str) -> Any:
            result = await original(data, url)
            if not result.get("Messages"):
                self.count(_queue(data, url), "NumberOfEmptyReceives")
            return result

        return receive

    def _around_delete(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def delete(data: Mapping[str, Any], url: str) -> Any:
            result = original(data, url)
            done = len(result["Successful"]) if "Successful" in result else 1
            self.count(_queue(data, url), "NumberOfMessagesDeleted", done)
            return result

        return delete

    def _around_poller_delete(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def delete(url: str, handles: set[str]) -> None:
            original(url, handles)
            if handles:
                self.count(_queue({}, url), "NumberOfMessagesDeleted", len(handles))

        return delete

    def count(self, queue: Mapping[str, Any], metric: str, number: int = 1) -> None:
        """Count something that happened to a queue since the last tick."""
        with self._lock:
            self._counts[queue["attributes"]["QueueArn"], metric] += number

    def _around_acquire(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def acquire(func: Any, config: Any) -> Any:
            key, limit = original(func, config)
            if key is None:
                self._invoked(config, store.now(), Throttles=1.0)
            else:
                self._started(key, reserved=account_concurrency.reservation(func, config))
            return key, limit

        return acquire

    def _around_release(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def release(key: str | None) -> None:
            original(key)
            if key is not None:
                with self._lock:
                    self._running[key] -= 1
                    if self._running[key] <= 0:
                        del self._running[key]

        return release

    def _around_dispatch(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def dispatch(
            func: Any, config: Any, event: Any, request_id: str, started: float
        ) -> dict[str, Any]:
            result: dict[str, Any] = original(func, config, event, request_id, started)
            if result.get("throttle"):
                self._invoked(config, started, Throttles=1.0)
                return result
            self._invoked(
                config,
                started,
                Invocations=1.0,
                Errors=1.0 if result.get("error") else 0.0,
                Throttles=0.0,
                Duration=(store.now() - started) * 1000.0,
            )
            return result

        return dispatch

    def _invoked(self, config: Mapping[str, Any], started: float, **metrics: float) -> None:
        """Record one invocation, timestamped when it was invoked, as Lambda does.

        A throttled request is neither an invocation nor an error.
        """
        name = str(config.get("FunctionName", "unknown"))
        if not self._publishes(_function_arn(name)):
            return
        for dimensions in ({"FunctionName": name}, {}):
            for metric, value in metrics.items():
                unit = "Milliseconds" if metric == "Duration" else "Count"
                store.series("AWS/Lambda", metric, dimensions).add(int(started), value, unit)

    def _started(self, key: str, *, reserved: int | None) -> None:
        account, region, _ = key.split(":", 2)
        with self._lock:
            self._running[key] += 1
            (self._reserved.discard if reserved is None else self._reserved.add)(key)
            self._note_peaks({key}, {(account, region)})

    def _note_peaks(self, keys: set[str], scopes: set[Scope]) -> None:
        """Raise the high-water marks to what runs now; the lock is held."""
        current: dict[tuple[str, ...], int] = {
            ("function", key): self._running[key] for key in keys
        }
        for scope in scopes:
            prefix = ":".join(scope) + ":"
            mine = {key: n for key, n in self._running.items() if key.startswith(prefix)}
            free = sum(n for key, n in mine.items() if key not in self._reserved)
            current["account", *scope] = sum(mine.values())
            current["unreserved", *scope] = free
        for mark, number in current.items():
            self._peaks[mark] = max(number, self._peaks.get(mark, 0))

    def _publishes(self, arn: str) -> bool:
        return arn not in self._left_alone

    # Publishing

    def publish(self, start: int, now: float) -> None:
        """Publish the period that began at ``start`` and has just ended."""
        with self._lock:
            counts, self._counts = self._counts, defaultdict(int)
            peaks, self._peaks = self._peaks, {}
            scopes = {tuple(key.split(":", 2)[:2]) for key in self._running}
            self._note_peaks(set(self._running), scopes)  # type: ignore[arg-type]  # pairs by the slice
        for (account, region, _), queue in sqs._queues.all_items():  # noqa: SLF001 -- read, not copied through the API
            with request_scope(account, region):
                self._publish_queue(queue, counts, start, now)
        for mark, number in peaks.items():
            self._publish_peak(mark, number, start)

    def _publish_queue(
        self,
        queue: Mapping[str, Any],
        counts: Mapping[tuple[str, str], int],
        start: int,
        now: float,
    ) -> None:
        arn = queue["attributes"]["QueueArn"]
        if not self._publishes(arn):
            return
        dimensions = {"QueueName": queue["name"]}
        for metric, (value, unit) in gauges(queue, now).items():
            store.series("AWS/SQS", metric, dimensions).add(start, value, unit)
        for metric in _SQS_COUNTS:
            number = float(counts.get((arn, metric), 0))
            store.series("AWS/SQS", metric, dimensions).add(start, number, "Count")

    def _publish_peak(self, mark: tuple[str, ...], number: int, start: int) -> None:
        if not number:
            return
        kind, *rest = mark
        account, region, name = [*rest, ""] if kind != "function" else rest[0].split(":", 2)
        metric = (
            "UnreservedConcurrentExecutions" if kind == "unreserved" else "ConcurrentExecutions"
        )
        dimensions = {"FunctionName": name} if kind == "function" else {}
        with request_scope(account, region):
            if name and not self._publishes(_function_arn(name)):
                return
            store.series("AWS/Lambda", metric, dimensions).add(start, float(number), "Count")


def _queue(data: Mapping[str, Any], url: str) -> dict[str, Any]:
    found: dict[str, Any] = sqs._get_q(data.get("QueueUrl", url))  # noqa: SLF001 -- resolves any form of URL
    return found


def _function_arn(name: str) -> str:
    return f"arn:aws:lambda:{get_region()}:{get_account_id()}:function:{name}"


def _publish_nothing(*_args: Any, **_kwargs: Any) -> None:
    """Replace MiniStack's metrics, which count a throttle twice, as Invocation and as Error too."""


def gauges(queue: Mapping[str, Any], now: float) -> dict[str, tuple[float, str]]:
    """Read a queue's gauges: value and unit by metric name.

    The dead-letter queue's age counts from the move: "the ApproximateAgeOfOldestMessage metric of
    the dead-letter queue represents the time when the message was moved to the dead-letter queue".
    """
    visible = in_flight = delayed = 0
    oldest = now
    arn = queue["attributes"]["QueueArn"]
    for message in queue["messages"]:
        receives = message.get("receive_count", 0)
        if message["visible_at"] <= now:
            visible += 1
        elif receives:
            in_flight += 1
        else:
            delayed += 1
        if receives < POISON_RECEIVES or "DeadLetterQueueSourceArn" in message.get("sys", ()):
            since = _in_queue_since(message, arn, now)
            oldest = min(since, oldest)
    return {
        "ApproximateNumberOfMessagesVisible": (float(visible), "Count"),
        "ApproximateNumberOfMessagesNotVisible": (float(in_flight), "Count"),
        "ApproximateNumberOfMessagesDelayed": (float(delayed), "Count"),
        "ApproximateAgeOfOldestMessage": (float(int(now - oldest)), "Seconds"),
    }


def _in_queue_since(message: dict[str, Any], queue_arn: str, now: float) -> float:
    source = message.get("sys", {}).get("DeadLetterQueueSourceArn")
    if not source or source == queue_arn:
        return float(message.get("enqueued_at") or message["sent_at"])
    arrived = message.get("_arrived")
    if arrived is None or arrived[0] != queue_arn:
        # First seen here: MiniStack sets visible_at to the moment of the move.
        arrived = message["_arrived"] = (queue_arn, min(now, message["visible_at"]))
    return float(arrived[1])


# Step Functions

_EXECUTION_METRICS = {
    "RUNNING": "ExecutionsStarted",
    "SUCCEEDED": "ExecutionsSucceeded",
    "FAILED": "ExecutionsFailed",
    "TIMED_OUT": "ExecutionsTimedOut",
    "ABORTED": "ExecutionsAborted",
}


def _around_status(original: Callable[..., Any]) -> Callable[..., Any]:
    def emit(execution: Mapping[str, Any]) -> None:
        original(execution)
        metric = _EXECUTION_METRICS.get(execution["status"])
        if metric is None:
            return
        now = store.now()
        dimensions = {"StateMachineArn": execution["stateMachineArn"]}
        store.series("AWS/States", metric, dimensions).add(int(now), 1.0, "Count")
        if execution.get("stopDate"):
            started = datetime.fromisoformat(execution["startDate"]).timestamp()
            stopped = datetime.fromisoformat(execution["stopDate"]).timestamp()
            store.series("AWS/States", "ExecutionTime", dimensions).add(
                int(now), (stopped - started) * 1000.0, "Milliseconds"
            )

    return emit


# Embedded metric format


def _around_log_events(original: Callable[..., Any]) -> Callable[..., Any]:
    def append(stream: Any, events: Sequence[Mapping[str, Any]]) -> None:
        original(stream, events)
        for event in events:
            message = event["message"]
            if '"_aws"' in message and '"CloudWatchMetrics"' in message:
                publish_embedded(message)

    return append


def publish_embedded(message: str) -> None:
    """Publish the metrics of one EMF log line into the current account and region.

    A line that breaks the specification is logged and left a plain log line, as on AWS.
    """
    try:
        root = json.loads(message[message.index("{") :])
        metadata = root["_aws"]
        second = int(metadata["Timestamp"]) // 1000
        for directive in metadata["CloudWatchMetrics"]:
            for names in directive["Dimensions"] or [[]]:
                dimensions = {name: str(root[name]) for name in names}
                for metric in directive["Metrics"]:
                    values = root[metric["Name"]]
                    target = store.series(directive["Namespace"], metric["Name"], dimensions)
                    for value in values if isinstance(values, list) else [values]:
                        target.add(second, float(value), metric.get("Unit", "None"))
    except (KeyError, TypeError, ValueError) as error:
        logger.warning("A log line in embedded metric format was not understood: %r", error)
