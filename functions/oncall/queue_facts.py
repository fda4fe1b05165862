"""Read a queue, its consumer, what they share and their metrics: the I/O before ``queues``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import metrics
from oncall.levers import MAPPING_ENABLED
from oncall.metrics import Window
from oncall.queues import Facts, work_per_message
from oncall.targets import queue_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_lambda.type_defs import EventSourceMappingConfigurationTypeDef

    from oncall.incident import Change
    from oncall.services import Services

BACK_PRESSURE_TAG = "runbook:back-pressure"
SAFE_SIZE_TAG = "runbook:safe-size"


def read_facts(aws: Services, runbook: str, arn: str) -> Facts:
    """Read the facts of the queue ``arn`` now."""
    rules = contracts.load(runbook).verification
    url = queue_url(aws, arn)
    queue = _queue(aws, url, arn)
    declared = tags(aws, url)
    mappings = _mappings(aws, queue=arn)
    consumer = _consumer(aws, mappings[0]) if len(mappings) == 1 else {}
    series = _metrics(
        aws,
        queue=queue["queue"],
        dlq=queue["dlq"],
        function=consumer.get("function"),
        window=int(rules["window_periods"]),
        baseline=int(rules["baseline_periods"]),
    )
    back_pressure = declared.get(BACK_PRESSURE_TAG)
    safe_size = declared.get(SAFE_SIZE_TAG, "")
    return Facts(
        period_seconds=aws.settings.period_seconds,
        mappings=len(mappings),
        account_floor=aws.settings.account_floor,
        back_pressure=back_pressure,
        back_pressure_value=_parameter(aws, back_pressure) if back_pressure else None,
        safe_size=int(safe_size) if safe_size.isdigit() else None,
        **queue,
        **consumer,
        **series,
    )


def _queue(aws: Services, url: str, arn: str) -> dict[str, Any]:
    """Read the queue (SQS ``GetQueueAttributes``) and its dead-letter queue's depth."""
    found = attributes(aws, url)
    redrive = _redrive(found)
    dlq_arn = str(redrive.get("deadLetterTargetArn", ""))
    dlq_visible = None
    if dlq_arn:
        dlq = attributes(aws, queue_url(aws, dlq_arn))
        dlq_visible = int(dlq["ApproximateNumberOfMessages"])
    received = redrive.get("maxReceiveCount")
    return {
        "queue": arn.rsplit(":", 1)[-1],
        "queue_arn": arn,
        "fifo": arn.endswith(".fifo"),
        "visible": int(found["ApproximateNumberOfMessages"]),
        "in_flight": int(found["ApproximateNumberOfMessagesNotVisible"]),
        "delayed": int(found["ApproximateNumberOfMessagesDelayed"]),
        "visibility_timeout": int(found["VisibilityTimeout"]),
        "max_receive_count": int(received) if received else None,
        "dlq": dlq_arn.rsplit(":", 1)[-1] or None,
        "dlq_visible": dlq_visible,
    }


def attributes(aws: Services, url: str, region: str = "") -> Mapping[str, str]:
    """Return all of a queue's attributes (SQS ``GetQueueAttributes``)."""
    answer = aws.client("sqs", region).get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    return {str(name): value for name, value in answer["Attributes"].items()}


def tags(aws: Services, url: str) -> Mapping[str, str]:
    """Return a queue's tags (SQS ``ListQueueTags``)."""
    return aws.client("sqs").list_queue_tags(QueueUrl=url).get("Tags", {})


def _redrive(attributes: Mapping[str, str]) -> Mapping[str, Any]:
    policy = attributes.get("RedrivePolicy")
    return dict(json.loads(policy)) if policy else {}


def _mappings(
    aws: Services, *, queue: str = "", function: str = ""
) -> list[EventSourceMappingConfigurationTypeDef]:
    paginator = aws.client("lambda").get_paginator("list_event_source_mappings")
    pages = (
        paginator.paginate(EventSourceArn=queue)
        if queue
        else paginator.paginate(FunctionName=function)
    )
    return [mapping for page in pages for mapping in page["EventSourceMappings"]]


