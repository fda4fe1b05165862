"""Whether a service could be failed over tonight: what is well, what is not, what to do. Pure.

Words and units are those of ``failover``. What may be secret is not looked at: service files name
no secrets and no parameters.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oncall.failover import (
    HEALTH_CHECK,
    LEVERS,
    RECORDS,
    ROUTING_CONTROL,
    SICK,
    WELL,
    health,
    lags,
    points_to,
)
from oncall.failover_checks import NO, checks, choose
from oncall.service import ROLES, S3Signal
from oncall.words import UNKNOWN, duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from oncall.failover import Facts
    from oncall.service import Capacity, HealthCheckLever, Role, Service, Store

OK, WARN, BAD = "ok", "warn", "bad"
RULES: Mapping[str, float] = {
    "window_periods": 5,
    "signals": 2,
    "checkers_share": 0.18,
    "probes_share": 0.5,
    "probe_places": 1,
    "error_share": 0.2,
}
"""As ``failover`` reads them. One place probes: where the doctor is asked from."""
OBSERVED = frozenset({"HTTP", "HTTPS", "HTTP_STR_MATCH", "HTTPS_STR_MATCH", "TCP"})
"""Types of health checks that checkers observe (Route 53 ``HealthCheckConfig.Type``)."""
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
_DEEP = 5
"""So many calculated checks within each other are followed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing that a failover needs."""

    name: str
    """Unique in a service: ``ttl``, or two and three words joined by ``:``, ``data:shop-orders``.
    First words: ``file traffic levers ttl records attached endpoints controls safety_rule signal
    health_check standby capacity data consumers drift``."""
    verdict: str
    """``ok``; ``warn``: it would work, not as it should; ``bad``; ``unknown``: it was not seen."""
    number: float | None
    """What was compared: seconds, a count, a share; ``None`` where there is none."""
    sentence: str
    """What is, and unless it is well what to do, with the command. A number that moves by itself
    is not in it, or every day would have news."""


@dataclass(frozen=True, slots=True)
class HealthCheckSeen:
    """A Route 53 health check; one that could not be read is left out."""

    config: Mapping[str, Any]
    """``HealthCheckConfig`` as Route 53 returned it; empty: there is no such check."""
    healthy_share: float | None = None
    """Of the checkers' observations, as reported; ``None`` for a check that they do not make."""


@dataclass(frozen=True, slots=True)
class FunctionSeen:
    """A function that the file tells of, or its alias or version (``GetFunctionConfiguration``)."""

    name: str
    """``shop``, or ``shop:live``."""
    code_sha256: str | None = None
    """``None``: it could not be read."""
    memory_mb: int = 0
    timeout_seconds: int = 0
    environment: frozenset[str] | None = None
    """Names of the variables, never their values; ``None``: Lambda could not decrypt them."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a failover does not read and readiness goes by, beside ``failover.Facts``."""

    record_sets: Sequence[Mapping[str, Any]] | None = None
    """All of the service's name and type, as Route 53 returned them; ``None``: not read."""
    health_checks: Mapping[str, HealthCheckSeen] = field(default_factory=dict)
    """By id: the file's, those of the record sets, and the children of calculated ones."""
    endpoints: Mapping[str, bool | None] = field(default_factory=dict)
    """Whether the cluster's endpoint in a Region answers; ``None``: it refuses who asks."""
    alarm: Mapping[str, Any] | None = None
    """The signal's, as ``DescribeAlarms`` returned it; empty: there is none; ``None``: unknown."""
    functions: Mapping[Role, Sequence[FunctionSeen]] = field(default_factory=dict)
    """By role."""


def findings(
    service: Service, facts: Facts, inventory: Inventory, rules: Mapping[str, float] = RULES
) -> tuple[Finding, ...]:
    """Return a finding for each thing that a failover of the service needs.

    ``facts`` are read in the direction ``failover``.
    """
    return (
        Finding("file", OK, None, f"runbooks/services/{service.name}.yaml can be read."),
        _traffic(service, facts),
        _levers(service, facts),
        _ttl(service, inventory),
        _records(service, facts, inventory),
        *_attached(service, inventory),
        *_controls(service, facts, inventory),
        *_signal(service, facts, inventory),
        *_health_checks(service, inventory),
        _standby(service, facts, rules),
        *_capacity(service, facts, rules),
        *(_data(service, facts, store) for store in service.stores),
        *_consumers(service, facts),
        *_drift(service, inventory),
    )


