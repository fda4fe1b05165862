"""What a failover or a failback does, in order, and what undoes each step: pure.

The order of a plan (``Plan.order``, as the record holds it and people approve it) is

    {"service": name, "direction": "failover"|"failback", "record", "record_type", "zone_id",
     "from": Region, "to": Region, "lever": first lever pulled, "steps": [Step as a dict, …],
     "checks": [Check as a dict, …], "loss_seconds": float or null (unknown), "needs_yes": bool,
     "approvers": [who may say yes to a failback; empty: the stack's]}

``limits`` (the contract's) are read for ``drain_seconds``, the longest wait for replication.

``Plan.action``, for the contract's ``modes.always_ask`` and ``approval.two_people``:
``failover_unattended`` (declared, agreed, no data at stake), ``failover`` (one yes),
``failover_with_loss`` (two people), ``failback`` (two people) and ``human``.
"""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from oncall.failover import FAILOVER, RECORDS, ROUTING_CONTROL, agree, weighted_share
from oncall.failover_checks import (
    ASK,
    NO,
    away,
    checks,
    choose,
    none_is,
    planned_loss,
    promotion,
    setting,
)
from oncall.levers import LEVERS as SETTINGS
from oncall.levers import MAPPING_ENABLED
from oncall.plans import Plan
from oncall.service import ROLES, S3Signal
from oncall.words import duration, tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncall.failover import Facts
    from oncall.failover_checks import Check
    from oncall.plans import Diagnosis
    from oncall.service import Capacity, Role, Service

_PLANNED = frozenset({"primary_sick", "game_day", "ready"})
_FULL = 100
_DRAIN_FACTOR = 10
"""Wait ten times the latest lag for what is under way (AWS Prescriptive Guidance, "Using Amazon
DynamoDB global tables", on evacuating a Region)."""
_SECONDS: Mapping[str, int] = {
    MAPPING_ENABLED: 30,
    "reserved-concurrency": 5,
    "provisioned-concurrency": 180,
    "ecs-desired-count": 180,
    "switchover": 120,
    "failover": 300,
    ROUTING_CONTROL: 60,
    RECORDS: 60,
    "verify": 120,
}
"""What a step usually takes: estimates for the prediction, to be set right by measured runs."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the order, with its undo, or why there is none.

    What is done already is no step: a plan made anew after a failure goes on where it ended.

    ``detail`` by ``verb``:

    - ``fence enable raise``: ``{"lever", "resource", "before", "after"}``; ``lever`` is one of
      ``levers.LEVERS`` or ``ecs-desired-count``
    - ``drain``: ``{"seconds"}`` to wait
    - ``promote``: ``{"operation", "parameters"}`` of an RDS call, ``SwitchoverGlobalCluster`` or
      ``FailoverGlobalCluster``, to be made in ``region``
    - ``shift``: ``{"lever", "percent", "share", "wait_seconds", …}``, where ``share`` is what each
      role is to get of 100, ``percent`` that of the Region it goes to (at the end of a failback its
      share at home, which may be less than 100), and further by lever: ``entries`` and
      ``entries_before`` (``UpdateRoutingControlStateEntries``); ``call`` and ``undo_call``, each
      ``{"service", "operation", "parameters"}``; ``change_batch`` (of ``ChangeResourceRecordSets``)
    - ``verify``: ``{}``; it changes nothing
    """

    id: str
    verb: str
    """``fence drain raise promote enable shift verify``"""
    region: str
    """Where its calls are made."""
    sentence: str
    by_hand: str
    seconds: int
    undo: str = ""
    no_undo_because: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


