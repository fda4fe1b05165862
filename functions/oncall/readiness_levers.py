"""Whether traffic could be moved: levers, records, and the health checks between them. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from oncall.failover import HEALTH_CHECK, LEVERS, RECORDS, ROUTING_CONTROL, points_to
from oncall.failover_checks import choose
from oncall.readiness_seen import BAD, OBSERVED, OK, RULES, WARN, Finding
from oncall.service import ROLES, S3Signal
from oncall.words import UNKNOWN, duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncall.failover import Facts
    from oncall.readiness_seen import HealthCheckSeen, Inventory
    from oncall.service import HealthCheckLever, Role, Service

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
_DEEP = 5
"""So many calculated checks within each other are followed."""


def findings(service: Service, facts: Facts, inventory: Inventory) -> tuple[Finding, ...]:
    """Return what hinders traffic to move, and what says that it may."""
    return (
        _traffic(service, facts),
        _levers(service, facts),
        _ttl(service, inventory),
        _records(service, facts, inventory),
        *_attached(service, inventory),
        *_controls(service, facts, inventory),
        *_signal(service, facts, inventory),
        *_health_checks(service, inventory),
    )


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


type _IsIt = Callable[[str, Mapping[str, Any]], bool]
"""Whether a health check, by its id and configuration, is the one of a lever."""


def _attached(service: Service, inventory: Inventory) -> list[Finding]:
    """Find whether the record sets follow what the levers move: else pulling them does nothing."""
    found = []
    check, controls = service.health_check, service.routing_control
    if check is not None:
        names = (f"attached:{HEALTH_CHECK}:primary", check.id)
        found.append(_follows(service, inventory, "primary", names, _has_id(check.id)))
    if controls is not None:
        for role in ROLES:
            arn = controls.controls[role]
            what = f"one of the type RECOVERY_CONTROL on {arn}"
            names = (f"attached:{ROUTING_CONTROL}:{role}", what)
            found.append(_follows(service, inventory, role, names, _is_on(arn)))
    return found


def _has_id(lever: str) -> _IsIt:
    return lambda check, _config: check == lever


def _is_on(control: str) -> _IsIt:
    return lambda _check, config: config.get("RoutingControlArn") == control


def _follows(
    service: Service,
    inventory: Inventory,
    role: Role,
    names: tuple[str, str],
    is_it: _IsIt,
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
    is_it: _IsIt,
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
        *_alarm(service, lever, inventory, away=away),
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
    if seen is None:
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


def _alarm(
    service: Service, lever: HealthCheckLever, inventory: Inventory, *, away: bool | None
) -> list[Finding]:
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
    state = alarm.get("StateValue")
    if away is False and at_home is not None and state == ("OK" if at_home else "ALARM"):
        words = (
            f"{signal.name} is in {state} although its metric is at home, so the signal would move "
            f"nothing: it is there already. See why: {see}."
        )
        return [Finding("signal:alarm", BAD, None, words)]
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
