"""Gap: there are no routing controls (Application Recovery Controller).

AWS: `route53-recovery-control-config`, in us-west-2, makes clusters, control panels, routing
controls and safety rules
(https://docs.aws.amazon.com/recovery-cluster/latest/api/what-is-recovery-control.html);
`route53-recovery-cluster` reads and sets states at a cluster's five Regional endpoints only, each
signed for its own Region
(https://docs.aws.amazon.com/routing-control/latest/APIReference/Welcome.html). A change of several
states is made as a whole or not at all; a safety rule refuses it with a ConflictException that
names the rule
(https://docs.aws.amazon.com/r53recovery/latest/dg/routing-control.override-safety-rule.html).
Endpoints here are paths of the emulator; `Faults.block` makes one unreachable.
"""

import json
import os
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from ministack import app
from ministack.core import iam_actions, router
from ministack.core.responses import get_account_id

from local.aws.bridges import caller
from local.aws.bridges.bridge import Bridge
from local.aws.route53 import routing_controls as controls
from local.aws.route53.routing_controls import STORE

type _Document = dict[str, Any]
type _Reply = tuple[int, dict[str, str], bytes]

BRIDGE = Bridge("recovery_control")
CONFIG = "route53-recovery-control-config"
CLUSTER = "route53-recovery-cluster"
_CONFIG_REGION = "us-west-2"
_MOST_AT_ONCE = 10
_STATUS = {"ResourceNotFoundException": 404, "ConflictException": 409, "AccessDeniedException": 403}


class _ApiError(Exception):
    def __init__(self, code: str, message: str, **members: Any) -> None:
        super().__init__(message)
        self.code, self.members = code, members


async def _config(
    method: str, path: str, headers: dict[str, str], body: bytes, _query: Any
) -> _Reply:
    """Serve the configuration: POST makes, GET shows one or lists, DELETE removes."""
    kind, _, rest = path.strip("/").partition("/")
    arn, _, below = _split(unquote(rest))
    document = json.loads(body or b"{}")
    operations: dict[tuple[str, str, str], Callable[[], _Document]] = {
        ("POST", "cluster", ""): lambda: {"Cluster": _create_cluster(document)},
        ("POST", "controlpanel", ""): lambda: {"ControlPanel": _create_panel(document)},
        ("POST", "routingcontrol", ""): lambda: {"RoutingControl": _create_control(document)},
        ("POST", "safetyrule", ""): lambda: _create_rule(document),
        ("GET", "cluster", ""): lambda: (
            {"Cluster": _known(STORE.clusters, arn)} if arn else {"Clusters": _mine(STORE.clusters)}
        ),
        ("GET", "controlpanels", ""): lambda: {"ControlPanels": _mine(STORE.panels)},
        ("GET", "controlpanel", ""): lambda: {"ControlPanel": _known(STORE.panels, arn)},
        ("GET", "controlpanel", "routingcontrols"): lambda: {
            "RoutingControls": _of_panel(STORE.controls, arn)
        },
        ("GET", "controlpanel", "safetyrules"): lambda: {
            "SafetyRules": [{_rule_kind(rule): rule} for rule in _of_panel(STORE.rules, arn)]
        },
        ("GET", "routingcontrol", ""): lambda: {"RoutingControl": _known(STORE.controls, arn)},
        ("GET", "safetyrule", ""): lambda: _shown(_known(STORE.rules, arn)),
        ("DELETE", "routingcontrol", ""): lambda: _delete(STORE.controls, arn),
        ("DELETE", "safetyrule", ""): lambda: _delete(STORE.rules, arn),
    }

    def run() -> _Document:
        if router.extract_region(headers) != _CONFIG_REGION:
            raise _ApiError("AccessDeniedException", f"Use the Region {_CONFIG_REGION}.")
        operation = operations.get((method, kind, below))
        if operation is None:
            raise _ApiError("ValidationException", f"{method} {path} is not emulated.")
        return operation()

    return _answer(run, "application/json")


def _split(rest: str) -> tuple[str, str, str]:
    """Split `<arn>/safetyrules`; the ARN has slashes of its own."""
    for below in ("routingcontrols", "safetyrules"):
        if rest.endswith(f"/{below}"):
            return rest.removesuffix(f"/{below}"), "/", below
    return rest, "", ""


