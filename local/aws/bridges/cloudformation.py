"""Gaps of CloudFormation: properties that are dropped in silence, and a type that is refused.

AWS: `ReservedConcurrentExecutions`, `DeadLetterConfig` and `KmsKeyArn` of a function
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-function.html),
`Enabled` and `Tags` of an event source mapping
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-eventsourcemapping.html),
`TimeToLiveSpecification` and `PointInTimeRecoverySpecification` of a table
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-dynamodb-table.html)
take effect, and `AWS::CloudWatch::CompositeAlarm` is a type
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-cloudwatch-compositealarm.html).
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import json
from collections.abc import Callable
from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.services import cloudwatch, dynamodb, lambda_svc
from ministack.services.cloudformation.provisioners import _RESOURCE_HANDLERS, _physical_name

from local.aws.bridges.bridge import Bridge

type _Properties = dict[str, Any]

BRIDGE = Bridge("cloudformation")
_FIRST_ERROR = 400
_STREAM_BATCH_SIZE = 100


def _after(resource_type: str, apply: Callable[[str, _Properties], None]) -> None:
    """Have `apply(physical_id, properties)` follow a resource's creation and update."""
    handler = _RESOURCE_HANDLERS[resource_type]
    create, update = handler["create"], handler["update"]

    @BRIDGE.replace(handler, "create")
    def created(logical_id: str, props: _Properties, stack_name: str) -> Any:
        physical_id, attributes = create(logical_id, props, stack_name)
        apply(physical_id, props)
        return physical_id, attributes

    @BRIDGE.replace(handler, "update")
    def updated(known_id: str, old: _Properties, new: _Properties, *rest: Any, **more: Any) -> Any:
        physical_id, attributes = update(known_id, old, new, *rest, **more)
        apply(physical_id, new)
        return physical_id, attributes


def _function(name: str, props: _Properties) -> None:
    record = lambda_svc._functions[name]
    reserved = props.get("ReservedConcurrentExecutions")
    if reserved is None:
        record["concurrency"] = None
    else:
        answer = lambda_svc._put_function_concurrency(
            name, {"ReservedConcurrentExecutions": int(reserved)}
        )
        _must_succeed(answer)
    for name_in_template, name_in_api in (
        ("DeadLetterConfig", "DeadLetterConfig"),
        ("KmsKeyArn", "KMSKeyArn"),
    ):
        if name_in_template in props:
            record["config"][name_in_api] = props[name_in_template]
        else:
            record["config"].pop(name_in_api, None)


def _mapping(mapping_id: str, props: _Properties) -> None:
    mapping = lambda_svc._esms[mapping_id]
    mapping["Enabled"] = props.get("Enabled", True) not in (False, "false")
    mapping["State"] = "Enabled" if mapping["Enabled"] else "Disabled"
    mapping["Tags"] = {tag["Key"]: tag["Value"] for tag in props.get("Tags") or []}
    if ":dynamodb:" in mapping["EventSourceArn"] and "BatchSize" not in props:
        mapping["BatchSize"] = _STREAM_BATCH_SIZE


def _table(name: str, props: _Properties) -> None:
    if expiry := props.get("TimeToLiveSpecification"):
        enabled = expiry.get("Enabled") not in (False, "false")
        now = dynamodb._ttl_settings.get(name) or {}
        if (now.get("TimeToLiveStatus") == "ENABLED") != enabled:
            specification = {**expiry, "Enabled": enabled}
            _must_succeed(
                dynamodb._update_ttl(
                    {"TableName": name, "TimeToLiveSpecification": specification}
                )
            )
    if recovery := props.get("PointInTimeRecoverySpecification"):
        enabled = recovery.get("PointInTimeRecoveryEnabled") not in (False, "false")
        _must_succeed(
            dynamodb._update_continuous_backups(
                {
                    "TableName": name,
                    "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": enabled},
                }
            )
        )


def _composite_put(name: str, props: _Properties) -> tuple[str, _Properties]:
    request = {**props, "AlarmName": name}
    _must_succeed(cloudwatch._put_composite_alarm({}, request, False, True))  # noqa: FBT003 -- its signature: CBOR, JSON
    return name, {"Arn": f"arn:aws:cloudwatch:{get_region()}:{get_account_id()}:alarm:{name}"}


def _composite_create(
    logical_id: str, props: _Properties, stack_name: str
) -> tuple[str, _Properties]:
    name = props.get("AlarmName") or _physical_name(stack_name, logical_id, max_len=255)
    return _composite_put(name, props)


def _composite_update(
    name: str, _old: _Properties, props: _Properties, _stack_name: str
) -> tuple[str, _Properties]:
    return _composite_put(name, props)


def _composite_delete(name: str, _props: _Properties) -> None:
    cloudwatch._composite_alarms.pop(name, None)


def _must_succeed(answer: tuple[int, Any, Any]) -> None:
    """Fail the resource with the API's own message."""
    status, _, body = answer
    if status >= _FIRST_ERROR:
        error = json.loads(body)
        raise ValueError(error.get("message") or error.get("Message") or str(error))


_after("AWS::Lambda::Function", _function)
_after("AWS::Lambda::EventSourceMapping", _mapping)
_after("AWS::DynamoDB::Table", _table)
BRIDGE.add(
    _RESOURCE_HANDLERS,
    "AWS::CloudWatch::CompositeAlarm",
    {"create": _composite_create, "update": _composite_update, "delete": _composite_delete},
)
