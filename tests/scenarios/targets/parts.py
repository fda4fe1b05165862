"""What targets are made of."""

import io
import json
import zipfile
from collections.abc import Mapping
from functools import partial
from typing import Any

from ministack.services import lambda_svc

from local.playground import REGION
from tests.scenarios.targets.base import OPT_IN, Json
from tests.scenarios.world import Metric, World

_WORKER = "def handler(event, context):\n    return {'batchItemFailures': []}\n"


def code(version: int = 1) -> bytes:
    """Return a function's code, of which each version differs."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("app.py", f"{_WORKER}# {version}\n")
    return packed.getvalue()


def function(
    world: World, name: str, *, opted_in: bool, reserved: int | None, timeout_seconds: int = 30
) -> str:
    """Create a function that publishes no metrics of its own; return its ARN."""
    functions = world.client("lambda")
    pilot = functions.get_function_configuration(FunctionName=world.ground.pilot.worker_function)
    arn = functions.create_function(
        FunctionName=name,
        Runtime="python3.13",
        Role=pilot["Role"],
        Handler="app.handler",
        Code={"ZipFile": code()},
        Timeout=timeout_seconds,
        Tags=OPT_IN if opted_in else {},
    )["FunctionArn"]
    world.worlds.leave_alone((arn,))
    if reserved is not None:
        reserve(world, name, reserved)
    return str(arn)


def reserve(world: World, name: str, reserved: int | None) -> None:
    """Set or delete a function's reservation."""
    functions = world.client("lambda")
    if reserved is None:
        functions.delete_function_concurrency(FunctionName=name)
    else:
        functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=reserved)


def reservation(world: World, name: str) -> int | None:
    """Return a function's reservation, or None where it has none."""
    found = world.client("lambda").get_function_concurrency(FunctionName=name)
    reserved: int | None = found.get("ReservedConcurrentExecutions")
    return reserved


def mapping(
    world: World,
    queue_arn: str,
    name: str,
    *,
    cap: int | None,
    opted_in: bool = True,
    enabled: bool = True,
) -> str:
    """Let a function consume a queue, of which its poller takes nothing; return the UUID."""
    functions = world.client("lambda")
    uuid = functions.create_event_source_mapping(
        EventSourceArn=queue_arn,
        FunctionName=name,
        BatchSize=10,
        Enabled=False,
        Tags=OPT_IN if opted_in else {},
        **({} if cap is None else {"ScalingConfig": {"MaximumConcurrency": cap}}),
    )["UUID"]
    world.worlds.held.add(uuid)
    if enabled:
        functions.update_event_source_mapping(UUID=uuid, Enabled=True)
    return str(uuid)


def mapping_arn(world: World, uuid: str) -> str:
    """Return a mapping's ARN."""
    return f"arn:aws:lambda:{REGION}:{world.aws.account}:event-source-mapping:{uuid}"


def queue(world: World, name: str, tags: dict[str, str], **attributes: Any) -> tuple[str, str]:
    """Create a queue that publishes no metrics of its own; return its URL and ARN."""
    url = world.client("sqs").create_queue(
        QueueName=name,
        Attributes={
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in attributes.items()
        },
        tags=tags,
    )["QueueUrl"]
    arn = f"arn:aws:sqs:{REGION}:{world.aws.account}:{name}"
    world.worlds.leave_alone((arn,))
    return str(url), arn


def forget_queue(world: World, url: str) -> None:
    """Delete a queue and what consumes it."""
    functions = world.client("lambda")
    arn = f"arn:aws:sqs:{REGION}:{world.aws.account}:{url.rsplit('/', 1)[-1]}"
    found = functions.list_event_source_mappings(EventSourceArn=arn)["EventSourceMappings"]
    for one in found:
        functions.delete_event_source_mapping(UUID=one["UUID"])
    world.client("sqs").delete_queue(QueueUrl=url)


def untag(world: World, arn: str) -> None:
    """Take the opt-in off, as its owner would."""
    world.client("lambda").untag_resource(Resource=arn, TagKeys=list(OPT_IN))


def function_tags(name: str) -> dict[str, str]:
    """Return a function's own tags, to be changed; within ``request_scope``."""
    tags: dict[str, str] = lambda_svc._functions[name]["tags"]
    return tags


def mapping_tags(uuid: str) -> dict[str, str]:
    """Return a mapping's own tags, to be changed; within ``request_scope``."""
    tags: dict[str, str] = lambda_svc._esms[uuid]["Tags"]
    return tags


def queue_metrics(queue: str, dead_letters: str, function: str) -> Mapping[str, Metric]:
    """Return the metrics of a queue, its dead-letter queue and its consumer."""
    sqs = partial(Metric, "AWS/SQS", {"QueueName": queue})
    of_function = partial(Metric, "AWS/Lambda", {"FunctionName": function})
    return {
        "depth": sqs("ApproximateNumberOfMessagesVisible"),
        "oldest_age": sqs("ApproximateAgeOfOldestMessage"),
        "sent": sqs("NumberOfMessagesSent"),
        "received": sqs("NumberOfMessagesReceived"),
        "deleted": sqs("NumberOfMessagesDeleted"),
        "dead_letters": Metric(
            "AWS/SQS", {"QueueName": dead_letters}, "ApproximateNumberOfMessagesVisible"
        ),
        "invocations": of_function("Invocations"),
        "errors": of_function("Errors"),
        "throttles": of_function("Throttles"),
        "duration": of_function("Duration"),
        "concurrency": of_function("ConcurrentExecutions"),
    }


def depth_alarm(queue: str) -> Json:
    """Return what an alarm on a queue's depth watches."""
    return {
        "Namespace": "AWS/SQS",
        "MetricName": "ApproximateNumberOfMessagesVisible",
        "Dimensions": [{"Name": "QueueName", "Value": queue}],
        "Statistic": "Maximum",
        "Period": 1,
    }
