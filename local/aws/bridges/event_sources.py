"""Gaps of event source mappings: DynamoDB streams' failure handling, and SQS pollers' concurrency.

AWS, DynamoDB streams: a batch waits up to `MaximumBatchingWindowInSeconds` to fill; on an error it
is tried again, halved first where `BisectBatchOnFunctionError` says so (a split does not count as a
retry), until `MaximumRetryAttempts` (no limit by default; throttles do not count) or
`MaximumRecordAgeInSeconds`, then it goes to the OnFailure destination as metadata and the shard
moves on; with `ReportBatchItemFailures` the lowest failed sequence number is the new checkpoint
(https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html,
https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html).

AWS, SQS: pollers scale without regard to reserved concurrency, and what is throttled is received
again after its visibility timeout; `MaximumConcurrency` alone limits them
(https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html). An update of a mapping is
asynchronous: `State` is first `Updating`, `Enabling` or `Disabling`
(https://docs.aws.amazon.com/lambda/latest/api/API_UpdateEventSourceMapping.html).
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from ministack.core.responses import request_scope
from ministack.services import dynamodb, lambda_svc

from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("event_sources")
_FIRST_RETRY_SECONDS = 0.1
_LONGEST_RETRY_SECONDS = 2.0
_STREAM_BATCH_SIZE = 100
_ACCEPTED = 202


@dataclass
class _Shard:
    """How far a mapping has read its table's stream (MiniStack has one shard a stream)."""

    attempts: int = 0
    ready_at: float = 0
    waiting_since: float = 0
    busy: bool = False
    ends: list[int] = field(default_factory=list)
    """Where halved batches end, the next one last."""


_shards: dict[str, _Shard] = {}


@BRIDGE.replace(lambda_svc, "_poll_dynamodb_streams")
def _poll_dynamodb_streams() -> bool:
    taken = False
    for account, region, mapping in lambda_svc._iter_all_esms():
        with request_scope(account, region):
            taken = _poll(mapping) or taken
    return taken


def _poll(mapping: dict[str, Any]) -> bool:
    """Start the mapping's next batch, if one is due; tell whether it did."""
    source = mapping.get("EventSourceArn", "")
    if ":dynamodb:" not in source or not mapping.get("Enabled", True):
        return False
    table = source.split(":table/")[1].split("/")[0]
    stored = dynamodb._tables.get(table)
    if not stored or stored.get("LatestStreamArn") != source:
        return False
    function, _ = lambda_svc._get_func_record_for_qualifier(
        mapping["FunctionName"], mapping.get("Qualifier")
    )
    shard = _shards.setdefault(mapping["UUID"], _Shard())
    if function is None or shard.busy or shard.ready_at > time.monotonic():
        return False
    position = _position(mapping, table)
    size = mapping.get("BatchSize", _STREAM_BATCH_SIZE)
    records = dynamodb.stream_records_since(table, position, size)
    if shard.ends:
        records = records[: shard.ends[-1] - position]
    if not records or _still_filling(mapping, shard, len(records) < size):
        return False
    shard.busy = True
    lambda_svc._dispatch_esm_batch(
        mapping["UUID"], _run, mapping, function, shard, position, records
    )
    return True


def _position(mapping: dict[str, Any], table: str) -> int:
    horizon: int = dynamodb.stream_start_position(table)
    positions = lambda_svc._dynamodb_stream_positions
    with lambda_svc._dynamodb_stream_positions_lock:
        if mapping["UUID"] not in positions:
            from_start = mapping.get("StartingPosition") == "TRIM_HORIZON"
            positions[mapping["UUID"]] = (
                horizon if from_start else dynamodb.stream_end_position(table)
            )
        return max(int(positions[mapping["UUID"]]), horizon)


def _still_filling(mapping: dict[str, Any], shard: _Shard, has_room: bool) -> bool:  # noqa: FBT001 -- a fact, not a switch
    window = mapping.get("MaximumBatchingWindowInSeconds") or 0
    if not window or not has_room or shard.attempts or shard.ends:
        shard.waiting_since = 0
        return False
    now = time.monotonic()
    if not shard.waiting_since:
        shard.waiting_since = now
        _wake_after(window)
    if now - shard.waiting_since < window:
        return True
    shard.waiting_since = 0
    return False


def _run(
    mapping: dict[str, Any],
    function: dict[str, Any],
    shard: _Shard,
    position: int,
    records: list[dict[str, Any]],
) -> None:
    try:
        wanted = lambda_svc._apply_filter_criteria(records, mapping)
        result = (
            lambda_svc._execute_function(function, {"Records": wanted})
            if wanted
            else {"body": None}
        )
        done = _count_done(mapping, records, result)
        _advance(mapping, shard, position + done)
        if done < len(records):
            _failed(
                mapping,
                function,
                shard,
                position + done,
                records=records[done:],
                result=result,
            )
        else:
            mapping["LastProcessingResult"] = "OK"
    finally:
        shard.busy = False


