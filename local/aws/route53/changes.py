"""Which changes of record sets Route 53 refuses: pure.

API reference: https://docs.aws.amazon.com/Route53/latest/APIReference/API_ChangeResourceRecordSets.html
and https://docs.aws.amazon.com/Route53/latest/APIReference/API_ResourceRecordSet.html; errors:
InvalidChangeBatch with a list of messages, InvalidInput for a record set that lacks something,
NoSuchHealthCheck. The messages are AWS's where the public record has them, e.g. of conflicts
https://github.com/kubernetes-sigs/external-dns/issues/1411, of a primary without a health check
https://github.com/kubernetes-sigs/external-dns/issues/2362, of weighted sets' TTL
https://github.com/aws/aws-sdk-go-v2/issues/518. The first of these also shows that a batch is
checked change by change: CREATE before the DELETE that makes room for it is refused.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

# A record set as MiniStack keeps it: Name with its dot, Type, and the API's other members.
type RecordSet = Mapping[str, Any]
type Change = tuple[str, RecordSet]  # the action and what it is about

_POLICIES = {
    "Weight": "weighted",
    "Failover": "failover",
    "Region": "latency",
    "GeoLocation": "geolocation",
    "MultiValueAnswer": "multivalue answer",
    "CidrRoutingConfig": "CIDR",
}


class RefusedError(Exception):
    """Why a change batch is refused: the API's error code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check(
    zone: str,
    zone_id: str,
    records: Sequence[RecordSet],
    changes: Sequence[Change],
    health_checks: Collection[str],
) -> None:
    """Raise RefusedError unless the zone takes the whole batch; `zone` is its name with the dot."""
    for action, record in changes:
        if action != "DELETE":
            _check_members(action, record)
            wanted = record.get("HealthCheckId")
            if wanted and wanted not in health_checks:
                raise RefusedError(
                    "NoSuchHealthCheck", f"No health check exists with the ID {wanted}."
                )
    current = list(records)
    problems: list[str] = []
    for action, record in changes:
        found = _problem(zone, zone_id, current, action, record)
        if found:
            problems.append(found)
            continue
        current = [other for other in current if key(other) != key(record)]
        if action != "DELETE":
            current.append(record)
    if problems:
        raise RefusedError("InvalidChangeBatch", f"[{', '.join(problems)}]")


def key(record: RecordSet) -> tuple[str, str, str]:
    """Return what tells record sets apart."""
    return record["Name"].lower(), record["Type"], record.get("SetIdentifier", "")


def _check_members(action: str, record: RecordSet) -> None:
    where = (
        f"in Change with [Action={action}, Name={record['Name']}, Type={record['Type']}, "
        f"SetIdentifier={record.get('SetIdentifier', 'null')}]"
    )
    has_values = "TTL" in record and bool(record.get("ResourceRecords"))
    if bool(record.get("AliasTarget")) == has_values:
        count = "more than one" if has_values else "none"
        raise RefusedError(
            "InvalidInput",
            "Invalid request: Expected exactly one of [AliasTarget, all of [TTL, and "
            f"ResourceRecords], or TrafficPolicyInstanceId], but found {count} {where}",
        )
    policies = [name for name in _POLICIES if name in record]
    if policies and not record.get("SetIdentifier"):
        raise RefusedError(
            "InvalidInput", f"Invalid request: Missing field 'SetIdentifier' {where}"
        )
    if record.get("SetIdentifier") and len(policies) != 1:
        count = "more than one" if policies else "none"
        raise RefusedError(
            "InvalidInput",
            f"Invalid request: Expected exactly one of [{', '.join(_POLICIES)}], "
            f"but found {count} {where}",
        )


def _problem(
    zone: str, zone_id: str, current: Sequence[RecordSet], action: str, record: RecordSet
) -> str:
    name, kind = record["Name"], record["Type"]
    described = f"[name='{name}', type='{kind}'"
    if record.get("SetIdentifier"):
        described += f", set-identifier='{record['SetIdentifier']}'"
    described += "]"
    known = next((other for other in current if key(other) == key(record)), None)
    if not f".{name.lower()}".endswith(f".{zone.lower()}"):
        return f"RRSet with DNS name {name} is not permitted in zone {zone}"
    if action == "CREATE" and known:
        return f"Tried to create resource record set {described} but it already exists"
    if action == "DELETE":
        if known is None:
            return f"Tried to delete resource record set {described} but it was not found"
        if _values(known) != _values(record):
            return (
                f"Tried to delete resource record set {described} but the values provided do not "
                "match the current values"
            )
        return ""
    others = [other for other in current if key(other) != key(record)]
    return (
        _name_conflict(zone, others, record)
        or _policy_conflict(others, record)
        or _lost_alias(zone_id, others, record)
    )


def _name_conflict(zone: str, others: Sequence[RecordSet], record: RecordSet) -> str:
    name, kind = record["Name"], record["Type"]
    if kind == "CNAME" and name.lower() == zone.lower():
        return f"RRSet of type CNAME with DNS name {name} is not permitted at apex in zone {zone}"
    same_name = {other["Type"] for other in others if other["Name"].lower() == name.lower()}
    if (kind == "CNAME" and same_name - {"CNAME"}) or (kind != "CNAME" and "CNAME" in same_name):
        return (
            f"RRSet of type {kind} with DNS name {name} is not permitted as it conflicts with "
            f"other records with the same DNS name in zone {zone}"
        )
    return ""


def _policy_conflict(others: Sequence[RecordSet], record: RecordSet) -> str:
    name, kind, mine = record["Name"], record["Type"], policy(record)
    group = [other for other in others if key(other)[:2] == key(record)[:2]]
    checked = record.get("AliasTarget") or record.get("HealthCheckId")
    if mine == "failover" and record["Failover"] == "PRIMARY" and not checked:
        return "A non-alias primary ResourceRecordSet must have an associated health check"
    if not group:
        return ""
    which = f"RRSet with DNS name {name}, type {kind}"
    if mine == "simple":
        return f"{which} cannot be created as other RRSets exist with the same name and type."
    which += f", SetIdentifier {record['SetIdentifier']}"
    if any(policy(other) != mine for other in group):
        return f"{which} cannot be created as a non-{mine} set exists with the same name and type."
    if mine == "weighted" and {other.get("TTL") for other in group} - {record.get("TTL")}:
        return f"{which} cannot be created as weighted sets must contain the same TTL."
    if mine == "failover" and any(other["Failover"] == record["Failover"] for other in group):
        return (
            f"{which} cannot be created as a {record['Failover']} failover set exists with the "
            "same name and type."
        )
    return ""


def _lost_alias(zone_id: str, others: Sequence[RecordSet], record: RecordSet) -> str:
    target = record.get("AliasTarget")
    if not target or target["HostedZoneId"] != zone_id:
        return ""
    wanted = target["DNSName"].lower(), record["Type"]
    if any(key(other)[:2] == wanted for other in others):
        return ""
    return (
        f"Tried to create an alias that targets {target['DNSName']}, type {record['Type']} in zone "
        f"{zone_id}, but that target was not found"
    )


def policy(record: RecordSet) -> str:
    """Return the routing policy of a record set: simple, weighted, failover and so on."""
    return next((policy for member, policy in _POLICIES.items() if member in record), "simple")


def _values(record: RecordSet) -> dict[str, Any]:
    """Return what a DELETE must repeat; the order of values never matters."""
    return {
        member: sorted(value) if member == "ResourceRecords" else value
        for member, value in record.items()
        if member != "Name"
    }