def plan(
    service: Service,
    diagnosis: Diagnosis,
    facts: Facts,
    limits: Mapping[str, float],
    rules: Mapping[str, float],
) -> Plan:
    """Plan a failover or a failback; whatever must not be done becomes a human's."""
    goal = facts.direction
    if diagnosis.cause == "already":
        return Plan("watch", goal, (), f"{diagnosis.sentence} Change nothing.")
    if diagnosis.cause not in _PLANNED:
        return Plan("human", goal, (), f"{diagnosis.sentence} I have switched nothing.")
    found = checks(service, facts, rules)
    stops = [check.sentence for check in found if check.verdict == NO]
    if diagnosis.cause == "game_day" and promotion(service, facts) == "failover":
        stops.append("A game day loses no data, and Aurora could only be failed over with loss.")
    if goal != FAILOVER and promotion(service, facts) == "failover":
        stops.append("Aurora cannot be switched over as planned, and a failback loses no data.")
    unread = [*_unread(service, facts), *_unseen_run(service, facts)]
    if goal != FAILOVER:
        stops += unread
    if stops:
        words = f"{diagnosis.sentence} {' '.join(stops)} I have switched nothing."
        return Plan("human", goal, (), words)
    action = _action(service, diagnosis, facts, found, rules)
    steps = _steps(service, facts, limits)
    loss = planned_loss(service, facts)
    takes = sum(step.seconds for step in steps) + service.ttl_seconds
    asks = tuple(check.sentence for check in found if check.verdict == ASK)
    bounds = (*asks, *unread, *_late(service, facts, takes))
    order = {
        "service": service.name,
        "direction": goal,
        "record": service.record,
        "record_type": service.record_type,
        "zone_id": service.zone_id,
        "from": service.regions[facts.leaves],
        "to": service.regions[facts.goes_to],
        "lever": _levers(service, facts)[0],
        "steps": [asdict(step) for step in steps],
        "checks": [asdict(check) for check in found],
        "loss_seconds": loss,
        "needs_yes": action != "failover_unattended",
        "approvers": list(service.approvers) if goal != FAILOVER else [],
    }
    return Plan(
        action,
        goal,
        (),
        _sentence(service, facts, steps, loss=loss, takes=takes, bounds=bounds),
        bounds,
        math.ceil(takes),
        order,
    )


def seen(service: Service, facts: Facts) -> dict[str, Any]:
    """Return the numbers that later looks compare with; part of the plan's document."""
    side = facts.side(facts.goes_to)
    return {
        "sick_since": facts.sick_since,
        "planned_at": facts.now,
        "error_share": side.error_share,
        "ttl_seconds": service.ttl_seconds,
        "rto_seconds": service.rto_seconds,
        "rpo_seconds": service.rpo_seconds,
    }


def _action(
    service: Service,
    diagnosis: Diagnosis,
    facts: Facts,
    found: Sequence[Check],
    rules: Mapping[str, float],
) -> str:
    if facts.direction != FAILOVER:
        return "failback"
    asks = [check for check in found if check.verdict == ASK]
    if promotion(service, facts) == "failover" or any(c.name.startswith("data:") for c in asks):
        return "failover_with_loss"
    declared = service.unattended and diagnosis.cause == "primary_sick" and not asks
    if declared and agree(facts.primary, rules) and not facts.not_the_deploy:
        return "failover_unattended"
    return "failover"


def _late(service: Service, facts: Facts, takes: float) -> tuple[str, ...]:
    if facts.direction != FAILOVER:
        return ()
    down = 0.0 if facts.sick_since is None else max(0.0, facts.now - facts.sick_since)
    if takes + down <= service.rto_seconds:
        return ()
    words = (
        f"With {duration(down)} of outage so far that is {duration(takes + down)}, past the "
        f"target of {duration(service.rto_seconds)}."
    )
    return (words,)


def _sentence(
    service: Service,
    facts: Facts,
    steps: Sequence[Step],
    *,
    loss: float | None,
    takes: float,
    bounds: Sequence[str],
) -> str:
    done = "Fail over" if facts.direction == FAILOVER else "Bring back"
    what = "; ".join(step.sentence for step in steps if step.verb != "verify")
    lost = "How much of the latest writes is lost is unknown"
    if loss is not None:
        lost = f"By estimate {loss:.0f} s of writes are missing afterwards" if loss else ""
    lost = f" {lost} (target {service.rpo_seconds} s)." if lost else ""
    held = f" {' '.join(bounds)}" if bounds else ""
    why = f" {choose(service, facts).sentence}" if facts.direction == FAILOVER else ""
    return (
        f"{done} {service.record} from {service.regions[facts.leaves]} to "
        f"{service.regions[facts.goes_to]}: {what}.{why}{lost} That takes about "
        f"{duration(takes)}.{held}"
    )