def _count_done(
    mapping: dict[str, Any], records: list[dict[str, Any]], result: dict[str, Any]
) -> int:
    """Return how many records, from the first, need not be read again."""
    if result.get("error"):
        return 0
    if "ReportBatchItemFailures" not in (mapping.get("FunctionResponseTypes") or []):
        return len(records)
    body = result.get("body")
    failures = body.get("batchItemFailures") if isinstance(body, dict) else None
    if not failures:
        return len(records)
    numbers = [str(record["dynamodb"]["SequenceNumber"]) for record in records]
    named = [failure.get("itemIdentifier") for failure in failures]
    # A name that is not in the batch makes the whole batch a failure.
    return min(numbers.index(name) if name in numbers else 0 for name in named)


def _advance(mapping: dict[str, Any], shard: _Shard, position: int) -> None:
    positions = lambda_svc._dynamodb_stream_positions
    with lambda_svc._dynamodb_stream_positions_lock:
        before = positions.get(mapping["UUID"], 0)
        if mapping["UUID"] in lambda_svc._esms:
            positions[mapping["UUID"]] = position
    if position > before:
        shard.attempts = 0
        shard.ends = [end for end in shard.ends if end > position]


def _failed(
    mapping: dict[str, Any],
    function: dict[str, Any],
    shard: _Shard,
    position: int,
    *,
    records: list[dict[str, Any]],
    result: dict[str, Any],
) -> None:
    mapping["LastProcessingResult"] = "PROBLEM: Function call failed"
    if not result.get("throttle"):
        if mapping.get("BisectBatchOnFunctionError") and len(records) > 1:
            end = position + len(records)
            if not shard.ends or shard.ends[-1] > end:
                shard.ends.append(end)
            shard.ends.append(position + len(records) // 2)
        else:
            shard.attempts += 1
    if condition := _given_up(mapping, shard, records):
        lambda_svc._send_ddb_stream_failure_record(
            mapping, function, records, mapping["EventSourceArn"], result, condition
        )
        _advance(mapping, shard, position + len(records))
        return
    pause = min(_FIRST_RETRY_SECONDS * 2**shard.attempts, _LONGEST_RETRY_SECONDS)
    shard.ready_at = time.monotonic() + pause
    _wake_after(pause)


def _given_up(mapping: dict[str, Any], shard: _Shard, records: list[dict[str, Any]]) -> str:
    retries = mapping.get("MaximumRetryAttempts")
    if retries is not None and int(retries) >= 0 and shard.attempts > int(retries):
        return "RetryAttemptsExhausted"
    age = int(mapping.get("MaximumRecordAgeInSeconds") or -1)
    oldest = float(records[0]["dynamodb"].get("ApproximateCreationDateTime", time.time()))
    return "MaxRecordAgeExceeded" if 0 < age < time.time() - oldest else ""


def _wake_after(seconds: float) -> None:
    timer = threading.Timer(seconds + 0.005, lambda_svc._esm_wake.set)
    timer.daemon = True
    timer.start()


@BRIDGE.replace(lambda_svc, "_release_esm_poll_state")
def _release_esm_poll_state(mapping_id: str) -> None:
    _shards.pop(mapping_id, None)
    _release(mapping_id)


@BRIDGE.replace(lambda_svc, "_sqs_esm_concurrency")
def _sqs_esm_concurrency(
    mapping: dict[str, Any],
    function: dict[str, Any],
    config: dict[str, Any],
    queue: dict[str, Any] | None = None,
) -> int:
    unreserved = {
        key: value for key, value in config.items() if key != "ReservedConcurrentExecutions"
    }
    limit: int = _concurrency(mapping, {**function, "concurrency": None}, unreserved, queue)
    return limit


@BRIDGE.replace(lambda_svc, "_update_esm")
def _update_esm(mapping_id: str, data: dict[str, Any]) -> Any:
    before = (lambda_svc._esms.get(mapping_id) or {}).get("Enabled")
    status, headers, body = _update(mapping_id, data)
    if status >= 300:  # noqa: PLR2004 -- HTTP: an error
        return status, headers, body
    mapping = json.loads(body)
    lambda_svc._esm_wake.set()
    if "Enabled" in data and data["Enabled"] != before:
        mapping["State"] = "Enabling" if data["Enabled"] else "Disabling"
    else:
        mapping["State"] = "Updating"
    return _ACCEPTED, headers, json.dumps(mapping).encode()


@BRIDGE.replace(lambda_svc, "_create_esm")
def _create_esm(data: dict[str, Any]) -> Any:
    if ":dynamodb:" in data.get("EventSourceArn", ""):
        data = {"BatchSize": _STREAM_BATCH_SIZE, **data}
    return _create(data)


_release = BRIDGE.original(lambda_svc, "_release_esm_poll_state")
_concurrency = BRIDGE.original(lambda_svc, "_sqs_esm_concurrency")
_update = BRIDGE.original(lambda_svc, "_update_esm")
_create = BRIDGE.original(lambda_svc, "_create_esm")