def broken_file(name: str, wrong: str) -> Finding:
    """Return the finding of a service file that cannot be read, in ``BadInput``'s sentence."""
    return Finding("file", BAD, None, f"runbooks/services/{name}.yaml: {wrong}")


def changed(before: Iterable[Finding], now: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return those of ``now`` whose verdict or sentence is not as before, and new ones.

    A finding that is gone is not told of: what it was about is not in the file any more.
    """
    known = {one.name: (one.verdict, one.sentence) for one in before}
    return tuple(one for one in now if known.get(one.name) != (one.verdict, one.sentence))


# Levers and records


def _traffic(service: Service, facts: Facts) -> Finding:
    where = points_to(facts)
    if where is None:
        words = f"No lever says where traffic goes. See for yourself: {_see_records(service)}."
        return Finding("traffic", UNKNOWN, None, words)
    if where == "standby":
        words = (
            f"{service.name} is failed over to {service.regions['standby']}, so it cannot be "
            f"failed over. Bring it back to {service.regions['primary']} first."
        )
        return Finding("traffic", WARN, None, words)
    return Finding("traffic", OK, None, f"Traffic goes to {service.regions['primary']}, its home.")


def _levers(service: Service, facts: Facts) -> Finding:
    declared = [kind for kind in LEVERS if getattr(service, kind) is not None]
    chosen = choose(service, facts)
    if not chosen.kind:
        silent = [one.kind for one in facts.levers if not one.answered]
        words = f"No lever can be pulled. {chosen.sentence} See for yourself: "
        verdict = UNKNOWN if len(silent) == len(declared) else BAD
        return Finding("levers", verdict, 0, f"{words}{_see_records(service)}.")
    if chosen.kind != declared[0]:
        words = f"{chosen.sentence} Mend the one before it."
        return Finding("levers", WARN, len(declared), words)
    if chosen.kind == RECORDS and service.regions["primary"] == "us-east-1":
        words = (
            "The only lever is the records, whose control plane is in us-east-1, the Region that "
            "would be lost. Give levers.routing_control or levers.health_check."
        )
        return Finding("levers", WARN, len(declared), words)
    words = f"A failover would use {chosen.kind.replace('_', ' ')}, the first of the file's levers."
    return Finding("levers", OK, len(declared), words)


def _ttl(service: Service, inventory: Inventory) -> Finding:
    """Hold how late the last client moves against the target: its TTL, and the check's delay."""
    known = [int(one["TTL"]) for one in inventory.record_sets or () if "TTL" in one]
    ttl = max(known, default=service.ttl_seconds)
    check = service.health_check if service.routing_control is None else None
    late = ttl + (check.seconds if check else 0)
    rto, mend = service.rto_seconds, f"Lower the record's TTL in your template: {_see(service)}."
    if late > rto:
        words = (
            f"Clients move up to {duration(late)} after the switch, and all of it should take "
            f"{duration(rto)} (targets.rto_seconds). {mend}"
        )
        return Finding("ttl", BAD, late, words)
    if inventory.record_sets is None:
        words = f"The record's TTL was not read: {_see(service)}."
        return Finding("ttl", UNKNOWN, None, words)
    if known and ttl != service.ttl_seconds:
        words = (
            f"The record's TTL is {ttl} s, record.ttl_seconds of the file {service.ttl_seconds}. "
            f"Set one to the other: {_see(service)}."
        )
        return Finding("ttl", WARN, ttl, words)
    if late * 2 > rto:
        words = (
            f"Clients move up to {duration(late)} after the switch, which leaves less than half of "
            f"{duration(rto)} (targets.rto_seconds) for the looks and a human's yes. {mend}"
        )
        return Finding("ttl", WARN, late, words)
    words = f"Clients move up to {duration(late)} after the switch, {duration(rto)} are promised."
    return Finding("ttl", OK, late, words)


def _see(service: Service) -> str:
    return f"see it with {_see_records(service)}"


def _see_records(service: Service) -> str:
    return (
        f"`aws route53 list-resource-record-sets --hosted-zone-id {service.zone_id} "
        f"--query \"ResourceRecordSets[?Name=='{service.record}.']\"`"
    )


def _records(service: Service, facts: Facts, inventory: Inventory) -> Finding:
    sets = inventory.record_sets
    if sets is None:
        words = f"The record sets were not read: {_see(service)}."
        return Finding("records", UNKNOWN, None, words)
    count = len(sets)
    if count < len(ROLES):
        words = (
            f"{service.record} has {count} record sets of type {service.record_type}, and each "
            f"Region needs one. Make them in your template: {_see(service)}."
        )
        return Finding("records", BAD, count, words)
    seen = facts.lever(RECORDS)
    if seen is not None and seen.differs:
        words = (
            f"They are not as levers.records says: {seen.differs}. Mend either: {_see(service)}."
        )
        return Finding("records", BAD, count, words)
    odd = _odd_weights(service, facts) or _odd_aliases(sets)
    if odd:
        return Finding("records", WARN, count, f"{odd} Make them so: {_see(service)}.")
    return Finding("records", OK, count, "The record sets are as the file says.")


def _odd_weights(service: Service, facts: Facts) -> str:
    lever, seen = service.records, facts.lever(RECORDS)
    if lever is None or not lever.weighted or seen is None or points_to(facts) != "primary":
        return ""
    for role, one in seen.sets.items():
        if one.get("Weight") != lever.weights[role]:
            return (
                f"The weight of {lever.sets[role]} is {one.get('Weight')}, at home it should be "
                f"{lever.weights[role]} (levers.records.weights)."
            )
    return ""


def _odd_aliases(sets: Sequence[Mapping[str, Any]]) -> str:
    said = {one["AliasTarget"]["EvaluateTargetHealth"] for one in sets if "AliasTarget" in one}
    if said == {True, False}:
        return "One alias evaluates its target's health and another does not; both should alike."
    return ""


def _attached(service: Service, inventory: Inventory) -> list[Finding]:
    """Find whether the record sets follow what the levers move: else pulling them does nothing."""
    wanted: list[tuple[str, Role, str, Callable[[str, Mapping[str, Any]], bool]]] = []
    lever = service.health_check
    if lever is not None:
        wanted.append(("health_check", "primary", lever.id, lambda found, _: found == lever.id))
    controls = service.routing_control
    if controls is not None:
        wanted += [
            (
                "routing_control",
                role,
                f"one of the type RECOVERY_CONTROL on {controls.controls[role]}",
                lambda _, config, role=role: (  # type: ignore[misc]  # bound now, as loops need it
                    config.get("RoutingControlArn") == controls.controls[role]
                ),
            )
            for role in ROLES
        ]
    return [
        _follows(service, inventory, role, (f"attached:{kind}:{role}", what), is_it)
        for kind, role, what, is_it in wanted
    ]


def _follows(
    service: Service,
    inventory: Inventory,
    role: Role,
    names: tuple[str, str],
    is_it: Callable[[str, Mapping[str, Any]], bool],
) -> Finding:
    name, what = names
    region = service.regions[role]
    if inventory.record_sets is None:
        words = f"What {region}'s record set follows was not read: {_see(service)}."
        return Finding(name, UNKNOWN, None, words)
    own = service.records.sets[role] if service.records else None
    ids = [
        str(one.get("HealthCheckId", ""))
        for one in inventory.record_sets
        if own in {None, one.get("SetIdentifier")}
    ]
    said = {_leads_to(one, inventory, is_it) for one in ids if one}
    if OK in said:
        return Finding(name, OK, None, f"{region}'s record set follows its lever.")
    if BAD in said:
        words = (
            f"The calculated health check of {region}'s record set, or one within it, does not "
            f"fall with its lever's: it has to be on, not inverted, and need all its children. "
            f"`aws route53 update-health-check --health-check-id {next(filter(None, ids))} "
            f"--no-disabled --no-inverted --health-threshold N`."
        )
        return Finding(name, BAD, None, words)
    if UNKNOWN in said:
        words = (
            f"What {region}'s record set follows was not read in full: `aws route53 "
            f"get-health-check --health-check-id {next(filter(None, ids))}`."
        )
        return Finding(name, UNKNOWN, None, words)
    words = (
        f"{region}'s record set does not follow its lever, which would move nothing. Attach the "
        f"health check to it in your template ({what}); {_see(service)}."
    )
    return Finding(name, BAD, None, words)


def _leads_to(
    check: str,
    inventory: Inventory,
    is_it: Callable[[str, Mapping[str, Any]], bool],
    depth: int = _DEEP,
) -> str:
    """Return ``ok`` if a check is the lever's or falls with it, ``bad`` if it may not fall with it.

    ``""``: it is another. A calculated check falls with one child only if it needs all of them
    (Route 53 ``HealthCheckConfig.HealthThreshold``).
    """
    seen = inventory.health_checks.get(check)
    config = seen.config if seen else {}
    if is_it(check, config):
        return OK
    if seen is None:
        return UNKNOWN
    children = config.get("ChildHealthChecks", ())
    if not children or not depth:
        return ""
    said = {_leads_to(one, inventory, is_it, depth - 1) for one in children}
    if OK in said:
        needs_all = config.get("HealthThreshold") == len(children)
        moves = not (config.get("Disabled") or config.get("Inverted"))
        return OK if needs_all and moves else BAD
    return next((word for word in (BAD, UNKNOWN) if word in said), "")


def _controls(service: Service, facts: Facts, inventory: Inventory) -> list[Finding]:
    lever, seen = service.routing_control, facts.lever(ROUTING_CONTROL)
    if lever is None or seen is None:
        return []
    return [
        _endpoints(lever.endpoints, lever.controls["primary"], inventory),
        _states(service, seen.open if seen.answered else {}),
        _safety_rule(lever.controls, safe=seen.safe),
    ]


def _endpoints(endpoints: Mapping[str, str], control: str, inventory: Inventory) -> Finding:
    said = {region: inventory.endpoints.get(region) for region in endpoints}
    count = sum(answers is True for answers in said.values())
    for verdict, word, what in ((BAD, False, "do not answer"), (UNKNOWN, None, "refuse you")):
        away = [region for region, answers in said.items() if answers is word]
        if away:
            words = (
                f"Cluster endpoints that {what}: {', '.join(sorted(away))}. Compare the file with "
                f"describe-cluster, and ask: `aws route53-recovery-cluster "
                f"get-routing-control-state --region {away[0]} --endpoint-url "
                f"{endpoints[away[0]]} --routing-control-arn {control}`."
            )
            return Finding("endpoints", verdict, count, words)
    return Finding("endpoints", OK, count, f"All {count} endpoints of the cluster answer.")


def _states(service: Service, is_open: Mapping[Role, bool]) -> Finding:
    lever = service.routing_control
    arns = list(lever.controls.values()) if lever else []
    count = sum(is_open.values())
    if set(is_open) != set(ROLES):
        return Finding("controls", UNKNOWN, None, "The routing controls' states were not read.")
    if count == 1:
        return Finding("controls", OK, count, "Exactly one of the two routing controls is on.")
    states = " ".join(
        f"RoutingControlArn={arn},RoutingControlState={state}"
        for arn, state in zip(arns, ("On", "Off"), strict=True)
    )
    word, verdict = ("Both", WARN) if count else ("Neither", BAD)
    words = (
        f"{word} of the routing controls {'are' if count else 'is'} on, one should be: `aws "
        f"route53-recovery-cluster update-routing-control-states --endpoint-url ENDPOINT "
        f"--update-routing-control-state-entries {states}`."
    )
    return Finding("controls", verdict, count, words)


def _safety_rule(controls: Mapping[Role, str], *, safe: bool | None) -> Finding:
    if safe:
        words = "A safety rule keeps one routing control on."
        return Finding("safety_rule", OK, None, words)
    panel = controls["primary"].partition("/routingcontrol/")[0]
    if safe is None:
        words = (
            f"The safety rules were not read: `aws route53-recovery-control-config "
            f"list-safety-rules --region us-west-2 --control-panel-arn {panel}`."
        )
        return Finding("safety_rule", UNKNOWN, None, words)
    words = (
        f"No safety rule keeps one routing control on, so a hand can turn both off: `aws "
        f"route53-recovery-control-config create-safety-rule --region us-west-2 --assertion-rule "
        f"'AssertedControls={','.join(controls.values())},ControlPanelArn={panel},Name=one-on,"
        f"WaitPeriodMs=5000,RuleConfig={{Inverted=false,Threshold=1,Type=ATLEAST}}'`."
    )
    return Finding("safety_rule", WARN, None, words)


def _signal(service: Service, facts: Facts, inventory: Inventory) -> list[Finding]:
    lever, seen = service.health_check, facts.lever(HEALTH_CHECK)
    if lever is None or seen is None:
        return []
    check, name = inventory.health_checks.get(lever.id), "health_check:lever"
    judged = _check(name, lever.id, check, inverted=_inverted(lever, inventory))
    if judged.verdict == OK:
        judged = _watched(lever, check, name) or judged
    away = _is_away(seen.open) if seen.answered else None
    return [
        _signal_state(service, lever, away=away),
        judged,
        *_alarm(service, lever, inventory),
    ]


def _inverted(lever: HealthCheckLever, inventory: Inventory) -> bool | None:
    """Return whether the check has to be inverted; ``None``: nothing tells."""
    if isinstance(lever.signal, S3Signal):
        return lever.signal.away_when == "present"
    at_home = _rings(inventory.alarm, lever.signal.home_value)
    return at_home if at_home != _rings(inventory.alarm, lever.signal.away_value) else None


def _rings(alarm: Mapping[str, Any] | None, value: float) -> bool | None:
    """Return whether an alarm is in ALARM at a value of its metric; ``None``: nothing tells."""
    compare = _COMPARISONS.get((alarm or {}).get("ComparisonOperator", ""))
    threshold = (alarm or {}).get("Threshold")
    return compare(value, threshold) if compare and threshold is not None else None


def _is_away(is_open: Mapping[Role, bool]) -> bool | None:
    return not is_open["primary"] if "primary" in is_open else None


def _signal_state(service: Service, lever: HealthCheckLever, *, away: bool | None) -> Finding:
    region, signal = service.regions["standby"], lever.signal
    if isinstance(signal, S3Signal):
        thing = f"the object s3://{signal.bucket}/{signal.key}"
        see = f"aws s3api head-object --region {region} --bucket {signal.bucket} --key {signal.key}"
        home = f"aws s3 rm s3://{signal.bucket}/{signal.key} --region {region}"
        if signal.away_when == "absent":
            home = f"echo home | aws s3 cp - s3://{signal.bucket}/{signal.key} --region {region}"
    else:
        thing = f"the metric {signal.namespace} {signal.metric}"
        see = f"aws cloudwatch describe-alarms --region {region} --alarm-names {signal.name}"
        home = (
            f"aws cloudwatch put-metric-data --region {region} --namespace {signal.namespace} "
            f"--metric-name {signal.metric} --value {signal.home_value:g}"
        )
    if away is None:
        words = f"The signal ({thing}) does not answer, or refuses you: `{see}`."
        return Finding("signal", UNKNOWN, None, words)
    if away:
        words = f"The signal ({thing}) sends traffic away. If nobody meant that: `{home}`."
        return Finding("signal", WARN, None, words)
    return Finding("signal", OK, None, f"The signal in {region} can be read, and is at home.")


def _watched(lever: HealthCheckLever, seen: HealthCheckSeen | None, name: str) -> Finding | None:
    """Find whether the check watches the file's signal, and notices as soon as it says."""
    if seen is None or not seen.config:
        return None
    config, signal = seen.config, lever.signal
    if isinstance(signal, S3Signal):
        place = f"{config.get('FullyQualifiedDomainName', '')}{config.get('ResourcePath', '')}"
        fits = signal.bucket in place and place.endswith(f"/{signal.key}")
        what = f"s3://{signal.bucket}/{signal.key}"
    else:
        fits = config.get("AlarmIdentifier", {}).get("Name") == signal.name
        what = f"the alarm {signal.name}"
    see = f"`aws route53 get-health-check --health-check-id {lever.id}`"
    if not fits:
        words = (
            f"{lever.id} does not watch {what}, so the signal would move nothing. Mend "
            f"levers.health_check or the check: {see}."
        )
        return Finding(name, BAD, None, words)
    if not isinstance(signal, S3Signal):
        return _keeps_its_status(lever, config, name)
    late = config.get("RequestInterval", 30) * config.get("FailureThreshold", 3)
    if late > lever.seconds:
        words = (
            f"{lever.id} notices its signal after {late} s, levers.health_check.seconds says "
            f"{lever.seconds}. Set one to the other: {see}."
        )
        return Finding(name, WARN, late, words)
    return None


def _keeps_its_status(
    lever: HealthCheckLever, config: Mapping[str, Any], name: str
) -> Finding | None:
    if config.get("InsufficientDataHealthStatus", "LastKnownStatus") == "LastKnownStatus":
        return None
    words = (
        f"{lever.id} would forget the switch once its metric is old: `aws route53 "
        f"update-health-check --health-check-id {lever.id} --insufficient-data-health-status "
        f"LastKnownStatus`."
    )
    return Finding(name, BAD, None, words)


def _alarm(service: Service, lever: HealthCheckLever, inventory: Inventory) -> list[Finding]:
    signal, alarm = lever.signal, inventory.alarm
    if isinstance(signal, S3Signal):
        return []
    see = (
        f"`aws cloudwatch describe-alarms --region {service.regions['standby']} --alarm-names "
        f"{signal.name}`"
    )
    if alarm is None:
        return [Finding("signal:alarm", UNKNOWN, None, f"The alarm was not read: {see}.")]
    if (alarm.get("Namespace"), alarm.get("MetricName")) != (signal.namespace, signal.metric):
        words = (
            f"There is no alarm {signal.name} on {signal.namespace} {signal.metric} in "
            f"{service.regions['standby']}, so the signal would move nothing: {see}."
        )
        return [Finding("signal:alarm", BAD, None, words)]
    at_home = _rings(alarm, signal.home_value)
    if at_home is not None and at_home == _rings(alarm, signal.away_value):
        words = (
            f"{signal.name} does not tell {signal.away_value:g} from {signal.home_value:g}, so the "
            f"signal would move nothing. Set its threshold between the two: {see}."
        )
        return [Finding("signal:alarm", BAD, alarm.get("Threshold"), words)]
    return [Finding("signal:alarm", OK, None, f"{signal.name} watches the signal's metric.")]


# Health


def _health_checks(service: Service, inventory: Inventory) -> list[Finding]:
    found = []
    for role in ROLES:
        if not service.health_checks[role]:
            words = (
                f"The file names no health check of {service.regions[role]}, so only a probe tells "
                f"from outside how it does. Give health_checks.{role}."
            )
            found.append(Finding(f"health_check:{role}", WARN, 0, words))
        for one in service.health_checks[role]:
            seen, name = inventory.health_checks.get(one), f"health_check:{role}:{one}"
            sick = BAD if role == "standby" else WARN
            found.append(_check(name, one, seen, inverted=False, sick=sick))
    return [*found, *_others(service, inventory)]


def _others(service: Service, inventory: Inventory) -> list[Finding]:
    """Judge the checks that record sets follow and the file does not name."""
    named = {one for role in ROLES for one in service.health_checks[role]}
    named |= {service.health_check.id} if service.health_check else set()
    sets = inventory.record_sets or ()
    followed = {str(one["HealthCheckId"]) for one in sets if one.get("HealthCheckId")}
    others = sorted((followed | inventory.health_checks.keys()) - named)
    return [
        _check(f"health_check:record:{one}", one, inventory.health_checks.get(one), inverted=None)
        for one in others
    ]


def _check(
    name: str, check: str, seen: HealthCheckSeen | None, *, inverted: bool | None, sick: str = ""
) -> Finding:
    """Judge a health check.

    ``inverted``: whether it should be, ``None``: either; ``sick``: the verdict if its checkers say
    so, ``""``: they are not asked.
    """
    see = f"aws route53 get-health-check --health-check-id {check}"
    update = f"aws route53 update-health-check --health-check-id {check}"
    if seen is None:
        return Finding(name, UNKNOWN, None, f"The health check {check} was not read: `{see}`.")
    share = seen.healthy_share if sick else None
    if not seen.config:
        words = f"There is no health check {check}: `aws route53 list-health-checks`."
        return Finding(name, BAD, None, words)
    if seen.config.get("Disabled"):
        words = f"{check} is disabled, and Route 53 takes it for healthy: `{update} --no-disabled`."
        return Finding(name, BAD, share, words)
    if inverted not in {None, bool(seen.config.get("Inverted"))}:
        word, flag = ("not ", "--inverted") if inverted else ("", "--no-inverted")
        words = f"{check} is {word}inverted, so it says the contrary: `{update} {flag}`."
        return Finding(name, BAD, share, words)
    if not sick or seen.config.get("Type") not in OBSERVED:
        return Finding(name, OK, share, f"{check} is there and on.")
    why = f"`aws route53 get-health-check-status --health-check-id {check}`"
    if share is None:
        return Finding(name, UNKNOWN, None, f"No checker says how {check} does: {why}.")
    if share <= RULES["checkers_share"]:
        words = f"Checkers find {check} unhealthy. See why: {why}."
        return Finding(name, sick, share, words)
    return Finding(name, OK, share, f"{check} is there, on and healthy.")


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


# Capacity, data, consumers


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