def _steps(service: Service, facts: Facts, limits: Mapping[str, float]) -> list[Step]:
    """Return what is not done yet, in order."""
    fences = _switches(service, facts, facts.leaves, enable=False)
    return [
        *fences,
        *_drain(service, facts, limits),
        *_raises(service, facts),
        *_promotions(service, facts),
        *_switches(service, facts, facts.goes_to, enable=True),
        *_shifts(service, facts),
        *_last(service, facts),
    ]


def _unread(service: Service, facts: Facts) -> list[str]:
    """Say which consumers could not be read and are therefore left as they are."""
    said = []
    for role, harm in ((facts.leaves, "may go on working there"), (facts.goes_to, "stay as is")):
        read = {one.resource for one in facts.side(role).consumers}
        missing = [arn for arn in service.consumers[role] if arn not in read]
        if missing:
            said.append(
                f"{len(missing)} of {len(service.consumers[role])} consumers in "
                f"{service.regions[role]} cannot be read: they {harm}."
            )
    return said


def _unseen_run(service: Service, facts: Facts) -> list[str]:
    if facts.other_run is not None:
        return []
    what = "failback" if facts.direction == FAILOVER else "failover"
    return [f"Whether a {what} runs in {service.regions[facts.leaves]} cannot be seen."]


def _switches(service: Service, facts: Facts, role: Role, *, enable: bool) -> list[Step]:
    region, steps = service.regions[role], []
    for number, arn in enumerate(service.consumers[role], 1):
        one = setting(facts.side(role).consumers, arn)
        if one is None or bool(one.value) is enable:
            continue
        verb = "enable" if enable else "fence"
        word = "start" if enable else "stop"
        sentence = f"{word} the consumer {arn.rsplit(':', 1)[-1]} in {region}"
        steps.append(
            _setting_step(
                f"{verb}-{number}",
                region,
                sentence,
                lever=MAPPING_ENABLED,
                resource=arn,
                before=not enable,
                after=enable,
            )
        )
    return steps


def _setting_step(
    id_: str,
    region: str,
    sentence: str,
    *,
    lever: str,
    resource: str,
    before: int | None,
    after: int,
) -> Step:
    """Return a step that changes a setting; its verb is what its id begins with."""
    return Step(
        id_,
        id_.partition("-")[0],
        region,
        sentence,
        by_hand=f"{_command(lever, resource, after)} --region {region}",
        seconds=_SECONDS[lever],
        undo=f"{_command(lever, resource, before)} --region {region}",
        detail={"lever": lever, "resource": resource, "before": before, "after": after},
    )


def _command(lever: str, resource: str, value: int | None) -> str:
    if lever != "ecs-desired-count":
        return SETTINGS[lever].command(resource, value)
    _, cluster, name = resource.rsplit(":", 1)[-1].split("/")
    return f"aws ecs update-service --cluster {cluster} --service {name} --desired-count {value}"


def _drain(service: Service, facts: Facts, limits: Mapping[str, float]) -> list[Step]:
    """Wait for what is being replicated, where the side that traffic leaves still does so."""
    late = [
        facts.store(store.name).lag_seconds
        for store in service.stores
        if store.kind == "dynamodb" and facts.store(store.name).source_available
    ]
    known = [lag for lag in late if lag is not None]
    if not known:
        return []
    seconds = min(math.ceil(_DRAIN_FACTOR * max(known)), int(limits["drain_seconds"]))
    words = f"wait {duration(seconds)} for replication"
    return [
        Step(
            "drain",
            "drain",
            service.regions[facts.goes_to],
            words,
            by_hand=f"sleep {seconds}",
            seconds=seconds,
            no_undo_because="It changes nothing. Writes that come by traffic go on until it moves.",
            detail={"seconds": seconds},
        )
    ]


def _raises(service: Service, facts: Facts) -> list[Step]:
    region, steps = service.regions[facts.goes_to], []
    for number, wanted in enumerate(service.capacity[facts.goes_to], 1):
        one = setting(facts.side(facts.goes_to).capacity, wanted.resource)
        now = none_is(wanted.kind, one.value) if one else None
        if one is None or now is None or now >= wanted.at_least:
            continue
        sentence = f"raise {_named(wanted)} from {now} to {wanted.at_least}"
        steps.append(
            _setting_step(
                f"raise-{number}",
                region,
                sentence,
                lever=wanted.kind,
                resource=wanted.resource,
                before=one.value,
                after=wanted.at_least,
            )
        )
    return steps