def _create_cluster(request: _Document) -> _Document:
    cluster_id = str(uuid.uuid4())
    arn = f"arn:aws:route53-recovery-control::{get_account_id()}:cluster/{cluster_id}"
    base = f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}/v1/{cluster_id}"
    STORE.clusters[arn] = {
        "ClusterArn": arn,
        "Name": request["ClusterName"],
        "Status": "DEPLOYED",
        "Owner": get_account_id(),
        "NetworkType": request.get("NetworkType", "IPV4"),
        "ClusterEndpoints": [
            {"Endpoint": f"{base}/{region}", "Region": region} for region in controls.REGIONS
        ],
    }
    _add_panel(arn, "DefaultControlPanel", default=True)
    return STORE.clusters[arn]


def _create_panel(request: _Document) -> _Document:
    cluster = _known(STORE.clusters, request["ClusterArn"])["ClusterArn"]
    return _add_panel(cluster, request["ControlPanelName"], default=False)


def _add_panel(cluster: str, name: str, *, default: bool) -> _Document:
    arn = f"arn:aws:route53-recovery-control::{get_account_id()}:controlpanel/{uuid.uuid4().hex}"
    STORE.panels[arn] = {
        "ClusterArn": cluster, "ControlPanelArn": arn, "DefaultControlPanel": default, "Name": name,
        "RoutingControlCount": 0, "Status": "DEPLOYED", "Owner": get_account_id(),
    }  # fmt: skip
    return STORE.panels[arn]


def _create_control(request: _Document) -> _Document:
    cluster = _known(STORE.clusters, request["ClusterArn"])["ClusterArn"]
    panel = request.get("ControlPanelArn") or next(
        arn
        for arn, found in STORE.panels.items()
        if found["ClusterArn"] == cluster and found["DefaultControlPanel"]
    )
    _known(STORE.panels, panel)["RoutingControlCount"] += 1
    arn = f"{panel}/routingcontrol/{uuid.uuid4().hex[:16]}"
    STORE.controls[arn] = {
        "ControlPanelArn": panel, "Name": request["RoutingControlName"], "RoutingControlArn": arn,
        "Status": "DEPLOYED", "Owner": get_account_id(),
    }  # fmt: skip
    STORE.states[arn] = "Off"
    return STORE.controls[arn]


def _create_rule(request: _Document) -> _Document:
    kind = "AssertionRule" if "AssertionRule" in request else "GatingRule"
    rule = request[kind]
    _known(STORE.panels, rule["ControlPanelArn"])
    for name in ("AssertedControls", "GatingControls", "TargetControls"):
        for arn in rule.get(name, ()):
            _known(STORE.controls, arn)
    arn = f"{rule['ControlPanelArn']}/safetyrule/{uuid.uuid4().hex[:16]}"
    STORE.rules[arn] = {
        **rule, "SafetyRuleArn": arn, "Status": "DEPLOYED", "Owner": get_account_id()
    }  # fmt: skip
    return _shown(STORE.rules[arn])


def _rule_kind(rule: _Document) -> str:
    """Return a rule's name in a list of rules."""
    return "GATING" if "GatingControls" in rule else "ASSERTION"


def _shown(rule: _Document) -> _Document:
    return {"GatingRule" if "GatingControls" in rule else "AssertionRule": rule}


def _of_panel(store: dict[str, _Document], panel: str) -> list[_Document]:
    _known(STORE.panels, panel)
    return [found for found in store.values() if found["ControlPanelArn"] == panel]


def _mine(store: dict[str, _Document]) -> list[_Document]:
    return [found for found in store.values() if found["Owner"] == get_account_id()]


def _delete(store: dict[str, _Document], arn: str) -> _Document:
    _known(store, arn)
    del store[arn]
    STORE.states.pop(arn, None)
    return {}


def _known(store: dict[str, _Document], arn: str) -> _Document:
    found = store.get(arn)
    if found is None or found["Owner"] != get_account_id():
        raise _ApiError(
            "ResourceNotFoundException", f"{arn} does not exist.", resourceId=arn, resourceType=""
        )
    return found


async def _cluster(
    _method: str, path: str, headers: dict[str, str], body: bytes, _query: Any
) -> _Reply:
    """Serve one Regional endpoint of a cluster."""
    request = json.loads(body or b"{}")
    operation = headers.get("x-amz-target", "").rpartition(".")[2]

    def run() -> _Document:
        cluster = _endpoint(path, headers)
        match operation:
            case "GetRoutingControlState":
                found = _control(cluster, request["RoutingControlArn"])
                return {
                    "RoutingControlArn": found["RoutingControlArn"],
                    "RoutingControlName": found["Name"],
                    "RoutingControlState": STORE.states[found["RoutingControlArn"]],
                }
            case "ListRoutingControls":
                return {"RoutingControls": _listed(cluster, request.get("ControlPanelArn", ""))}
            case "UpdateRoutingControlState":
                return _update(cluster, [request], request)
            case "UpdateRoutingControlStates":
                return _update(cluster, request["UpdateRoutingControlStateEntries"], request)
        raise _ApiError("ValidationException", f"{operation} is not an operation.")

    return _answer(run, "application/x-amz-json-1.0")


