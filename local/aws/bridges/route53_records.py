"""Gaps of Route 53's record sets: bad changes are accepted, and every change is INSYNC at once.

AWS: a batch with a name outside the zone, a routing policy that conflicts with the records there, a
missing health check or a lost alias target is refused as a whole (`local/aws/route53/changes.py`
has the sources); GetChange says PENDING until the change has reached all name servers
(https://docs.aws.amazon.com/Route53/latest/APIReference/API_GetChange.html). Here that takes
`AwsAccount.set_dns_change_seconds`. Records that CloudFormation makes pass the same checks and are
served at once, as CloudFormation waits for INSYNC
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-route53-recordset.html).
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

from typing import Any

from ministack.services import route53
from ministack.services.cloudformation import provisioners

from local.aws.bridges.bridge import Bridge
from local.aws.route53 import changes, zones

BRIDGE = Bridge("route53_records")
_NOT_FOUND = 404
_OK = 200


@BRIDGE.replace(route53, "_change_resource_record_sets")
def _change_resource_record_sets(zone_id: str, body: bytes) -> Any:
    zone, batch = route53._zones.get(zone_id), _changes(body)
    if zone is None or not batch:
        return _change(zone_id, body)
    try:
        check(zone_id, batch)
    except changes.RefusedError as error:
        status = _NOT_FOUND if error.code == "NoSuchHealthCheck" else 400
        return route53._error_response(error.code, str(error), status)
    before = tuple(route53._records[zone_id])
    answer = _change(zone_id, body)
    if answer[0] == _OK:
        zones.note_records(zone_id, before)
    return answer


@BRIDGE.replace(route53, "_new_change")
def _new_change(comment: str = "") -> dict[str, Any]:
    change: dict[str, Any] = _new(comment)
    zones.note_change(change["id"])
    return change


@BRIDGE.replace(route53, "_get_change")
def _get_change(change_id: str) -> Any:
    if change := route53._changes.get(change_id):
        # MiniStack answers with the status before this call, and moves on with it.
        change["status"] = "INSYNC" if zones.is_in_sync(change_id) else "PENDING"
    return _get(change_id)


@BRIDGE.replace(provisioners._RESOURCE_HANDLERS["AWS::Route53::RecordSet"], "create")
def create_record_set(logical_id: str, props: dict[str, Any], stack_name: str) -> Any:
    """Make a record set of a template; raises ValueError when Route 53 refuses it."""
    _check_template("CREATE", props)
    return _create(logical_id, props, stack_name)


@BRIDGE.replace(provisioners._RESOURCE_HANDLERS["AWS::Route53::RecordSet"], "update")
def update_record_set(
    physical_id: str, old: dict[str, Any], new: dict[str, Any], stack_name: str, **more: Any
) -> Any:
    """Change a record set of a template; raises ValueError when Route 53 refuses it."""
    _check_template("UPSERT", new)
    return _update(physical_id, old, new, stack_name, **more)


def check(zone_id: str, batch: list[changes.Change]) -> None:
    """Raise RefusedError unless the current account's zone takes this batch."""
    zone = route53._zones[zone_id]
    known = set(route53._health_checks.keys())
    changes.check(zone["name"], zone_id, route53._records[zone_id], batch, known)


def _check_template(action: str, props: dict[str, Any]) -> None:
    zone_id = provisioners._r53_resolve_hosted_zone_id(props)
    if zone_id not in route53._zones:
        return
    try:
        check(zone_id, [(action, provisioners._r53_record_set_build_rs(props))])
    except changes.RefusedError as error:
        raise ValueError(f"{error.code}: {error}") from error


def _changes(body: bytes) -> list[changes.Change]:
    """Return the changes of a request; empty for one that is malformed, which MiniStack refuses."""
    root = route53._parse_body(body)
    batch = route53._find(root, "ChangeBatch") if root is not None else None
    listed = route53._find(batch, "Changes") if batch is not None else None
    if listed is None:
        return []
    found: list[changes.Change] = []
    for change in route53._findall(listed, "Change"):
        record = route53._find(change, "ResourceRecordSet")
        parsed = route53._parse_record_set(record) if record is not None else {}
        if not parsed.get("Name") or not parsed.get("Type"):
            return []
        found.append((route53._text(change, "Action"), parsed))
    return found


_change = BRIDGE.original(route53, "_change_resource_record_sets")
_new = BRIDGE.original(route53, "_new_change")
_get = BRIDGE.original(route53, "_get_change")
_create = BRIDGE.original(provisioners._RESOURCE_HANDLERS["AWS::Route53::RecordSet"], "create")
_update = BRIDGE.original(provisioners._RESOURCE_HANDLERS["AWS::Route53::RecordSet"], "update")