def _named(wanted: Capacity) -> str:
    where = wanted.resource.split(":function:")[-1].rsplit("/", 1)[-1]
    return f"{where}'s {wanted.kind.replace('-', ' ')}"


def _promotions(service: Service, facts: Facts) -> list[Step]:
    """Promote every global database that is not yet written where traffic goes, all in one way.

    ``FailoverGlobalCluster`` takes AllowDataLoss and never Switchover with it (RDS API Reference).
    """
    way, region, steps = promotion(service, facts), service.regions[facts.goes_to], []
    for store in service.stores:
        if store.kind != "aurora" or facts.store(store.name).writer == facts.goes_to:
            continue
        target, old = store.clusters[facts.goes_to], store.clusters[facts.leaves]
        parameters: dict[str, Any] = {
            "GlobalClusterIdentifier": store.name,
            "TargetDbClusterIdentifier": target,
        }
        words = (
            f"--global-cluster-identifier {store.name} --target-db-cluster-identifier {{}} "
            f"--region {region}"
        )
        if way == "switchover":
            operation, verb = "SwitchoverGlobalCluster", "aws rds switchover-global-cluster"
            by_hand, undo = f"{verb} {words.format(target)}", f"{verb} {words.format(old)}"
            sentence, why = f"switch {store.name} over to {region}, without loss", ""
        else:
            operation = "FailoverGlobalCluster"
            parameters["AllowDataLoss"] = True
            by_hand = f"aws rds failover-global-cluster {words.format(target)} --allow-data-loss"
            sentence = f"fail {store.name} over to {region} and accept the loss of latest writes"
            undo, why = "", "What was not replicated is lost; the way back is a failback."
        steps.append(
            Step(
                f"promote-{store.name}",
                "promote",
                region,
                sentence,
                by_hand,
                _SECONDS[way],
                undo,
                why,
                {"operation": operation, "parameters": parameters},
            )
        )
    return steps


def _levers(service: Service, facts: Facts) -> tuple[str, ...]:
    """Return the levers that are pulled, the first one first."""
    if facts.direction == FAILOVER:
        return (choose(service, facts).kind,)
    return away(service, facts)


def _shifts(service: Service, facts: Facts) -> list[Step]:
    """Move traffic; a failback ramps by weights wherever the service has weighted records.

    So that nothing jumps when another lever opens the primary again, weights first hold traffic
    where it is; then that lever is brought home; then weights move it step by step.
    """
    pulled = _levers(service, facts)
    others = [kind for kind in pulled if kind != RECORDS]
    records, sets = service.records, _sets(facts)
    weighted = records is not None and records.weighted and bool(sets)
    ramps = weighted and len(service.shift.percents) > 1
    back = facts.direction != FAILOVER
    steps: list[Step] = []
    if back and ramps and others and not _holds(service, facts):
        steps, sets = _weigh(service, facts, sets, 0, len(steps) + 1)
    if not (back and ramps) and others:
        for kind in others:
            steps.append(_pull(service, facts, kind, len(steps) + 1, _FULL))
    elif others:
        for kind in others:
            steps.append(_pull(service, facts, kind, len(steps) + 1, 0))
    if RECORDS in pulled or (back and ramps):
        takes_steps = ramps and (back or service.shift.on_failover)
        percents = service.shift.percents if takes_steps else (_FULL,)
        # An earlier run may have ended in the middle; nothing moves back to its first step.
        has = 0.0 if others else _FULL * (weighted_share(facts) or 0.0)
        for percent in percents:
            if has < percent or percent == _FULL:
                more, sets = _weigh(service, facts, sets, percent, len(steps) + 1)
                steps += more
    if back and weighted and steps:
        at_home = {**steps[-1].detail, "percent": _percent(sets, facts.goes_to)}
        steps[-1] = replace(steps[-1], detail=at_home)
    return steps


def _percent(sets: Mapping[Role, Mapping[str, Any]], role: Role) -> int:
    """Return the share of traffic that weights give a role, in percent."""
    total = sum(one["Weight"] for one in sets.values())
    return round(_FULL * sets[role]["Weight"] / total) if total else _FULL


