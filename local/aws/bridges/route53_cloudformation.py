"""Gaps of CloudFormation for Route 53: no health checks and record set groups, wrong name servers.

AWS: the types AWS::Route53::HealthCheck
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-route53-healthcheck.html)
and AWS::Route53::RecordSetGroup
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-route53-recordsetgroup.html);
`NameServers` of a zone are those of its delegation set
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-route53-hostedzone.html).
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

from typing import Any

from ministack.services import route53
from ministack.services.cloudformation import provisioners

from local.aws.bridges import route53_records
from local.aws.bridges.bridge import Bridge
from local.aws.bridges.route53_health_checks import complete
from local.aws.route53 import checkers

type _Properties = dict[str, Any]
type _Made = tuple[str, _Properties]

BRIDGE = Bridge("route53_cloudformation")
_HANDLERS = provisioners._RESOURCE_HANDLERS
_NUMBERS = ("Port", "RequestInterval", "FailureThreshold", "HealthThreshold")
_SWITCHES = ("MeasureLatency", "EnableSNI", "Inverted", "Disabled")
# Of these the reference says that an update replaces the check.
_FIXED = ("Type", "RequestInterval", "MeasureLatency", "RoutingControlArn")


def _create_check(_logical_id: str, props: _Properties, _stack_name: str) -> _Made:
    check_id = route53._hc_id()
    route53._health_checks[check_id] = {
        "id": check_id, "caller_reference": check_id, "config": _config(props), "version": 1,
    }  # fmt: skip
    route53._hc_caller_refs[check_id] = check_id
    _tag(check_id, props)
    return check_id, {"HealthCheckId": check_id}


def _update_check(
    check_id: str, old: _Properties, props: _Properties, stack_name: str, **_more: Any
) -> _Made:
    before, after = _config(old), _config(props)
    if any(before.get(name) != after.get(name) for name in _FIXED):
        return _create_check(check_id, props, stack_name)
    check = route53._health_checks[check_id]
    check["config"], check["version"] = after, check["version"] + 1
    _tag(check_id, props)
    return check_id, {"HealthCheckId": check_id}


def _delete_check(check_id: str, _props: _Properties) -> None:
    check = route53._health_checks.pop(check_id, None)
    if check:
        route53._hc_caller_refs.pop(check["caller_reference"], None)
    checkers.forget(check_id)


def _config(props: _Properties) -> _Properties:
    """Return the HealthCheckConfig with the API's types; template parameters hand over text."""
    config = dict(props["HealthCheckConfig"])
    for name in _NUMBERS:
        if name in config:
            config[name] = int(config[name])
    for name in _SWITCHES:
        if name in config:
            config[name] = config[name] not in (False, "false")
    return complete(config)


def _tag(check_id: str, props: _Properties) -> None:
    tags = {tag["Key"]: tag["Value"] for tag in props.get("HealthCheckTags") or []}
    route53._tags["healthcheck", check_id] = tags


def _members(props: _Properties) -> list[_Properties]:
    zone: _Properties = {
        name: props[name] for name in ("HostedZoneId", "HostedZoneName") if name in props
    }
    return [{**zone, **record} for record in props.get("RecordSets") or []]


def _create_group(logical_id: str, props: _Properties, stack_name: str) -> _Made:
    made: list[_Properties] = []
    try:
        for record in _members(props):
            route53_records.create_record_set(logical_id, record, stack_name)
            made.append(record)
    except ValueError:
        for record in made:
            provisioners._r53_record_set_delete("", record)
        raise
    return f"{stack_name}-{logical_id}", {}


def _update_group(
    physical_id: str, old: _Properties, props: _Properties, stack_name: str, **_more: Any
) -> _Made:
    _delete_group(physical_id, old)
    try:
        _create_group(physical_id, props, stack_name)
    except ValueError:
        _create_group(physical_id, old, stack_name)
        raise
    return physical_id, {}


def _delete_group(_physical_id: str, props: _Properties) -> None:
    for record in reversed(_members(props)):
        provisioners._r53_record_set_delete("", record)


@BRIDGE.replace(_HANDLERS["AWS::Route53::HostedZone"], "create")
def _create_zone(logical_id: str, props: _Properties, stack_name: str) -> _Made:
    zone_id, attributes = _zone(logical_id, props, stack_name)
    servers = [name.rstrip(".") for name in route53._DEFAULT_NS]
    return zone_id, {**attributes, "NameServers": servers}


_zone = BRIDGE.original(_HANDLERS["AWS::Route53::HostedZone"], "create")
BRIDGE.add(
    _HANDLERS,
    "AWS::Route53::HealthCheck",
    {"create": _create_check, "update": _update_check, "delete": _delete_check},
)
BRIDGE.add(
    _HANDLERS,
    "AWS::Route53::RecordSetGroup",
    {"create": _create_group, "update": _update_group, "delete": _delete_group},
)