def _endpoint(path: str, headers: dict[str, str]) -> str:
    """Return the cluster whose endpoint was called."""
    version, _, rest = path.strip("/").partition("/")
    cluster_id, _, region = rest.partition("/")
    arn = f"arn:aws:route53-recovery-control::{get_account_id()}:cluster/{cluster_id}"
    if version != "v1" or arn not in STORE.clusters:
        raise _ApiError("AccessDeniedException", "This is no endpoint of a cluster of yours.")
    if router.extract_region(headers) != region:
        raise _ApiError("AccessDeniedException", f"Credential should be scoped to {region}.")
    return arn


def _control(cluster: str, arn: str) -> _Document:
    found = _known(STORE.controls, arn)
    if STORE.panels[found["ControlPanelArn"]]["ClusterArn"] != cluster:
        raise _ApiError(
            "ResourceNotFoundException", f"{arn} is not of this cluster.", resourceId=arn,
            resourceType="",
        )  # fmt: skip
    return found


def _listed(cluster: str, panel: str) -> list[_Document]:
    return [
        {
            "ControlPanelArn": found["ControlPanelArn"],
            "ControlPanelName": STORE.panels[found["ControlPanelArn"]]["Name"],
            "RoutingControlArn": arn,
            "RoutingControlName": found["Name"],
            "RoutingControlState": STORE.states[arn],
            "Owner": found["Owner"],
        }
        for arn, found in STORE.controls.items()
        if STORE.panels[found["ControlPanelArn"]]["ClusterArn"] == cluster
        and panel in ("", found["ControlPanelArn"])
    ]


def _update(cluster: str, entries: list[_Document], request: _Document) -> _Document:
    if len(entries) > _MOST_AT_ONCE:
        raise _ApiError(
            "ServiceLimitExceededException", f"At most {_MOST_AT_ONCE} entries are allowed.",
            limitCode="UpdateRoutingControlStates", serviceCode=CLUSTER,
        )  # fmt: skip
    wanted: dict[str, str] = {}
    for entry in entries:
        arn, state = entry["RoutingControlArn"], entry["RoutingControlState"]
        if state not in ("On", "Off") or arn in wanted:
            raise _ApiError("ValidationException", f"{arn} is set twice, or to neither On nor Off.")
        wanted[_control(cluster, arn)["RoutingControlArn"]] = state
    # The first has been checked with the request itself.
    for arn in list(wanted)[1:]:
        action = f"{CLUSTER}:UpdateRoutingControlStates"
        if not caller.may(CLUSTER, action, arn, operation="UpdateRoutingControlStates"):
            raise _ApiError("AccessDeniedException", f"{caller.arn()} may not {action} on {arn}.")
    try:
        controls.update(wanted, request.get("SafetyRulesToOverride") or [])
    except controls.BlockedError as error:
        raise _ApiError(
            "ConflictException", str(error), resourceId=error.rule_arn, resourceType="SafetyRule"
        ) from error
    return {}


def _answer(run: Callable[[], _Document], content_type: str) -> _Reply:
    try:
        with controls.LOCK:
            status, headers, document = 200, {}, run()
    except _ApiError as error:
        status = _STATUS.get(error.code, 400)
        headers = {"x-amzn-errortype": error.code}
        document = {"__type": error.code, "message": str(error), **error.members}
    except KeyError as error:
        status, headers = 400, {"x-amzn-errortype": "ValidationException"}
        document = {"__type": "ValidationException", "message": f"{error.args[0]} is missing."}
    return status, headers | {"Content-Type": content_type}, json.dumps(document).encode()


BRIDGE.add(router.SERVICE_PATTERNS, CONFIG, {"credential_scope": CONFIG})
BRIDGE.add(
    router.SERVICE_PATTERNS,
    CLUSTER,
    {"target_prefixes": ["ToggleCustomerAPI"], "credential_scope": CLUSTER},
)
BRIDGE.add(app.SERVICE_HANDLERS, CONFIG, _config)
BRIDGE.add(app.SERVICE_HANDLERS, CLUSTER, _cluster)
for _service in (CONFIG, CLUSTER):
    BRIDGE.add(iam_actions.SERVICE_TO_IAM_NAMESPACE, _service, _service)
BRIDGE.add(iam_actions._BOTOCORE_SERVICE_MAP, CONFIG, [CONFIG])  # noqa: SLF001 -- its registry
