"""Look where clients are sent and whether it works there: the I/O of ``failover_looks``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from oncall import failover_facts, failover_moves, name_servers, probes
from oncall.failover_looks import NO_ANSWER, OTHER, Seen
from oncall.service import ROLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncall.service import Role, Service
    from oncall.services import Services


def look(
    aws: Services,
    service: Service,
    rules: Mapping[str, float],
    *,
    goes_to: Role,
    change_id: str = "",
) -> Seen:
    """Ask every name server and the public name, and read both Regions' requests."""
    # Side by side: what is away takes its whole time limit, and a look has less than a minute.
    with ThreadPoolExecutor() as pool:
        sums = {role: pool.submit(_requests, aws, service, role, rules) for role in ROLES}
        whose = pool.submit(_values, aws, service)
        spread = pool.submit(failover_moves.is_insync, aws, change_id) if change_id else None
        servers = aws.settings.name_servers or name_servers.of_zone(service.zone)
        given = name_servers.answers(servers, service.record, service.record_type)
        values = whose.result()
        public = service.probes["public"]
        works = probes.works(public, _address(given, values[goes_to]))
        counted = {role: one.result() for role, one in sums.items()}
    there, total = counted[goes_to], sum(one[0] for one in counted.values() if one)
    known = total and all(counted.values())
    return Seen(
        now=aws.clock().timestamp(),
        period_seconds=aws.settings.period_seconds,
        goes_to=goes_to,
        answers={name: _whose(values, found) for name, found in given.items()},
        insync=spread.result() if spread else None,
        probes={aws.settings.region: works},
        traffic_share=there[0] / total if there and known else None,
        error_share=there[1] / there[0] if there and there[0] else None,
    )


def _requests(
    aws: Services, service: Service, role: Role, rules: Mapping[str, float]
) -> tuple[float, float] | None:
    try:
        region = aws.within(service.regions[role])
        return failover_facts.requests(region, service, role, rules["window_periods"])
    except (BotoCoreError, ClientError):
        return None


def _values(aws: Services, service: Service) -> dict[Role, frozenset[str]]:
    """Return what each Region's answer is: its record set's values, or where its own URL leads.

    The latter for an alias, whose target's addresses change, and where Route 53 does not tell.
    """
    try:
        sets = failover_facts.record_sets(aws.within(aws.settings.region), service)
    except (BotoCoreError, ClientError):
        sets = []
    found: dict[Role, frozenset[str]] = {}
    for role in ROLES:
        name = service.records.sets[role] if service.records else ""
        values = _listed([one for one in sets if name and one.get("SetIdentifier") == name])
        host = urlsplit(service.probes[role].url).hostname or ""
        found[role] = values or name_servers.resolve(host)
    return found


def _listed(sets: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    return frozenset(
        str(one["Value"]).rstrip(".").lower()
        for found in sets
        for one in found.get("ResourceRecords", ())
    )


def _whose(values: Mapping[Role, frozenset[str]], given: frozenset[str] | None) -> str:
    if not given:
        return NO_ANSWER
    return next((role for role in ROLES if given & values[role]), OTHER)


def _address(given: Mapping[str, frozenset[str] | None], there: frozenset[str]) -> str:
    """Return an address that new clients are told, one of where traffic goes to if there is one.

    Resolvers may keep an older one, and in between weights decide.
    """
    told = frozenset().union(*filter(None, given.values()))
    return min(told & there or told, default="")
