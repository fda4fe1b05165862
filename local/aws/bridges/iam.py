"""Gaps in authorization: actions of Lambda and of batches, and condition keys of roles.

MiniStack takes GetFunctionConcurrency for PutFunctionConcurrency, GetEventSourceMapping for
ListEventSourceMappings, PutProvisionedConcurrencyConfig for UpdateFunctionCode, and does not check
UpdateEventSourceMapping or GetAccountSettings at all; it takes an alias for its function, and knows
no tags of event source mappings and aliases, nor `cloudwatch:namespace`, `lambda:FunctionArn` and
`route53:ChangeResourceRecordSetsNormalizedRecordNames` with its kin.
Health checks, changes of Route 53 and the safety rules of a control panel are checked on nothing.
A batch wants an action such as sqs:SendMessageBatch, which AWS does not have. A move task of SQS is
checked on no queue, GetQueueUrl for another account's queue on one of the caller's. Services of ECS
are checked on their cluster and have no tags, Aurora's global clusters and simulations on nothing.

AWS: each operation is an action of its own, with `aws:ResourceTag/${TagKey}` on functions, aliases,
versions and event source mappings, `lambda:FunctionArn` on mappings and `cloudwatch:namespace` on
PutMetricData; one about provisioned concurrency is checked on the alias or version, a list of them
on the function
(https://docs.aws.amazon.com/service-authorization/latest/reference/list_awslambda.html,
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatch.html);
those of Route 53 and of control panels are checked on themselves
(https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonroute53.html,
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonroute53recoverycontrols.html);
a move task is checked on the dead-letter queue
(https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsqs.html), and
GetQueueUrl on the queue of the account that QueueOwnerAWSAccountId names
(https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueUrl.html);
a simulation is checked on the principal whose policies are simulated
(https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsidentityandaccessmanagementiam.html).
Services of ECS are checked on themselves, with their tags
(https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html);
who switches the writer of a global cluster needs to be allowed that on it and on both clusters
(https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonrds.html,
https://docs.aws.amazon.com/r53recovery/latest/dg/security_iam_region_switch_aurora.html).
A batch needs the action of its single form
(https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html,
https://docs.aws.amazon.com/sns/latest/api/API_PublishBatch.html).
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import base64
import contextvars
import io
import json
from typing import Any
from urllib.parse import unquote

from botocore.parsers import RpcV2CBORParser
from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.services import ecs, lambda_svc, rds, route53, tagging

from local.aws.bridges import caller
from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("iam")
# Where the action is not the operation's name (service authorization reference, as above).
_ACTIONS = {
    "Invoke": "InvokeFunction",
    "InvokeAsync": "InvokeAsync",
    "InvokeWithResponseStream": "InvokeFunction",
}
_SINGLE = {
    "sns:PublishBatch": "sns:Publish",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "sqs:SendMessageBatch": "sqs:SendMessage",
}
_MAPPING_OPERATIONS = {
    "CreateEventSourceMapping",
    "DeleteEventSourceMapping",
    "GetEventSourceMapping",
    "UpdateEventSourceMapping",
}
_routes: list[tuple[str, Any, str, dict[str, str]]] = []


@BRIDGE.replace(iam_actions, "extract_iam_action")
def extract_iam_action(*request: Any) -> str | None:
    """Return the action that a request needs."""
    operation = api_operation(*request)
    return _SINGLE.get(operation, operation) if operation else None


def api_operation(*request: Any) -> str | None:
    """Return a request's service and operation, e.g. `sqs:SendMessageBatch`."""
    _query.set(request[-1] or {})
    found: str | None = _extract(*request)
    return found


@BRIDGE.replace(iam_actions, "_lambda_action")
def _lambda_action(method: str, path: str) -> str | None:
    if not _routes:
        for verb, pattern, operation, _, query in iam_actions._load_botocore_routes("lambda"):
            _routes.append((verb, pattern, operation, query))
    clean = path.rstrip("/") or "/"
    for verb, pattern, operation, query in _routes:
        if verb == method and pattern.match(clean) and query.keys() <= _query.get().keys():
            return _ACTIONS.get(operation, operation)
    return None


# Some paths are two operations, told apart by their query: `?List=ALL`.
_query: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("_query")


@BRIDGE.replace(tagging, "resource_tags")
def resource_tags(arn: str) -> dict[str, str] | None:
    """Return the tags of the resource that an ARN names, or None for an unknown one."""
    prefix, is_mapping, mapping_id = arn.partition(":event-source-mapping:")
    if is_mapping:
        mapping = lambda_svc._esms.get(mapping_id)
        return dict(mapping.get("Tags") or {}) if mapping else None
    if arn.startswith("arn:aws:ecs:"):
        return {tag["key"]: tag["value"] for tag in ecs._tags.get(arn, [])}
    prefix, is_function, name = arn.partition(":function:")
    found: dict[str, str] | None = _tags(
        f"{prefix}:function:{name.partition(':')[0]}" if is_function else arn
    )
    return found


