"""Gaps of CloudFormation: properties that are dropped in silence, and a type that is refused.

AWS: `ReservedConcurrentExecutions`, `DeadLetterConfig` and `KmsKeyArn` of a function
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-function.html),
`Enabled`, `Tags` and a `ScalingConfig` from a Number parameter of an event source mapping
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-eventsourcemapping.html),
`TimeToLiveSpecification` and `PointInTimeRecoverySpecification` of a table
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-dynamodb-table.html),
`LoggingConfiguration` of a state machine
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-stepfunctions-statemachine.html)
and `BucketEncryption` of a bucket
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-s3-bucket.html)
take effect, and `AWS::CloudWatch::CompositeAlarm` is a type
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-cloudwatch-compositealarm.html).
A generated name is unique, also where a stack of the same name in another Region has given one to a
resource that belongs to no Region, such as a role: there it is the same in MiniStack, and the
second stack takes the first one's
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-properties-name.html).
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import hashlib
import json
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape

from ministack.core.responses import get_account_id, get_region
from ministack.services import cloudwatch, dynamodb, lambda_svc, s3, stepfunctions
from ministack.services.cloudformation import provisioners
from ministack.services.cloudformation.provisioners import _RESOURCE_HANDLERS

from local.aws.bridges.bridge import Bridge

type _Properties = dict[str, Any]

BRIDGE = Bridge("cloudformation")
_FIRST_ERROR = 400
_SUFFIX_LENGTH = 13
_STREAM_BATCH_SIZE = 100
_MAPPING_NUMBERS = {
    "BatchSize",
    "MaximumBatchingWindowInSeconds",
    "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts",
    "ParallelizationFactor",
}
_MAPPING_SWITCHES = {"BisectBatchOnFunctionError", "Enabled"}


@BRIDGE.replace(provisioners, "_physical_name")
def physical_name(stack_name: str, logical_id: str, **how: Any) -> str:
    """Return a name that ends otherwise in each Region."""
    name = str(_named(stack_name, logical_id, **how))
    own = hashlib.sha256(f"{get_region()} {name}".encode()).hexdigest()[:_SUFFIX_LENGTH]
    return name[:-_SUFFIX_LENGTH] + (own if how.get("lowercase") else own.upper())


_named = BRIDGE.original(provisioners, "_physical_name")


def _as_is(props: _Properties) -> _Properties:
    return props


def _after(
    resource_type: str,
    apply: Callable[[str, _Properties], None],
    typed: Callable[[_Properties], _Properties] = _as_is,
) -> None:
    """Have `apply(physical_id, properties)` follow a resource's creation and update."""
    handler = _RESOURCE_HANDLERS[resource_type]
    create, update = handler["create"], handler["update"]

    @BRIDGE.replace(handler, "create")
    def created(logical_id: str, props: _Properties, stack_name: str) -> Any:
        physical_id, attributes = create(logical_id, typed(props), stack_name)
        apply(physical_id, typed(props))
        return physical_id, attributes

    @BRIDGE.replace(handler, "update")
    def updated(known_id: str, old: _Properties, new: _Properties, *rest: Any, **more: Any) -> Any:
        physical_id, attributes = update(known_id, old, typed(new), *rest, **more)
        apply(physical_id, typed(new))
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


def _typed_mapping(props: _Properties) -> _Properties:
    """Make numbers and booleans of what template parameters hand over as text."""
    typed = dict(props)
    for name in _MAPPING_NUMBERS & props.keys():
        typed[name] = int(props[name])
    for name in _MAPPING_SWITCHES & props.keys():
        typed[name] = props[name] not in (False, "false")
    if scaling := props.get("ScalingConfig"):
        typed["ScalingConfig"] = {name: int(value) for name, value in scaling.items()}
    return typed


def _mapping(mapping_id: str, props: _Properties) -> None:
    mapping = lambda_svc._esms[mapping_id]
    mapping["Enabled"] = props.get("Enabled", True)
    mapping["State"] = "Enabled" if mapping["Enabled"] else "Disabled"
    mapping["Tags"] = {tag["Key"]: tag["Value"] for tag in props.get("Tags") or []}
    if ":dynamodb:" in mapping["EventSourceArn"] and "BatchSize" not in props:
        mapping["BatchSize"] = _STREAM_BATCH_SIZE


def _machine(arn: str, props: _Properties) -> None:
    """Spell the logging configuration as the API does; CloudFormation starts with a capital."""
    if logging := props.get("LoggingConfiguration"):
        stepfunctions._state_machines[arn]["loggingConfiguration"] = _lower(logging)


def _lower(value: Any) -> Any:
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _lower(inner) for key, inner in value.items()}
    return [_lower(inner) for inner in value] if isinstance(value, list) else value


def _table(name: str, props: _Properties) -> None:
    if expiry := props.get("TimeToLiveSpecification"):
        enabled = expiry.get("Enabled") not in (False, "false")
        now = dynamodb._ttl_settings.get(name) or {}
        if (now.get("TimeToLiveStatus") == "ENABLED") != enabled:
            specification = {**expiry, "Enabled": enabled}
            _must_succeed(
                dynamodb._update_ttl({"TableName": name, "TimeToLiveSpecification": specification})
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


def _bucket(name: str, props: _Properties) -> None:
    rules = (props.get("BucketEncryption") or {}).get("ServerSideEncryptionConfiguration") or []
    if not rules:
        s3._bucket_encryption.pop(name, None)
        return
    by_default = rules[0].get("ServerSideEncryptionByDefault") or {}
    inner = "".join(f"<{key}>{escape(str(value))}</{key}>" for key, value in by_default.items())
    with_bucket_key = str(rules[0].get("BucketKeyEnabled", False)).lower()
    s3._bucket_encryption[name] = (
        f'<ServerSideEncryptionConfiguration xmlns="{s3.S3_NS}"><Rule>'
        f"<ApplyServerSideEncryptionByDefault>{inner}</ApplyServerSideEncryptionByDefault>"
        f"<BucketKeyEnabled>{with_bucket_key}</BucketKeyEnabled></Rule>"
        "</ServerSideEncryptionConfiguration>"
    )


def _composite_put(name: str, props: _Properties) -> tuple[str, _Properties]:
    request = {**props, "AlarmName": name}
    _must_succeed(cloudwatch._put_composite_alarm({}, request, False, True))  # noqa: FBT003 -- its signature: CBOR, JSON
    return name, {"Arn": f"arn:aws:cloudwatch:{get_region()}:{get_account_id()}:alarm:{name}"}


def _composite_create(
    logical_id: str, props: _Properties, stack_name: str
) -> tuple[str, _Properties]:
    name = props.get("AlarmName") or physical_name(stack_name, logical_id, max_len=255)
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
_after("AWS::Lambda::EventSourceMapping", _mapping, _typed_mapping)
_after("AWS::StepFunctions::StateMachine", _machine)
_after("AWS::DynamoDB::Table", _table)
_after("AWS::S3::Bucket", _bucket)
BRIDGE.add(
    _RESOURCE_HANDLERS,
    "AWS::CloudWatch::CompositeAlarm",
    {"create": _composite_create, "update": _composite_update, "delete": _composite_delete},
)
