"""How Route 53 answers a query from a zone's record sets and the health of its checks: pure.

Choosing by health:
https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/health-checks-how-route-53-chooses-records.html;
weights: https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/routing-policy-weighted.html and,
for all zero, https://docs.aws.amazon.com/Route53/latest/APIReference/API_ResourceRecordSet.html,
which also says what failover and multivalue sets do; aliases and their health:
https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/dns-failover-complex-configs.html.
Latency, geolocation and CIDR sets are answered as if all were equally near. NXDOMAIN and NODATA
carry the zone's SOA (RFC 2308), names with an asterisk match as in RFC 4592.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from local.aws.route53.changes import RecordSet, policy

type Healthy = Callable[[str], bool]
"""Tells whether the health check with this id is healthy."""
type Pick = Callable[[Sequence[int]], int]
"""Returns the index that is picked of these weights, each above 0."""

_MOST_VALUES = 8  # of a multivalue answer
_DEEPEST = 16  # aliases and CNAMEs that follow each other


@dataclass(frozen=True, slots=True)
class Rrset:
    """Records of an answer: a name with its dot, type, TTL in seconds, and values."""

    name: str
    type: str
    ttl: int
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A DNS code (NOERROR or NXDOMAIN), the records, and the SOA where there are none."""

    code: str
    records: tuple[Rrset, ...]
    authority: Rrset | None = None


@dataclass(frozen=True, slots=True)
class Zone:
    """A hosted zone: its name with the dot, id, and record sets in MiniStack's shape."""

    name: str
    id: str
    records: Sequence[RecordSet]


def answer(zone: Zone, name: str, kind: str, healthy: Healthy, pick: Pick) -> Answer:
    """Answer a query for a name in the zone."""
    found: list[Rrset] = []
    wanted = name
    for _ in range(_DEEPEST):
        chosen = _choose(zone, _group(zone, wanted, kind), healthy, pick)
        if chosen:
            return Answer("NOERROR", (*found, *_resolve(zone, wanted, chosen, healthy, pick)))
        links = _choose(zone, _group(zone, wanted, "CNAME"), healthy, pick)
        if not links:
            break
        found += _resolve(zone, wanted, links, healthy, pick)
        wanted = found[-1].values[0]
        wanted = wanted if wanted.endswith(".") else f"{wanted}."
        if not _is_under(wanted, zone.name):
            break
    if found:
        return Answer("NOERROR", tuple(found))
    code = "NOERROR" if _exists(zone, name) else "NXDOMAIN"
    return Answer(code, (), _negative_soa(zone))


def _resolve(
    zone: Zone, name: str, chosen: Sequence[RecordSet], healthy: Healthy, pick: Pick
) -> tuple[Rrset, ...]:
    """Return the chosen sets' values under the name asked for; an alias has its target's."""
    kind = chosen[0]["Type"]
    for _ in range(_DEEPEST):
        target = chosen[0].get("AliasTarget") if chosen else None
        if not target:
            break
        chosen = _choose(zone, _group(zone, target["DNSName"], kind), healthy, pick)
    values = tuple(value for record in chosen for value in record.get("ResourceRecords", ()))
    if not values:
        return ()
    return (Rrset(name, kind, int(chosen[0]["TTL"]), values),)


def _choose(
    zone: Zone, group: Sequence[RecordSet], healthy: Healthy, pick: Pick
) -> Sequence[RecordSet]:
    """Return the record sets of one name and type that answer: one, or some of a multivalue."""
    if not group:
        return ()
    how = policy(group[0])
    if how == "simple":
        return group[:1]
    usable = [record for record in group if _is_healthy(zone, record, healthy, _DEEPEST)]
    if how == "failover":
        roles = {record["Failover"]: record for record in group}
        primary, secondary = roles.get("PRIMARY"), roles.get("SECONDARY")
        if secondary and (primary is None or (primary not in usable and secondary in usable)):
            return [secondary]
        return [primary] if primary else ()
    # "When no record is healthy, all records are healthy."
    usable = usable or list(group)
    if how == "multivalue answer":
        return usable[:_MOST_VALUES]
    if how == "weighted":
        # Zero weights count only where nothing above zero is healthy, and then equally.
        weighty = [record for record in usable if record["Weight"]]
        weights = [record["Weight"] for record in weighty] or [1] * len(usable)
        return [(weighty or usable)[pick(weights)]]
    return [usable[pick([1] * len(usable))]]


def _is_healthy(zone: Zone, record: RecordSet, healthy: Healthy, depth: int) -> bool:
    """Judge a set by its check and, for an alias that evaluates it, by its target's sets."""
    if record.get("HealthCheckId") and not healthy(record["HealthCheckId"]):
        return False
    target = record.get("AliasTarget")
    if not target or not target["EvaluateTargetHealth"] or not depth:
        return True
    if not _is_under(target["DNSName"], zone.name):
        return True
    group = _group(zone, target["DNSName"], record["Type"])
    return any(_is_healthy(zone, below, healthy, depth - 1) for below in group)


def _group(zone: Zone, name: str, kind: str) -> list[RecordSet]:
    if _exists(zone, name):
        owner = name.lower()
    else:
        labels = name.lower().split(".")
        above = (".".join(labels[cut:]) for cut in range(1, len(labels)))
        owner = "*." + next((parent for parent in above if _exists(zone, parent)), "")
    return [
        record
        for record in zone.records
        if record["Name"].lower().replace("\\052", "*") == owner and record["Type"] == kind
    ]


def _exists(zone: Zone, name: str) -> bool:
    """Tell whether a name has records, or names below it have."""
    return any(_is_under(record["Name"], name) for record in zone.records)


def _is_under(name: str, above: str) -> bool:
    return f".{name.lower()}".endswith(f".{above.lower()}")


def _negative_soa(zone: Zone) -> Rrset | None:
    """Return the SOA with the time for which "there is none" may be cached."""
    for record in zone.records:
        if record["Type"] == "SOA":
            minimum = int(record["ResourceRecords"][0].split()[-1])
            ttl = min(int(record["TTL"]), minimum)
            return Rrset(zone.name, "SOA", ttl, tuple(record["ResourceRecords"]))
    return None