@BRIDGE.replace(app, "pin_request_origin")
def pin_request_origin(source_ip: str, _secure_transport: object) -> None:
    """Take every request for one over TLS: AWS's endpoints speak it, the loopback stands in.

    `aws:SecureTransport` is true there whenever a policy requires it
    (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html).
    """
    _pin(source_ip, secure_transport=True)


@BRIDGE.replace(iam_actions, "request_tag_context")
def request_tag_context(
    service: str, iam_action: str, body: bytes, params: dict[str, Any]
) -> dict[str, Any]:
    """Return the request's own condition keys, beyond its tags."""
    context: dict[str, Any] = _request_tags(service, iam_action, body, params)
    if iam_action == "cloudwatch:PutMetricData" and (namespace := _namespace(body, params)):
        context["cloudwatch:namespace"] = namespace
    if iam_action.removeprefix("lambda:") in _MAPPING_OPERATIONS and (
        function := _function_arn(body)
    ):
        context["lambda:FunctionArn"] = function
    if iam_action == "route53:ChangeResourceRecordSets":
        context |= _record_changes(body)
    return context


def _record_changes(body: bytes) -> dict[str, list[str]]:
    """Return the condition keys of a change of record sets; names are normalized.

    https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/specifying-conditions-route53.html
    """
    root = route53._parse_body(body)
    if root is None:
        return {}

    records = list(root.iter(f"{{{route53.NS}}}ResourceRecordSet"))
    actions = [found.text or "" for found in root.iter(f"{{{route53.NS}}}Action")]
    names = [route53._text(record, "Name").lower().rstrip(".") for record in records]
    types = [route53._text(record, "Type") for record in records]
    prefix = "route53:ChangeResourceRecordSets"
    return {
        f"{prefix}NormalizedRecordNames": sorted(set(names)),
        f"{prefix}RecordTypes": sorted(set(types)),
        f"{prefix}Actions": sorted(set(actions)),
    }


@BRIDGE.replace(iam_actions, "extract_resource_arn")
def extract_resource_arn(  # noqa: PLR0917 -- MiniStack's signature
    service: str, method: str, path: str, headers: Any, body: bytes, params: Any, region: str,
    account: str,
) -> str:  # fmt: skip
    """Return the ARN that is checked, and note the mapping that a request names by its path."""
    _, named, mapping_id = path.partition("/event-source-mappings/")
    _mapping.set(unquote(mapping_id.rstrip("/")) if named and service == "lambda" else "")
    caller.note(service, headers, params)
    _also.set(switched_clusters(service, params, account)[1:])
    if named := _named(service, body, params, account):
        return named
    arn = str(_resource(service, method, path, headers, body, params, region, account))
    if service == "lambda" and path.rstrip("/").endswith("/provisioned-concurrency"):
        qualifier = lambda_svc._qp_first(params, "Qualifier")
        return f"{arn}:{qualifier}" if qualifier else arn
    if service == "route53" and arn == "*":
        return _of_route53(path)
    if service == "route53-recovery-control-config" and path.endswith("/safetyrules"):
        return unquote(path).removeprefix("/controlpanel/").removesuffix("/safetyrules")
    if service == "sqs" and arn == "*":
        return _dead_letter_queue(body)
    if service == "sqs" and (owner := _queue_owner(body)):
        return f"arn:aws:sqs:{region}:{owner}:{arn.rsplit(':', 1)[-1]}"
    if service == "ssm" and arn == "*" and (name := _parameter(body)):
        return f"arn:aws:ssm:{region}:{account}:parameter/{name.strip('/')}"
    if service == "monitoring" and arn == "*":
        operation = path + headers.get("x-amz-target", "")
        return _alarm(operation, body, region, account)
    return arn


def _named(service: str, body: bytes, params: Any, account: str) -> str:
    """Return the ARN that a request has in it, where MiniStack takes something else."""
    match service:
        case "route53-recovery-cluster":
            return _routing_control(body)
        case "ecs":
            return _of_ecs(body)
        case "iam":
            return _parameter_of(params, "PolicySourceArn")
        case "rds":
            return _of_rds(params, account)
    return ""


# MiniStack asks for a request's resource, then for its context, in the same task.
_mapping: contextvars.ContextVar[str] = contextvars.ContextVar("_mapping", default="")
_also: contextvars.ContextVar[list[str]] = contextvars.ContextVar("_also")


@BRIDGE.replace(iam_evaluator, "enforce")
def enforce(access_key: str, action: str, *rest: Any, resource_arn: str = "*", **more: Any) -> Any:
    """Check an action on every resource that it needs; what is denied, or a false value."""
    also = _also.get([]) if action in _SWITCHES else []
    for arn in (resource_arn, *also):
        if denied := _enforce(access_key, action, *rest, resource_arn=arn, **more):
            return denied
    return None


_SWITCHES = {"rds:FailoverGlobalCluster", "rds:SwitchoverGlobalCluster"}


