"""Whether a service could be failed over tonight: what is well, what is not, what to do. Pure.

Words and units are those of ``failover``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncall import readiness_levers, readiness_stack
from oncall.failover import SICK, WELL, health, lags, points_to
from oncall.failover_checks import NO, checks
from oncall.readiness_seen import BAD, OK, RULES, WARN, Finding
from oncall.service import ROLES
from oncall.words import UNKNOWN

_MOVED = frozenset({"traffic", "levers", "records", "controls", "signal", "consumers", "data"})
"""First words of findings about what a failback moves."""

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from oncall.failover import Facts
    from oncall.readiness_seen import FunctionSeen, Inventory
    from oncall.service import Capacity, Role, Service, Store


def findings(
    service: Service, facts: Facts, inventory: Inventory, rules: Mapping[str, float] = RULES
) -> tuple[Finding, ...]:
    """Return a finding for each thing that a failover of the service needs.

    ``facts`` are read in the direction ``failover``.
    """
    return (
        Finding("file", OK, None, f"runbooks/services/{service.name}.yaml can be read."),
        *readiness_levers.findings(service, facts, inventory),
        _standby(service, facts, rules),
        *_capacity(service, facts, rules),
        *(_data(service, facts, store) for store in service.stores),
        *_consumers(service, facts),
        *_drift(service, inventory),
        *readiness_stack.findings(service, inventory),
    )


def broken_file(wrong: str) -> Finding:
    """Return the finding of a service file that cannot be read, in ``service.load``'s sentence."""
    return Finding("file", BAD, None, wrong)