def _sets(facts: Facts) -> Mapping[Role, Mapping[str, Any]]:
    seen = facts.lever(RECORDS)
    return seen.sets if seen is not None and seen.answered else {}


def _holds(service: Service, facts: Facts) -> bool:
    """Return whether weights alone keep all traffic where it is."""
    sets = _sets(facts)
    goes = sets[facts.goes_to].get("Weight", 0)
    return service.records is not None and goes == 0 and sets[facts.leaves].get("Weight", 0) > 0


def _share(facts: Facts, percent: int) -> dict[Role, int]:
    return {facts.goes_to: percent, facts.leaves: _FULL - percent}


def _pull(service: Service, facts: Facts, kind: str, number: int, percent: int) -> Step:
    """Pull a lever that is on or off; ``percent``: what of traffic moves by that."""
    to, left = service.regions[facts.goes_to], service.regions[facts.leaves]
    detail: dict[str, Any] = {
        "lever": kind,
        "percent": percent,
        "share": _share(facts, percent),
        "wait_seconds": 0,
    }
    back = facts.direction != FAILOVER
    region, seconds = to, _SECONDS[ROUTING_CONTROL]
    sentence = f"send all traffic to {to} by {kind.replace('_', ' ')}"
    if percent != _FULL:
        sentence = f"open {to} by {kind.replace('_', ' ')}, while weights keep traffic in {left}"
    if kind == ROUTING_CONTROL:
        by_hand, undo, more = _control(service, facts)
        seen = facts.lever(kind)
        region = seen.endpoint if seen and seen.endpoint else to
    else:
        by_hand, undo, more = _signal(service, back=back)
        region = service.regions["standby"]
        seconds = service.health_check.seconds if service.health_check else seconds
    return Step(
        f"shift-{number}",
        "shift",
        region,
        sentence,
        by_hand,
        seconds,
        undo,
        detail={**detail, **more},
    )


def _control(service: Service, facts: Facts) -> tuple[str, str, dict[str, Any]]:
    """Return command, undo and detail of both routing controls, which change in one call.

    At home both are on where the file has records, whose policy decides then; else the primary's
    alone.
    """
    lever, seen = service.routing_control, facts.lever(ROUTING_CONTROL)
    if lever is None or seen is None:
        raise AssertionError("a routing control that is not in the file was chosen")
    both = facts.direction != FAILOVER and service.records is not None
    after = {facts.goes_to: True, facts.leaves: both}
    before = {role: seen.open.get(role, role == facts.leaves) for role in ROLES}
    endpoint = lever.endpoints.get(seen.endpoint) or next(iter(lever.endpoints.values()))
    place = seen.endpoint or next(iter(lever.endpoints))

    def entries(states: Mapping[Role, bool]) -> list[dict[str, str]]:
        return [
            {
                "RoutingControlArn": lever.controls[role],
                "RoutingControlState": "On" if states[role] else "Off",
            }
            for role in (facts.goes_to, facts.leaves)
        ]

    def command(states: Mapping[Role, bool]) -> str:
        text = shlex.quote(json.dumps(entries(states)))
        return (
            f"aws route53-recovery-cluster update-routing-control-states "
            f"--update-routing-control-state-entries {text} --region {place} "
            f"--endpoint-url {endpoint}"
        )

    more = {"entries": entries(after), "entries_before": entries(before)}
    return command(after), command(before), more