def switched_clusters(service: str, params: Any, account: str) -> list[str]:
    """Return what a switch of the writer is checked on: the global cluster and both writers."""
    target = _parameter_of(params, "TargetDbClusterIdentifier")
    if service != "rds" or not target:
        return []
    name = _parameter_of(params, "GlobalClusterIdentifier")
    known = rds._resolve_global_cluster(name) or {}
    writers = [
        str(one["DBClusterArn"])
        for one in known.get("GlobalClusterMembers", ())
        if one.get("IsWriter")
    ]
    return [_global_cluster(name, account), target, *writers]


def _of_rds(params: Any, account: str) -> str:
    """Return the cluster that a request names by its ARN, or the global cluster."""
    cluster = _parameter_of(params, "DBClusterIdentifier")
    if cluster.startswith("arn:"):
        return cluster
    name = _parameter_of(params, "GlobalClusterIdentifier")
    return _global_cluster(name, account) if name and not cluster else ""


def _global_cluster(name: str, account: str) -> str:
    return f"arn:aws:rds::{account}:global-cluster:{name}"


def _parameter_of(params: Any, name: str) -> str:
    found = params.get(name, "") if params else ""
    return str(found[0] if isinstance(found, list) else found)


def _of_ecs(body: bytes) -> str:
    """Return the service that a request names by its ARN, the first of several."""
    try:
        data = json.loads(body or b"{}")
    except ValueError:
        return ""
    named = [data.get("service"), data.get("resourceArn"), *(data.get("services") or [])]
    return next((str(one) for one in named if str(one or "").startswith("arn:")), "")


def _routing_control(body: bytes) -> str:
    """Return the routing control that a request names, the first of several, or the panel."""
    try:
        data = json.loads(body or b"{}")
    except ValueError:
        return "*"
    first = next(iter(data.get("UpdateRoutingControlStateEntries") or []), data)
    return str(first.get("RoutingControlArn") or data.get("ControlPanelArn") or "*")


def _of_route53(path: str) -> str:
    """Return the health check or change that a path names, e.g. `/2013-04-01/change/C1`."""
    kind, _, rest = path.strip("/").partition("/")[2].partition("/")
    name = rest.partition("/")[0]
    return f"arn:aws:route53:::{kind}/{name}" if kind in {"healthcheck", "change"} and name else "*"


def _dead_letter_queue(body: bytes) -> str:
    """Return the queue that a move task is about, which is named by its ARN or by its handle."""
    try:
        data = json.loads(body or b"{}")
    except ValueError:
        return "*"
    source = data.get("SourceArn") or task_source(str(data.get("TaskHandle", "")))
    return str(source or "*")


def _queue_owner(body: bytes) -> str:
    """Return the account whose queue's URL is asked for; empty for the caller's own."""
    try:
        return str(json.loads(body or b"{}").get("QueueOwnerAWSAccountId") or "")
    except ValueError:
        return ""


def task_source(handle: str) -> str:
    """Return the queue whose messages a task moves; empty for a malformed handle."""
    try:
        return str(json.loads(base64.b64decode(handle, validate=True))["sourceArn"])
    except (ValueError, KeyError, TypeError):
        return ""


def _parameter(body: bytes) -> str:
    """Return the parameter that GetParameters (its first) or GetParametersByPath names."""
    try:
        data = json.loads(body or b"{}")
    except ValueError:
        return ""
    return str(next(iter(data.get("Names") or []), "") or data.get("Path") or "")


def _function_arn(body: bytes) -> str:
    if mapping := lambda_svc._esms.get(_mapping.get()):
        return str(mapping["FunctionArn"])
    try:
        name = json.loads(body or b"{}").get("FunctionName", "")
    except ValueError:
        return ""
    return name if name.startswith("arn:") or not name else str(lambda_svc._func_arn(name))


def _namespace(body: bytes, params: dict[str, Any]) -> str:
    if named := params.get("Namespace"):
        return str(named[0] if isinstance(named, list) else named)
    return str(_document(body).get("Namespace", ""))


def _alarm(operation: str, body: bytes, region: str, account: str) -> str:
    """Return the alarm that a CloudWatch request names, its first, or all for DescribeAlarms."""
    request = _document(body)
    if named := request.get("ResourceARN"):
        return str(named)
    if not operation.endswith("DescribeAlarms"):
        return "*"
    name = next(iter(request.get("AlarmNames") or []), "*")
    return f"arn:aws:cloudwatch:{region}:{account}:alarm:{name}"


def _document(body: bytes) -> dict[str, Any]:
    """Read a CloudWatch request, JSON or CBOR; empty for another encoding."""
    try:
        if body.startswith(b"{"):
            found = json.loads(body)
        else:
            found = _CBOR.parse_data_item(io.BufferedReader(io.BytesIO(body)))
    except (ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}


_CBOR = RpcV2CBORParser()
_extract = BRIDGE.original(iam_actions, "extract_iam_action")
_tags = BRIDGE.original(tagging, "resource_tags")
_pin = BRIDGE.original(app, "pin_request_origin")
_request_tags = BRIDGE.original(iam_actions, "request_tag_context")
_resource = BRIDGE.original(iam_actions, "extract_resource_arn")
_enforce = BRIDGE.original(iam_evaluator, "enforce")