def changed(before: Iterable[Finding], now: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return those of ``now`` whose verdict or sentence is not as before, and new ones.

    A finding that is gone is not told of: what it was about is not in the file any more.
    """
    known = {one.name: (one.verdict, one.sentence) for one in before}
    return tuple(one for one in now if known.get(one.name) != (one.verdict, one.sentence))


@dataclass(frozen=True, slots=True)
class AfterFailback:
    """What is said of the next failover once a failback is done."""

    summary: str
    lines: tuple[str, ...] = ()
    """What is in its way, with what to do; empty: nothing is."""
    need: str = ""


def after_failback(service: Service, found: Iterable[Finding]) -> AfterFailback:
    """Say what would be in the next failover's way: what fails it, and what was not put back."""
    way = [
        one
        for one in found
        if one.verdict in {BAD, UNKNOWN}
        or (one.verdict == WARN and one.name.partition(":")[0] in _MOVED)
    ]
    if not way:
        return AfterFailback(f"{service.name} is armed again: it could be failed over tonight.")
    surely = any(one.verdict == BAD for one in way)
    word = "could not" if surely else "may not"
    things = "one thing" if len(way) == 1 else f"{len(way)} things"
    return AfterFailback(
        f"The next failover {word} go through ({things}, see the thread).",
        tuple(f"{one.name}, {one.verdict}: {one.sentence}" for one in way),
        f"Mend what the thread lists, so that {service.name} can be failed over again; then "
        f"`runbook doctor {service.name}`.",
    )


def _standby(service: Service, facts: Facts, rules: Mapping[str, float]) -> Finding:
    region, url = service.regions["standby"], service.probes["standby"].url
    said = health(facts.standby, rules)
    share = facts.standby.error_share
    if said == WELL:
        return Finding("standby", OK, share, f"{service.name} is well in {region}.")
    if said == SICK:
        words = f"{service.name} is sick in {region}: mend it there first. See `curl -i {url}`."
        return Finding("standby", BAD, share, words)
    words = (
        f"What is seen of {service.name} in {region} from outside is too little or does not agree: "
        f"`curl -i {url}`."
    )
    return Finding("standby", UNKNOWN, share, words)


def _capacity(service: Service, facts: Facts, rules: Mapping[str, float]) -> list[Finding]:
    judged = {one.name: one for one in checks(service, facts, rules)}
    found = []
    for wanted in service.capacity["standby"]:
        check = judged[f"capacity:{wanted.resource}"]
        verdict, words = OK, check.sentence
        if check.verdict != OK:
            words = f"{words} {_more(service, wanted)}"
            verdict = BAD if check.verdict == NO else UNKNOWN
        if verdict == UNKNOWN and wanted.kind == "ecs-desired-count" and check.number is not None:
            verdict = WARN  # it is never known how many tasks quotas allow
        name = f"capacity:{wanted.resource.split(':', 5)[-1]}"
        found.append(Finding(name, verdict, check.number, words))
    return found


def _more(service: Service, one: Capacity) -> str:
    region = service.regions["standby"]
    if one.kind == "ecs-desired-count":
        return (
            f"See what Fargate may run there: `aws service-quotas get-service-quota --region "
            f"{region} --service-code fargate --quota-code L-3032A538`."
        )
    return (
        f"See the account's pool with `aws lambda get-account-settings --region {region}`; raise "
        f"it with `aws service-quotas request-service-quota-increase --region {region} "
        f"--service-code lambda --quota-code L-B99A9384 --desired-value N`."
    )


def _data(service: Service, facts: Facts, store: Store) -> Finding:
    name, seen = f"data:{store.name}", facts.store(store.name)
    see = _see_store(service, store)
    if store.kind == "aurora" and seen.writer == "standby":
        words = f"{store.name} is written in {service.regions['standby']}, away from home: {see}."
        return Finding(name, WARN, seen.lag_seconds, words)
    if seen.status == UNKNOWN:
        return Finding(name, UNKNOWN, None, f"{store.name}'s copy was not read: {see}.")
    if store.kind == "aurora" and seen.writer is None:
        words = f"Which Region {store.name} is written in was not read: {see}."
        return Finding(name, UNKNOWN, seen.lag_seconds, words)
    if seen.status != "ACTIVE":
        words = f"{store.name}'s copy is {seen.status} and cannot be used: {see}."
        return Finding(name, BAD, None, words)
    if seen.lag_seconds is None:
        return _no_lag(service, facts, store)
    if lags(service, facts)[store.name]:
        words = f"{store.name} lags more than the {store.max_lag_seconds} s it may: {see}."
        return Finding(name, BAD, seen.lag_seconds, words)
    if seen.lag_seconds > service.rpo_seconds:
        words = f"{store.name} lags more than targets.rpo_seconds, {service.rpo_seconds} s: {see}."
        return Finding(name, BAD, seen.lag_seconds, words)
    return Finding(name, OK, seen.lag_seconds, f"{store.name} is replicated and in step.")


def _no_lag(service: Service, facts: Facts, store: Store) -> Finding:
    name, is_table = f"data:{store.name}", store.kind == "dynamodb"
    region = service.regions["primary" if is_table else "standby"]
    metric = "ReplicationLatency" if is_table else "AuroraGlobalDBReplicationLag"
    see = (
        f"`aws cloudwatch list-metrics --region {region} --namespace "
        f"{'AWS/DynamoDB' if is_table else 'AWS/RDS'} --metric-name {metric}`"
    )
    if is_table and facts.primary.answered.get("cloudwatch"):
        # Measured write by write (DynamoDB Developer Guide, "Monitoring global tables").
        words = (
            f"{store.name} has a copy, but no ReplicationLatency within the hour: nobody wrote, or "
            f"you may not read metrics in {region}; {see}."
        )
        return Finding(name, WARN, None, words)
    words = f"How far {store.name}'s copy lags was not read in {region}: {see}."
    return Finding(name, UNKNOWN, None, words)


def _see_store(service: Service, store: Store) -> str:
    region = service.regions["standby"]
    if store.kind == "dynamodb":
        return f"`aws dynamodb describe-table --region {region} --table-name {store.name}`"
    return (
        f"`aws rds describe-global-clusters --region {region} --global-cluster-identifier "
        f"{store.name}`"
    )


def _consumers(service: Service, facts: Facts) -> list[Finding]:
    """Find whether consumers work where traffic goes, and nowhere else."""
    at = points_to(facts) or "primary"
    found = []
    for role in ROLES:
        polls = {one.resource: one.value for one in facts.side(role).consumers}
        for arn in service.consumers[role]:
            uuid, region = arn.rsplit(":", 1)[-1], service.regions[role]
            name = f"consumers:{role}:{uuid}"
            see = f"aws lambda get-event-source-mapping --region {region} --uuid {uuid}"
            mend = f"aws lambda update-event-source-mapping --region {region} --uuid {uuid}"
            if arn not in polls:
                words = f"The consumer {uuid} in {region} was not read: `{see}`."
                found.append(Finding(name, UNKNOWN, None, words))
            elif polls[arn] and role != at:
                words = (
                    f"The consumer {uuid} works in {region} too, beside the other Region's: "
                    f"`{mend} --no-enabled`."
                )
                found.append(Finding(name, BAD, 1, words))
            elif not polls[arn] and role == at:
                words = f"The consumer {uuid} in {region} is off: `{mend} --enabled`."
                found.append(Finding(name, WARN, 0, words))
            else:
                word = "works" if role == at else "waits"
                found.append(Finding(name, OK, int(role == at), f"It {word} in {region}."))
    return found


# Drift


def _drift(service: Service, inventory: Inventory) -> list[Finding]:
    pairs, alone = _paired(inventory.functions)
    found = [_compared(service, *pair) for pair in pairs]
    for role, one in alone:
        other: Role = "standby" if role == "primary" else "primary"
        words = (
            f"The file tells of {one.name} in {service.regions[role]} and of none like it in "
            f"{service.regions[other]}, so they are not compared. Give consumers.{other} or "
            f"capacity.{other}."
        )
        found.append(Finding(f"drift:{one.name}", WARN, None, words))
    return found


def _paired(
    functions: Mapping[Role, Sequence[FunctionSeen]],
) -> tuple[list[tuple[FunctionSeen, FunctionSeen]], list[tuple[Role, FunctionSeen]]]:
    """Pair functions by name; if one of each Region is left over, they are taken for a pair."""
    here = {one.name: one for one in functions.get("primary", ())}
    there = {one.name: one for one in functions.get("standby", ())}
    pairs = [(here[name], there[name]) for name in sorted(here.keys() & there.keys())]
    left = [one for name, one in sorted(here.items()) if name not in there]
    right = [one for name, one in sorted(there.items()) if name not in here]
    if len(left) == len(right) == 1:
        return [*pairs, (left[0], right[0])], []
    alone: list[tuple[Role, FunctionSeen]] = [("primary", one) for one in left]
    return pairs, [*alone, *(("standby", one) for one in right)]


def _compared(service: Service, here: FunctionSeen, there: FunctionSeen) -> Finding:
    name, region = f"drift:{there.name}", service.regions["standby"]
    commands = " and ".join(
        f"`aws lambda get-function-configuration --region {where} --function-name {one.name}`"
        for where, one in ((service.regions["primary"], here), (region, there))
    )
    if here.code_sha256 is None or there.code_sha256 is None:
        words = f"{there.name} was not read in both Regions: {commands}."
        return Finding(name, UNKNOWN, None, words)
    if here.environment is None or there.environment is None:
        words = f"The environment of {there.name} was not read in both Regions: {commands}."
        return Finding(name, UNKNOWN, None, words)
    lacks = sorted(here.environment - there.environment)
    differ = [
        word
        for word, same in (
            ("code", here.code_sha256 == there.code_sha256),
            ("memory", here.memory_mb == there.memory_mb),
            ("timeout", here.timeout_seconds == there.timeout_seconds),
            ("environment", here.environment == there.environment),
        )
        if not same
    ]
    if lacks:
        words = (
            f"{there.name} in {region} lacks environment variables that the primary's has: "
            f"{', '.join(lacks)}. Deploy it there: {commands}."
        )
        return Finding(name, BAD, len(differ), words)
    if differ:
        words = (
            f"{there.name} is not alike in both Regions: {', '.join(differ)}. Deploy one to both: "
            f"{commands}."
        )
        return Finding(name, WARN, len(differ), words)
    return Finding(name, OK, 0, f"{there.name} is alike in both Regions.")
