"""Whether the Region that traffic goes to is ready, what would be lost, and which lever: pure.

Words, units and ``rules`` are those of ``failover``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncall.failover import (
    FAILBACK,
    FAILOVER,
    HEALTH_CHECK,
    LEVERS,
    RECORDS,
    ROUTING_CONTROL,
    WELL,
    health,
    lags,
    on_the_way,
)
from oncall.service import AlarmSignal
from oncall.words import UNKNOWN, duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.failover import Facts, Setting
    from oncall.service import Service, Store

OK, ASK, NO = "ok", "ask", "no"
_LONG_TTL = 300


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to be right before traffic moves."""

    name: str
    """``standby capacity data levers safety_rule ttl``, two words joined by ``:`` where there are
    several: ``capacity:<ARN>``, ``data:<store>``."""
    verdict: str
    """``ok``; ``ask``: only if a person agrees; ``no``: never."""
    number: float | None
    """What was compared: seconds, a capacity, a share; ``None`` where there is none."""
    sentence: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The lever to pull, and why not those before it."""

    kind: str
    """One of ``failover.LEVERS``; empty when none can be pulled."""
    depends_on: str
    """What has to work for it, and in which Region."""
    sentence: str


def data_loss_seconds(facts: Facts, store: Store) -> float | None:
    """Estimate how many seconds of writes traffic would leave behind; ``None`` if unknown.

    What was written up to ``lag_at - lag`` has arrived. From then on to the last known write (to
    now, where none is known) it is missing. Upper bound by what is known, no measurement: no
    metric proves that replication is complete (AWS Prescriptive Guidance, "Using Amazon DynamoDB
    global tables"). 0 where traffic goes to Aurora's writer.
    """
    seen = facts.store(store.name)
    if store.kind == "aurora" and seen.writer == facts.goes_to:
        return 0.0
    if seen.lag_seconds is None:
        return None
    measured = facts.now if seen.lag_at is None else seen.lag_at
    last = facts.now if seen.last_write_at is None else min(facts.now, seen.last_write_at)
    return max(0.0, last - (measured - seen.lag_seconds))


def planned_loss(service: Service, facts: Facts) -> float | None:
    """Return the worst estimate of all stores, as it is planned to treat them; ``None``: unknown.

    A planned switchover loses nothing.
    """
    worst = 0.0
    for store in service.stores:
        if store.kind == "aurora" and promotion(service, facts) == "switchover":
            continue
        loss = data_loss_seconds(facts, store)
        if loss is None:
            return None
        worst = max(worst, loss)
    return worst


def promotion(service: Service, facts: Facts) -> str:
    """Return how Aurora is promoted: ``""`` not at all, ``switchover`` or ``failover``.

    One way for all of a service's global databases: if one cannot be switched over (its primary
    does not take part, or lags too much), the Region is lost to all of them.
    """
    late = lags(service, facts)
    waiting = [
        store
        for store in service.stores
        if store.kind == "aurora" and facts.store(store.name).writer != facts.goes_to
    ]
    if not waiting:
        return ""
    planned = all(facts.store(s.name).source_available and not late[s.name] for s in waiting)
    return "switchover" if planned else "failover"


def checks(service: Service, facts: Facts, rules: Mapping[str, float]) -> tuple[Check, ...]:
    """Return every pre-check of the Region that traffic goes to, in the order that people read."""
    chosen = choose(service, facts)
    return (
        _health_check(service, facts, rules),
        *_capacity_checks(service, facts),
        *(_data_check(service, facts, store) for store in service.stores),
        _lever_check(service, facts, chosen),
        *_safety_checks(facts, chosen),
        _ttl_check(service),
    )


def _health_check(service: Service, facts: Facts, rules: Mapping[str, float]) -> Check:
    region, side = service.regions[facts.goes_to], facts.side(facts.goes_to)
    word = health(side, rules)
    sentence = f"{service.name} is {word} in {region}, seen from outside."
    return Check("standby", OK if word == WELL else NO, side.error_share, sentence)


def _capacity_checks(service: Service, facts: Facts) -> list[Check]:
    found = []
    for wanted in service.capacity[facts.goes_to]:
        seen = setting(facts.side(facts.goes_to).capacity, wanted.resource)
        name, need = f"capacity:{wanted.resource}", wanted.at_least
        what = f"{wanted.kind.replace('-', ' ')} of {_short(wanted.resource)}"
        if seen is None:
            words = f"The {what} cannot be read; {need} are needed."
            found.append(Check(name, ASK, None, words))
            continue
        now = none_is(wanted.kind, seen.value)
        if now is None or now >= need:
            had = "bound by no reservation" if now is None else f"{now}"
            found.append(Check(name, OK, now, f"The {what} is {had}; {need} are needed."))
        elif seen.room is None:
            words = f"The {what} is {now} and goes to {need}, if quotas allow: they are unknown."
            found.append(Check(name, ASK, now, words))
        elif seen.room < need:
            words = f"The {what} is {now}, {need} are needed, and quotas allow {seen.room}."
            found.append(Check(name, NO, seen.room, words))
        else:
            found.append(Check(name, OK, now, f"The {what} is {now} and goes to {need}."))
    return found


def setting(seen: object, resource: str) -> Setting | None:
    """Return the setting of a resource; ``None`` where it could not be read."""
    settings: tuple[Setting, ...] = tuple(seen) if isinstance(seen, tuple | list) else ()
    return next((one for one in settings if one.resource == resource), None)


def none_is(kind: str, value: int | None) -> int | None:
    """Return a capacity; no reservation shares the pool (``None``), nothing provisioned is 0."""
    if value is None:
        return None if kind == "reserved-concurrency" else 0
    return int(value)


def _short(arn: str) -> str:
    return arn.split(":", 6)[-1] if ":function:" in arn else arn.rsplit(":", 1)[-1]


def _data_check(service: Service, facts: Facts, store: Store) -> Check:
    name, seen = f"data:{store.name}", facts.store(store.name)
    late = lags(service, facts)[store.name]
    if store.kind == "aurora" and seen.writer == facts.goes_to:
        region = service.regions[facts.goes_to]
        return Check(name, OK, 0.0, f"{store.name} is written in {region} already.")
    loss = data_loss_seconds(facts, store)
    lost = UNKNOWN if loss is None else f"{loss:.0f} s"
    if facts.direction == FAILBACK:
        if late:
            return Check(name, NO, seen.lag_seconds, late)
        if store.kind == "aurora" and not seen.source_available:
            words = f"{store.name} cannot be switched over as it is."
            return Check(name, NO, seen.lag_seconds, words)
        return Check(name, OK, seen.lag_seconds, f"{store.name} is in step.")
    if seen.status not in {"ACTIVE", UNKNOWN}:
        return Check(name, NO, None, f"{store.name}'s copy is {seen.status} and cannot be used.")
    if store.kind == "aurora" and promotion(service, facts) == "switchover":
        words = f"{store.name} is in step ({seen.lag_seconds:.0f} s): a switchover loses nothing."
        return Check(name, OK, 0.0, words)
    if store.kind == "aurora":
        words = (
            f"{store.name} has to be failed over with data loss, by estimate {lost} of writes."
            f"{f' {late}' if late else ''}"
        )
        return Check(name, ASK, loss, words)
    fine = loss is not None and loss <= store.max_loss_seconds and seen.status == "ACTIVE"
    words = (
        f"{store.name}: by estimate {lost} of writes are not there yet ({store.max_loss_seconds} s "
        f"are allowed); they arrive when the other Region is back, and the last writer wins."
    )
    return Check(name, OK if fine else ASK, loss, words)


def choose(service: Service, facts: Facts) -> Choice:
    """Return the first lever, by preference, that answers and would not leave both Regions off."""
    passed: list[str] = []
    for kind in LEVERS:
        if getattr(service, kind) is None:
            continue
        reason = _why_not(facts, kind)
        if not reason:
            depends = _depends_on(service, facts, kind)
            first = f"{' '.join(passed)} " if passed else ""
            words = f"{first}I use {_NAMES[kind]}; that depends on {depends}."
            return Choice(kind, depends, words)
        passed.append(reason)
    return Choice("", "", " ".join(passed))


_NAMES: Mapping[str, str] = {
    ROUTING_CONTROL: "the routing controls",
    HEALTH_CHECK: "the health check",
    RECORDS: "the records",
}


def _why_not(facts: Facts, kind: str) -> str:
    seen, name = facts.lever(kind), _NAMES[kind].capitalize()
    if seen is None or not seen.answered:
        return f"{name} cannot be reached."
    if seen.differs:
        return f"{name} are not as the file says: {seen.differs}."
    if kind == RECORDS and set(seen.sets) != {"primary", "standby"}:
        return f"{name} could not be read in full."
    if kind == HEALTH_CHECK and not seen.holds:
        return f"{name} is not set to LastKnownStatus: it would forget the switch."
    controls = facts.lever(ROUTING_CONTROL)
    if kind != ROUTING_CONTROL and facts.direction == FAILOVER and controls and controls.answered:
        there = facts.goes_to
        if not controls.open.get(there, True):
            return f"{name} would leave both Regions off: a routing control keeps {there} off."
    return ""


def _depends_on(service: Service, facts: Facts, kind: str) -> str:
    seen = facts.lever(kind)
    if kind == ROUTING_CONTROL:
        where = seen.endpoint if seen and seen.endpoint else "any of five Regions"
        return f"ARC's data plane, by the cluster endpoint in {where}"
    if kind == HEALTH_CHECK and service.health_check is not None:
        what = "CloudWatch" if isinstance(service.health_check.signal, AlarmSignal) else "S3"
        return (
            f"{what} in {service.regions['standby']} and Route 53's health checking, a data plane"
        )
    return "Route 53's control plane, which is in us-east-1"


def _lever_check(service: Service, facts: Facts, chosen: Choice) -> Check:
    if facts.direction == FAILBACK:
        return _levers_home(service, facts)
    if not chosen.kind:
        return Check("levers", NO, None, chosen.sentence or "There is no lever.")
    controls = facts.lever(ROUTING_CONTROL)
    unseen = service.routing_control is not None and (controls is None or not controls.answered)
    if chosen.kind != ROUTING_CONTROL and unseen:
        words = (
            f"{chosen.sentence} Whether the routing controls let traffic into "
            f"{service.regions[facts.goes_to]} cannot be seen; if they do not, both would be off."
        )
        return Check("levers", ASK, None, words)
    if chosen.kind == RECORDS and service.regions[facts.leaves] == "us-east-1":
        words = f"{chosen.sentence} That is the Region that traffic leaves."
        return Check("levers", OK, None, words)
    return Check("levers", OK, None, chosen.sentence)


def _levers_home(service: Service, facts: Facts) -> Check:
    """Check that every lever of the file can be seen: one that was missed keeps traffic away."""
    for kind in LEVERS:
        reason = _why_not(facts, kind) if getattr(service, kind) is not None else ""
        if reason:
            return Check("levers", NO, None, f"{reason} All have to be home; I wait for it.")
    pulled = " and ".join(_NAMES[kind] for kind in away(service, facts))
    if not pulled:
        return Check("levers", NO, None, "No lever of the file keeps traffic away.")
    return Check("levers", OK, None, f"Traffic was sent away by {pulled}.")


def away(service: Service, facts: Facts) -> tuple[str, ...]:
    """Return the levers that keep traffic, or some of it, out of the primary Region."""
    seen = [facts.lever(kind) for kind in LEVERS if getattr(service, kind) is not None]
    return tuple(
        one.kind
        for one in seen
        if one
        and (
            not one.open.get("primary", True)
            or (one.kind == RECORDS and on_the_way(service, facts))
        )
    )


def _safety_checks(facts: Facts, chosen: Choice) -> list[Check]:
    seen = facts.lever(ROUTING_CONTROL)
    if chosen.kind != ROUTING_CONTROL or seen is None:
        return []
    if seen.safe:
        return [Check("safety_rule", OK, None, "A safety rule keeps one routing control on.")]
    word = "Whether a safety rule keeps one routing control on is unknown."
    if seen.safe is False:
        word = "No safety rule keeps one routing control on."
    return [Check("safety_rule", OK, None, f"{word} I set both in one call.")]


def _ttl_check(service: Service) -> Check:
    ttl = service.ttl_seconds
    words = f"Resolvers keep an answer for {duration(ttl)}."
    if ttl > _LONG_TTL:
        words += " Clients move that late: lower it on a calm day."
    return Check("ttl", OK, ttl, words)
