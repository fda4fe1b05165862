"""Gap: an event source mapping made by CloudFormation keeps no tags, and its cap as text.

A cap from a template parameter arrives as text, with which the poller then fails for every mapping
of the server. AWS: Tags is a list of key and value, ScalingConfig.MaximumConcurrency an Integer
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-eventsourcemapping.html),
and CloudFormation converts a Number parameter to what the property takes.
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

from typing import Any

from ministack.services import lambda_svc
from ministack.services.cloudformation import provisioners

from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("event_source_mapping")
_HANDLERS = provisioners._RESOURCE_HANDLERS["AWS::Lambda::EventSourceMapping"]


@BRIDGE.replace(_HANDLERS, "create")
def _create_mapping(logical_id: str, props: dict[str, Any], stack_name: str) -> Any:
    mapping_id, attributes = _create(logical_id, _typed(props), stack_name)
    _tag(mapping_id, props)
    return mapping_id, attributes


@BRIDGE.replace(_HANDLERS, "update")
def _update_mapping(
    physical_id: str, old_props: dict[str, Any], new_props: dict[str, Any], stack_name: str
) -> Any:
    mapping_id, attributes = _update(physical_id, old_props, _typed(new_props), stack_name)
    _tag(mapping_id, new_props)
    return mapping_id, attributes


def _typed(props: dict[str, Any]) -> dict[str, Any]:
    scaling = {key: int(value) for key, value in props.get("ScalingConfig", {}).items()}
    return {**props, "ScalingConfig": scaling} if scaling else props


def _tag(mapping_id: str, props: dict[str, Any]) -> None:
    tags = {tag["Key"]: tag["Value"] for tag in props.get("Tags", [])}
    lambda_svc._esms[mapping_id]["Tags"] = tags


_create = BRIDGE.original(_HANDLERS, "create")
_update = BRIDGE.original(_HANDLERS, "update")