def _consumer(aws: Services, mapping: EventSourceMappingConfigurationTypeDef) -> dict[str, Any]:
    """Read the mapping, its function and the account's concurrency."""
    functions = aws.client("lambda")
    function_arn = mapping["FunctionArn"]
    configuration = functions.get_function_configuration(FunctionName=function_arn)
    reserved = functions.get_function_concurrency(FunctionName=function_arn)
    account = functions.get_account_settings()["AccountLimit"]
    lease = aws.store.lease(MAPPING_ENABLED, mapping["EventSourceMappingArn"])
    others = [
        other.get("ScalingConfig", {}).get("MaximumConcurrency", 0)
        for other in _mappings(aws, function=function_arn)
        if other["UUID"] != mapping["UUID"]
    ]
    return {
        "mapping_arn": mapping["EventSourceMappingArn"],
        "mapping_state": mapping["State"],
        "mapping_concurrency": mapping.get("ScalingConfig", {}).get("MaximumConcurrency"),
        "mapping_provisioned": bool(mapping.get("ProvisionedPollerConfig")),
        "batch_size": mapping["BatchSize"],
        "disabled_by": _ended_disabler(aws, lease),
        "function": configuration["FunctionName"],
        "function_arn": configuration["FunctionArn"],
        "function_timeout": configuration["Timeout"],
        "reserved": reserved.get("ReservedConcurrentExecutions"),
        "other_caps": sum(others),
        "account_limit": account["ConcurrentExecutions"],
        "unreserved": account["UnreservedConcurrentExecutions"],
    }


def _ended_disabler(aws: Services, lease: Change | None) -> str | None:
    """Return the incident that has disabled the mapping, left it so and ended."""
    if lease is None or lease.after is not False:
        return None
    incident = aws.store.find(lease.incident)
    return lease.incident if incident is None or incident.status == "closed" else None


def _parameter(aws: Services, name: str) -> str | None:
    found = aws.client("ssm").get_parameters(Names=[name])["Parameters"]
    return found[0]["Value"] if found else None


def _metrics(
    aws: Services, *, queue: str, dlq: str | None, function: str | None, window: int, baseline: int
) -> dict[str, Any]:
    """Read all metrics in one call (CloudWatch ``GetMetricData``, oldest first).

    The window ends with the last whole period; the baseline lies before the window.
    """
    queries = {
        "depths": _of_queue("ApproximateNumberOfMessagesVisible", queue, "Maximum"),
        "oldest_age": _of_queue("ApproximateAgeOfOldestMessage", queue, "Maximum"),
        "sent": _of_queue("NumberOfMessagesSent", queue, "Sum"),
        "received": _of_queue("NumberOfMessagesReceived", queue, "Sum"),
        "deleted": _of_queue("NumberOfMessagesDeleted", queue, "Sum"),
    }
    if dlq:
        queries["dlq_depths"] = _of_queue("ApproximateNumberOfMessagesVisible", dlq, "Maximum")
    if function:
        queries |= {
            "invocations": _of_function("Invocations", function, "Sum"),
            "errors": _of_function("Errors", function, "Sum"),
            "throttles": _of_function("Throttles", function, "Sum"),
            "duration": _of_function("Duration", function, "Sum"),
            "concurrency": _of_function("ConcurrentExecutions", function, "Maximum"),
        }
    now = Window.latest(aws, window)
    series = metrics.read(aws, queries, now)
    usual = None
    if function:
        whole = {name: queries[name] for name in ("duration", "received")}
        usual = work_per_message(**metrics.read(aws, whole, now.before(aws, baseline)))
    return {**series, "usual_work": usual}


def _of_queue(metric: str, name: str, statistic: str) -> metrics.Query:
    return metrics.query("AWS/SQS", metric, statistic, QueueName=name)


def _of_function(metric: str, name: str, statistic: str) -> metrics.Query:
    return metrics.query("AWS/Lambda", metric, statistic, FunctionName=name)