def _signal(service: Service, *, back: bool) -> tuple[str, str, dict[str, Any]]:
    """Return command, undo and detail of changing what the health check watches."""
    lever = service.health_check
    if lever is None:
        raise AssertionError("a health check that is not in the file was chosen")
    region, signal = service.regions["standby"], lever.signal
    calls: list[dict[str, Any]] = []
    commands: list[str] = []
    for is_away in (not back, back):
        if isinstance(signal, S3Signal):
            puts = is_away == (signal.away_when == "present")
            operation = "PutObject" if puts else "DeleteObject"
            parameters: dict[str, Any] = {"Bucket": signal.bucket, "Key": signal.key}
            calls.append({"service": "s3", "operation": operation, "parameters": parameters})
            verb = "put-object" if puts else "delete-object"
            where = f"--bucket {signal.bucket} --key {shlex.quote(signal.key)}"
            commands.append(f"aws s3api {verb} {where} --region {region}")
        else:
            value = signal.away_value if is_away else signal.home_value
            parameters = {
                "Namespace": signal.namespace,
                "MetricData": [{"MetricName": signal.metric, "Value": value}],
            }
            calls.append(
                {"service": "cloudwatch", "operation": "PutMetricData", "parameters": parameters}
            )
            where = f"--namespace {shlex.quote(signal.namespace)} --value {tell(value)}"
            name = shlex.quote(signal.metric)
            commands.append(
                f"aws cloudwatch put-metric-data --metric-name {name} {where} --region {region}"
            )
    return commands[0], commands[1], {"call": calls[0], "undo_call": calls[1]}


def _weigh(
    service: Service,
    facts: Facts,
    sets: Mapping[Role, Mapping[str, Any]],
    percent: int,
    number: int,
) -> tuple[list[Step], Mapping[Role, Mapping[str, Any]]]:
    """Return the step that gives the other Region ``percent`` of traffic, and the sets after it."""
    after = {role: _moved(service, facts, sets[role], role, percent) for role in ROLES}
    if after == {role: dict(sets[role]) for role in ROLES}:
        return [], sets
    batch, undo = change_batch(sets, after), change_batch(after, sets)
    to = service.regions[facts.goes_to]
    what = f"send {percent}% of traffic to {to}" if percent else f"hold traffic out of {to}"
    if percent == _FULL and after[facts.leaves].get("Weight"):
        share = _percent(after, facts.goes_to)
        what = f"send {share}% of traffic to {to}, which is its share at home,"
    waits = service.shift.wait_seconds if 0 < percent < _FULL else 0
    return [
        Step(
            f"shift-{number}",
            "shift",
            "us-east-1",
            f"{what} by changing the records",
            by_hand=_batch_command(service, batch),
            seconds=_SECONDS[RECORDS] + waits,
            undo=_batch_command(service, undo),
            detail={
                "lever": RECORDS,
                "percent": percent,
                "share": _share(facts, percent),
                "wait_seconds": waits,
                "change_batch": batch,
            },
        )
    ], after


def _moved(
    service: Service, facts: Facts, one: Mapping[str, Any], role: Role, percent: int
) -> dict[str, Any]:
    """Return one record set as it is with ``percent`` of traffic moved."""
    records = service.records
    if records is None:
        raise AssertionError("records that are not in the file were chosen")
    if not records.weighted:
        return {**one, "Failover": "PRIMARY" if role == facts.goes_to else "SECONDARY"}
    weight = _share(facts, percent)[role]
    if percent == _FULL and facts.direction != FAILOVER:
        weight = records.weights[role]
    return {**one, "Weight": weight}


def change_batch(
    before: Mapping[Role, Mapping[str, Any]], after: Mapping[Role, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a ChangeBatch that turns ``before`` into ``after``, or fails as a whole.

    A DELETE has to name every value of the set as it is, and a batch is made in full or not at
    all (Route 53 API Reference, ``ChangeResourceRecordSets``): so it is compare-and-set, and a set
    that somebody has changed since is not overwritten.
    """
    return {
        "Changes": [
            *({"Action": "DELETE", "ResourceRecordSet": dict(before[role])} for role in ROLES),
            *({"Action": "CREATE", "ResourceRecordSet": dict(after[role])} for role in ROLES),
        ]
    }


def _batch_command(service: Service, batch: Mapping[str, Any]) -> str:
    return (
        f"aws route53 change-resource-record-sets --hosted-zone-id {service.zone_id} "
        f"--change-batch {shlex.quote(json.dumps(batch))}"
    )


def _last(service: Service, facts: Facts) -> list[Step]:
    region, probe = service.regions[facts.goes_to], service.probes["public"]
    return [
        Step(
            "verify",
            "verify",
            region,
            f"see that {service.record} answers from {region}",
            by_hand=f"dig +short {service.record} {service.record_type}; curl -i {probe.url}",
            seconds=_SECONDS["verify"],
            no_undo_because="It changes nothing.",
        )
    ]
