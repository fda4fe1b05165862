"""Targets: from what a person or an alarm names (a name, URL or ARN) to the AWS resource."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from oncall import service
from oncall.errors import BadInput
from oncall.guards import OPT_IN_TAG, OPT_IN_VALUE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oncall.services import Services

_QUEUE_ARN = re.compile(
    r"arn:(?P<partition>[\w-]+):sqs:(?P<region>[\w-]*):(?P<account>\d*):(?P<name>.+)"
)
_QUEUE_URL = re.compile(
    r"https?://(?:sqs\.(?P<region>[a-z]{2}-[\w-]+)\.)?[^/]+/(?P<account>\d{12})/(?P<name>[\w.-]+)"
)
_FUNCTION_ARN = re.compile(
    r"(?P<arn>arn:[\w-]+:lambda:(?P<region>[\w-]+):(?P<account>\d{12}):function:(?P<name>[\w-]+))"
    r"(:[\w$-]+)?"
)
_QUEUES = frozenset({"queue", "dlq"})
_EXAMPLES: Mapping[str, str] = {
    "queue": "orders",
    "dlq": "orders-dlq",
    "function": "checkout-api",
}
MISSING = frozenset(
    {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "ResourceNotFoundException"}
)
"""Error codes that say that there is no such resource."""


@dataclass(frozen=True, slots=True)
class Target:
    """The one resource that a run acts on."""

    arn: str
    name: str
    tags: Mapping[str, str]
    game_day: bool = False
    """Whether it is there to practise on, so that nobody is woken for it."""


def queue_name(text: str) -> str:
    """Return the queue's name from its name, URL or ARN."""
    for pattern in (_QUEUE_ARN, _QUEUE_URL):
        match = pattern.fullmatch(text)
        if match:
            return match["name"]
    return text


def function_name(text: str) -> str:
    """Return the function's name from its name or ARN, without version or alias."""
    match = _FUNCTION_ARN.fullmatch(text)
    return match["name"] if match else text.partition(":")[0]


def arn_of(kind: str, text: str, *, partition: str, region: str, account: str) -> str:
    """Return the ARN of a target of ``kind`` in this account and region.

    ``kind`` is the contract's input: ``queue``, ``dlq``, ``function`` or ``name``. It is the one
    that ``resolve`` finds, so that whoever locks the target locks the same. A function's has no
    version and no alias: its concurrency is one for all of them. A service's is its hosted zone's,
    with the record. Raises ``BadInput``.
    """
    if kind == "function":
        match = _FUNCTION_ARN.fullmatch(text)
        if match:
            return match["arn"]
        return f"arn:{partition}:lambda:{region}:{account}:function:{function_name(text)}"
    if kind == "name":
        about = service.load(text)
        return f"arn:{partition}:route53:::hostedzone/{about.zone_id}/{about.record}"
    if text.startswith("arn:"):
        return text
    if kind not in _QUEUES:
        raise BadInput(f"{kind}: a target of this kind has to be given by its ARN.")
    return f"arn:{partition}:sqs:{region}:{account}:{queue_name(text)}"


def service_name(arn: str) -> str:
    """Return the record of the service that a target's ARN is of."""
    return arn.rpartition("/")[2]


def resolve(aws: Services, kind: str, text: str) -> Target:
    """Find a target and read its tags. Raises ``BadInput`` where there is none."""
    return _RESOLVERS[kind](aws, text)


def queue_url(aws: Services, arn: str) -> str:
    """Return the URL of a queue by its ARN, of any account and Region (SQS ``GetQueueUrl``)."""
    _, _, _, region, account, name = arn.split(":")
    sqs = aws.client("sqs", region)
    return sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]


def _resolve_queue(aws: Services, text: str, kind: str = "queue") -> Target:
    match = _QUEUE_ARN.fullmatch(text) or _QUEUE_URL.fullmatch(text)
    here = aws.settings.region
    _check_region(kind, text, match, here, _EXAMPLES[kind])
    name = queue_name(text)
    sqs = aws.client("sqs")
    try:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
    except ClientError as error:
        if error.response["Error"]["Code"] not in MISSING:
            raise
        raise BadInput(
            f"{kind}: there is no queue {name!r} in {here}. Give the name, URL or ARN of a queue "
            f'there is, for example {{"{kind}": "{_EXAMPLES[kind]}"}}.'
        ) from error
    _check_account(kind, text, match, arn, name)
    return Target(arn=arn, name=name, tags=sqs.list_queue_tags(QueueUrl=url).get("Tags", {}))


def _resolve_function(aws: Services, text: str) -> Target:
    match = _FUNCTION_ARN.fullmatch(text)
    here = aws.settings.region
    _check_region("function", text, match, here, _EXAMPLES["function"])
    name = function_name(text)
    functions = aws.client("lambda")
    try:
        arn = functions.get_function_configuration(FunctionName=name)["FunctionArn"]
    except ClientError as error:
        if error.response["Error"]["Code"] not in MISSING:
            raise
        raise BadInput(
            f"function: there is no function {name!r} in {here}. Give the name or ARN of a "
            f'function there is, for example {{"function": "checkout-api"}}.'
        ) from error
    _check_account("function", text, match, arn, name)
    return Target(arn=arn, name=name, tags=functions.list_tags(Resource=arn)["Tags"])


def _resolve_service(aws: Services, text: str) -> Target:
    """Find a service's file; by it its owner has opted in.

    No tag is read: those of hosted zones come from Route 53's control plane, which may be away.
    """
    here = aws.settings.region
    partition = aws.session.get_partition_for_region(here)
    arn = arn_of("name", text, partition=partition, region=here, account="")
    is_game_day = service.load(text).game_day
    return Target(arn, service_name(arn), {OPT_IN_TAG: OPT_IN_VALUE}, is_game_day)


def _check_region(
    kind: str, text: str, match: re.Match[str] | None, here: str, example: str
) -> None:
    if match and match["region"] not in {None, here}:
        raise BadInput(
            f"{kind}: {text} is in {match['region']}, and this runbook acts in {here}. Run the one "
            f'that is deployed in {match["region"]}, or give for example {{"{kind}": "{example}"}}.'
        )


def _check_account(kind: str, text: str, match: re.Match[str] | None, arn: str, name: str) -> None:
    if match and match["account"] != arn.split(":")[4]:
        raise BadInput(
            f"{kind}: {text} is in account {match['account']}; this runbook acts in its own. "
            f'Give for example {{"{kind}": "{name}"}}.'
        )


_RESOLVERS: Mapping[str, Callable[[Services, str], Target]] = {
    "queue": _resolve_queue,
    "dlq": partial(_resolve_queue, kind="dlq"),
    "function": _resolve_function,
    "name": _resolve_service,
}
