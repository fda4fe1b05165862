"""How a service does in its two Regions, and whether it may be failed over or back: pure.

Nothing here has a client or a clock. Moments are seconds since 1970, times are seconds, shares run
from 0 to 1. ``primary`` and ``standby`` are the service file's roles; traffic *leaves* one role
(``Facts.leaves``) and *goes to* the other (``Facts.goes_to``), by ``Facts.direction``.

``rules`` (the contract's ``verification``) are read for

- ``signals``: independent signals that have to call a Region sick, e.g. 2
- ``checkers_share``: at most this share of Route 53's checkers healthy is sick; 0.18 is what
  Route 53 itself goes by (Developer Guide, "How Route 53 determines whether a health check is
  healthy")
- ``probes_share``: at least this share of probes failing is sick, e.g. 0.5
- ``probe_places``: so many Regions have to probe before probes say anything, e.g. 2
- ``error_share``: at least this share of requests failing is sick, e.g. 0.2
- ``deploy_seconds``: a deployment younger than this may be the cause, e.g. 3600
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oncall.plans import NO_CAUSE, diagnosed
from oncall.words import UNKNOWN, duration, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncall.plans import Cause, Diagnosis
    from oncall.service import Role, Service

FAILOVER, FAILBACK = "failover", "failback"
DIRECTIONS: Mapping[str, str] = {"route53-failover": FAILOVER, "route53-failback": FAILBACK}
"""By the runbook's id."""
ROUTING_CONTROL, HEALTH_CHECK, RECORDS = "routing_control", "health_check", "records"
LEVERS = (ROUTING_CONTROL, HEALTH_CHECK, RECORDS)
"""In order of preference."""
WELL, SICK = "well", "sick"


@dataclass(frozen=True, slots=True)
class Setting:
    """A number or switch as it was read; one that could not be read is left out of its list."""

    resource: str
    value: int | None
    """Whether a mapping is enabled, or how much capacity there is; ``None``: not set."""
    room: int | None = None
    """How high quotas and the account's pool let a capacity go; ``None`` if unknown."""


@dataclass(frozen=True, slots=True)
class Side:
    """One Region of the service, as seen from outside it wherever that is possible."""

    checkers: Mapping[str, bool] = field(default_factory=dict)
    """Healthy by Route 53 checker Region (``GetHealthCheckStatus``); a Region whose checkers
    disagree is healthy if most of them say so. Empty: no health check, or Route 53 is silent."""
    probes: Mapping[str, bool] = field(default_factory=dict)
    """Whether the Region's own URL answers as it should, by the Region that the probe runs in."""
    error_share: float | None = None
    """Of requests, from the Region's own metrics; ``None`` without datapoints."""
    traffic_share: float | None = None
    """Of the service's requests of both Regions."""
    deployed_at: float | None = None
    """The latest deployment there; ``None`` if there is none or it cannot be read."""
    answered: Mapping[str, bool] = field(default_factory=dict)
    """Which of the Region's APIs answered, e.g. ``{"lambda": true, "rds": false}``."""
    consumers: Sequence[Setting] = ()
    capacity: Sequence[Setting] = ()
    well_since: float | None = None
    """Since when its health checks have been healthy without a break, as far as was looked back;
    ``None`` if they are not or that is unknown."""


@dataclass(frozen=True, slots=True)
class StoreSeen:
    """A data store as seen, in the order of traffic: from the role it leaves to the other."""

    name: str
    status: str = UNKNOWN
    """``ACTIVE`` where the copy that traffic goes to can be used: of a table its ``ReplicaStatus``
    (DynamoDB ``DescribeTable``), of a global database ``ACTIVE`` for a cluster that is
    ``available`` and connected."""
    lag_seconds: float | None = None
    """Latest ReplicationLatency or AuroraGlobalDBReplicationLag, the worst of the latest minutes;
    both are published in milliseconds."""
    lag_at: float | None = None
    """When that lag was measured: in an outage it may be old."""
    last_write_at: float | None = None
    """The last write known of on the side that traffic leaves; ``None`` if unknown."""
    writer: Role | None = None
    """Which of Aurora's clusters writes; ``None`` for a table, or unknown."""
    source_available: bool = False
    """Whether the side that traffic leaves answers for this store and can take part."""


@dataclass(frozen=True, slots=True)
class LeverSeen:
    """One lever of the file, as it stands."""

    kind: str
    """``routing_control health_check records``"""
    answered: bool
    """Whether what the lever needs answers from here."""
    open: Mapping[Role, bool] = field(default_factory=dict)
    """Whether it lets traffic into the Region: a control On, a weight above 0, an answering
    failover record, a signal that does not send traffic away. ``health_check`` opens the standby
    whenever it closes the primary."""
    differs: str = ""
    """In what it is not as the file says, as a clause: ``there are three records``."""
    sets: Mapping[Role, Mapping[str, Any]] = field(default_factory=dict)
    """Of ``records``: both ResourceRecordSets as Route 53 returned them, all members."""
    endpoint: str = ""
    """Of ``routing_control``: the Region whose cluster endpoint answered."""
    holds: bool = True
    """Of ``health_check`` with an alarm: whether it is set to ``LastKnownStatus``."""
    safe: bool | None = None
    """Of ``routing_control``: whether a safety rule keeps one control On; ``None`` if unknown."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What ``inspect_failover`` has read."""

    now: float
    direction: str
    """``failover failback``"""
    runs_in: str
    """The Region that this runbook runs in."""
    primary: Side
    standby: Side
    levers: Sequence[LeverSeen] = ()
    """One for each of the file's, and no other."""
    stores: Sequence[StoreSeen] = ()
    """One for each of the file's, by name."""
    sick_since: float | None = None
    """When the outage began: of the alarm, or the first failed probe."""
    other_run: str | None = ""
    """ARN of a run in the other direction, in the other Region; ``None`` where that is unknown."""
    not_the_deploy: bool = False
    """Whether a person has said that the latest deployment is not the cause."""

    @property
    def leaves(self) -> Role:
        """The role whose Region traffic leaves."""
        return "primary" if self.direction == FAILOVER else "standby"

    @property
    def goes_to(self) -> Role:
        """The role whose Region traffic goes to."""
        return "standby" if self.direction == FAILOVER else "primary"

    def side(self, role: Role) -> Side:
        """Return what is known of a role's Region."""
        return self.primary if role == "primary" else self.standby

    def lever(self, kind: str) -> LeverSeen | None:
        """Return the lever of a kind, ``None`` where it was not looked at."""
        return next((one for one in self.levers if one.kind == kind), None)

    def store(self, name: str) -> StoreSeen:
        """Return what is known of a store; of one that was not looked at, nothing."""
        return next((one for one in self.stores if one.name == name), StoreSeen(name))


def facts_from(data: Mapping[str, Any]) -> Facts:
    """Read facts back from a state machine's JSON (``dataclasses.asdict``)."""
    values = dict(data)
    for role in ("primary", "standby"):
        side = dict(values[role])
        side["consumers"] = tuple(Setting(**one) for one in side["consumers"])
        side["capacity"] = tuple(Setting(**one) for one in side["capacity"])
        values[role] = Side(**side)
    values["levers"] = tuple(LeverSeen(**one) for one in values["levers"])
    values["stores"] = tuple(StoreSeen(**one) for one in values["stores"])
    return Facts(**values)


def signals(side: Side, rules: Mapping[str, float]) -> dict[str, str]:
    """Return what each independent signal says of a Region, ``well`` or ``sick``.

    Keys: ``checkers``, ``probes`` (both from outside), ``errors`` (the Region's own metrics) and
    ``apis`` (sick where none of the Region's that was asked answers; that they do says nothing).
    One that says nothing is left out: silence is never taken for health. In an outage of Route 53's
    control plane nobody tells what its checkers see, and probes and APIs are what is left.
    """
    said = {}
    if side.checkers:
        healthy = sum(side.checkers.values()) / len(side.checkers)
        said["checkers"] = SICK if healthy <= rules["checkers_share"] else WELL
    if len(side.probes) >= rules["probe_places"]:
        failing = 1 - sum(side.probes.values()) / len(side.probes)
        said["probes"] = SICK if failing >= rules["probes_share"] else WELL
    if side.error_share is not None:
        said["errors"] = SICK if side.error_share >= rules["error_share"] else WELL
    if side.answered and not any(side.answered.values()):
        said["apis"] = SICK
    return said


def health(side: Side, rules: Mapping[str, float]) -> str:
    """Return ``sick``, ``well`` or ``undecided``.

    Sick takes ``signals`` of them and no view from outside against it; a Region that clients
    cannot reach may find itself well. Well takes a view from outside and nothing against it.
    """
    said = signals(side, rules)
    sick = sum(word == SICK for word in said.values())
    outside = {said[name] for name in ("checkers", "probes") if name in said}
    if sick >= rules["signals"] and WELL not in outside:
        return SICK
    return WELL if WELL in outside and not sick else "undecided"


def agree(side: Side, rules: Mapping[str, float]) -> bool:
    """Return whether enough signals call a Region sick and none calls it well."""
    words = list(signals(side, rules).values())
    return WELL not in words and len(words) >= rules["signals"]


def evidence(service: Service, facts: Facts) -> tuple[str, ...]:
    """Return the numbers that a human would ask for; what is missing is said to be."""
    lines = [_side_words(service, facts, role) for role in (facts.leaves, facts.goes_to)]
    for role in (facts.leaves, facts.goes_to):
        side, region = facts.side(role), service.regions[role]
        silent = [api for api, answered in sorted(side.answered.items()) if not answered]
        deployed = UNKNOWN
        if side.deployed_at is not None:
            deployed = f"{duration(facts.now - side.deployed_at)} ago"
        lines.append(
            f"{region}: APIs that do not answer: {', '.join(silent) or 'none of those asked'}; "
            f"last deployment {deployed}"
        )
    for store in service.stores:
        seen = facts.store(store.name)
        lag = UNKNOWN
        if seen.lag_seconds is not None:
            lag = f"{seen.lag_seconds:.1f} s"
            if seen.lag_at is not None:
                lag += f" when last measured, {duration(max(0, facts.now - seen.lag_at))} ago"
        writer = f", written in {service.regions[seen.writer]}" if seen.writer else ""
        lines.append(f"{store.name} ({store.kind}): {seen.status}, lag {lag}{writer}")
    lines += [_lever_words(service, one) for one in facts.levers]
    return tuple(lines)


def _side_words(service: Service, facts: Facts, role: Role) -> str:
    side = facts.side(role)
    checkers = f"{sum(side.checkers.values())} of {len(side.checkers)}" if side.checkers else "none"
    failed = [place for place, answers in sorted(side.probes.items()) if not answers]
    probes = f"{len(failed)} of {len(side.probes)}" if side.probes else "none"
    return (
        f"{service.regions[role]} ({role}): {checkers} checker Regions find it healthy, {probes} "
        f"probes fail, {percent(side.error_share)} of requests fail, traffic "
        f"{percent(side.traffic_share)}"
    )


def _lever_words(service: Service, lever: LeverSeen) -> str:
    if not lever.answered:
        return f"{_lever_name(lever)}: does not answer"
    ways = ", ".join(
        f"{service.regions[role]} {'on' if is_open else 'off'}"
        for role, is_open in lever.open.items()
    )
    return f"{_lever_name(lever)}: {ways or UNKNOWN}"


def _lever_name(lever: LeverSeen) -> str:
    return lever.kind.replace("_", " ")


def diagnose(service: Service, facts: Facts, rules: Mapping[str, float]) -> Diagnosis:
    """Name what forbids to fail over (or back), or that nothing does.

    Causes that a plan is made for: ``primary_sick``, ``game_day``; of a failback ``ready``. All
    others are refusals: ``wrong_region other_run already lever_differs no_lever both_sick
    standby_sick standby_undecided primary_well undecided deploy``; of a failback ``wrong_region
    other_run already lever_differs no_lever primary_sick undecided serving_sick deploy data_behind
    soaking``.
    """
    lines = evidence(service, facts)
    place = (
        _region_cause(service, facts),
        _other_run_cause(service, facts),
        _lever_cause(service, facts),
    )
    if facts.direction == FAILBACK:
        ready = f"{service.name} can go back to {service.regions['primary']}."
        return diagnosed(lines, (*place, _failback_cause(service, facts, rules)), ("ready", ready))
    sick = (
        f"{service.name} is sick in {service.regions['primary']} by "
        f"{_said(facts.primary, rules, SICK)}, and well in {service.regions['standby']}."
    )
    causes = (*place, _failover_cause(service, facts, rules))
    return diagnosed(lines, causes, ("primary_sick", sick))


def _said(side: Side, rules: Mapping[str, float], word: str) -> str:
    names = [name for name, said in signals(side, rules).items() if said == word]
    return " and ".join(names) or "nothing"


def _region_cause(service: Service, facts: Facts) -> Cause:
    """Find whether this run is where traffic goes to: anywhere else it may die half-way."""
    there = service.regions[facts.goes_to]
    if facts.runs_in == there:
        return NO_CAUSE
    left = service.regions[facts.leaves]
    why = "the Region that traffic leaves" if facts.runs_in == left else "neither of its Regions"
    return (
        "wrong_region",
        (
            f"I run in {facts.runs_in}, {why}. Start the stack's runbook in {there}: `aws "
            f"stepfunctions start-execution --region {there} --state-machine-arn ARN --input "
            f'\'{{"name": "{service.record}"}}\'`.'
        ),
    )


def _other_run_cause(service: Service, facts: Facts) -> Cause:
    """Find whether the other Region's stack moves the same traffic the other way."""
    if not facts.other_run:
        return NO_CAUSE
    what = "failback" if facts.direction == FAILOVER else "failover"
    return (
        "other_run",
        (
            f"A {what} of {service.name} runs in {service.regions[facts.leaves]} and would undo "
            f"this: {facts.other_run}. Let it end or abort it, then start again."
        ),
    )


def _lever_cause(service: Service, facts: Facts) -> Cause:
    """Find whether the levers are as the file says, and where they point to."""
    seen = [one for one in facts.levers if one.answered]
    odd = next((one for one in seen if one.differs), None)
    if odd is not None:
        return (
            "lever_differs",
            f"{service.name}'s lever ({_lever_name(odd)}) is not as its file says: {odd.differs}.",
        )
    if not seen:
        return (
            "no_lever",
            f"None of {service.name}'s levers answers: nothing here can move its traffic.",
        )
    closed = next((one for one in seen if not any(one.open.values())), None)
    if closed is not None:
        return (
            "lever_differs",
            (
                f"{service.name}'s lever ({_lever_name(closed)}) is off for both Regions, and "
                f"Route 53 answers with either then. Turn the one that works on by hand."
            ),
        )
    here = points_to(facts)
    if here == facts.goes_to and not on_the_way(service, facts):
        done = "failed over" if facts.direction == FAILOVER else "back"
        return "already", f"{service.name} is {done} already, in {service.regions[here]}."
    return NO_CAUSE


def points_to(facts: Facts) -> Role | None:
    """Return where the levers that answered send traffic; ``None`` if they do not tell.

    Routing controls and the health check make a record unhealthy, which outweighs weights: once
    every record of a weight above 0 is unhealthy, Route 53 answers with those of weight 0, and a
    record without a health check is always healthy (Developer Guide, "How Amazon Route 53 chooses
    records when health checking is configured":
    https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/health-checks-how-route-53-chooses-records.html).
    So the first lever, by preference, that closes one of the Regions decides.
    """
    for kind in LEVERS:
        lever = facts.lever(kind)
        if lever is None or not lever.answered:
            continue
        if not lever.open.get("primary", True):
            return "standby"
        if not lever.open.get("standby", True):
            return "primary"
    return "primary" if any(one.answered and one.open for one in facts.levers) else None


def on_the_way(service: Service, facts: Facts) -> bool:
    """Return whether a failback's weights have begun to let traffic home, and not all of it.

    A run that ended in the middle of its ramp leaves them so; the next one goes on from there.
    """
    if facts.direction == FAILOVER or service.records is None:
        return False
    share = weighted_share(facts)
    return share is not None and 0 < share < home_share(service)


def home_share(service: Service) -> float:
    """Return the share of traffic that the primary gets at home, by the file's weights."""
    if service.records is None or not service.records.weighted:
        return 1.0
    weights = service.records.weights
    return weights["primary"] / (weights["primary"] + weights["standby"])


def weighted_share(facts: Facts) -> float | None:
    """Return the share that weights give the Region that traffic goes to; ``None``: no weights."""
    lever = facts.lever(RECORDS)
    if lever is None or not lever.answered or set(lever.sets) != {"primary", "standby"}:
        return None
    if any(one.get("Weight") is None for one in lever.sets.values()):
        return None
    weights = {role: float(one["Weight"]) for role, one in lever.sets.items()}
    total = sum(weights.values())
    return weights[facts.goes_to] / total if total else None


def _failover_cause(service: Service, facts: Facts, rules: Mapping[str, float]) -> Cause:
    name, regions = service.name, service.regions
    primary, standby = health(facts.primary, rules), health(facts.standby, rules)
    if standby == SICK:
        if primary == SICK:
            return (
                "both_sick",
                (
                    f"{name} is sick in both Regions: to switch would move the outage, and with "
                    f"both off Route 53 sends clients to either."
                ),
            )
        return "standby_sick", f"{name}'s standby in {regions['standby']} is sick itself."
    if primary == WELL and not service.game_day:
        return (
            "primary_well",
            f"{name} is well in {regions['primary']}, seen from outside: there is no need.",
        )
    if standby != WELL:
        return (
            "standby_undecided",
            f"Nothing from outside says that {name} is well in {regions['standby']}.",
        )
    if primary == WELL:
        return _game_day(service)
    if primary != SICK:
        return (
            "undecided",
            (
                f"{name} in {regions['primary']}: {_said(facts.primary, rules, SICK)} says sick, "
                f"{_said(facts.primary, rules, WELL)} says well; that is not "
                f"{rules['signals']:.0f} signals that agree."
            ),
        )
    return _deploy_cause(service, facts, "primary", rules)


def _game_day(service: Service) -> Cause:
    return (
        "game_day",
        f"{service.name} is well and a test record: its failover can be practised.",
    )


def _deploy_cause(service: Service, facts: Facts, role: Role, rules: Mapping[str, float]) -> Cause:
    deployed = facts.side(role).deployed_at
    if deployed is None or facts.not_the_deploy:
        return NO_CAUSE
    age = facts.now - deployed
    if age >= rules["deploy_seconds"]:
        return NO_CAUSE
    region = service.regions[role]
    if facts.direction == FAILBACK:
        return "deploy", f"{region} was deployed to {duration(age)} ago: let that settle first."
    return (
        "deploy",
        (
            f"{service.name} was deployed in {region} {duration(age)} ago. Roll that back "
            f"instead: a bad deployment would follow you to {service.regions['standby']}. If you "
            f"know that it is not the cause, start again and say so."
        ),
    )


def _failback_cause(service: Service, facts: Facts, rules: Mapping[str, float]) -> Cause:
    name, home, away = service.name, service.regions["primary"], service.regions["standby"]
    primary, serving = health(facts.primary, rules), health(facts.standby, rules)
    if primary == SICK:
        return "primary_sick", f"{name} is still sick in {home}."
    if primary != WELL:
        return "undecided", f"Nothing from outside says that {name} is well in {home}."
    if serving != WELL:
        return (
            "serving_sick",
            (
                f"{name} is not well in {away}, where it runs now. A failback is for calm days: "
                f"mend {away}, or decide yourself."
            ),
        )
    deploy = _deploy_cause(service, facts, "primary", rules)
    if deploy != NO_CAUSE:
        return deploy
    behind = next((why for why in (lags(service, facts)).values() if why), "")
    if behind:
        return "data_behind", f"{behind} Going back now would lose writes."
    since, soak = facts.primary.well_since, service.soak_seconds
    if not soak or (since is not None and facts.now - since >= soak):
        return NO_CAUSE
    if since is None:
        words = f"Since when {name} is well in {home} is unknown"
    else:
        words = f"{name} has been well in {home} for {duration(facts.now - since)}"
    return "soaking", f"{words}, and it soaks for {duration(soak)}."


def lags(service: Service, facts: Facts) -> dict[str, str]:
    """Return by store why it is not in step with the side that traffic leaves, ``""`` if it is."""
    found = {}
    for store in service.stores:
        seen = facts.store(store.name)
        found[store.name] = ""
        if store.kind == "aurora" and seen.writer == facts.goes_to:
            continue
        if seen.status != "ACTIVE":
            found[store.name] = f"{store.name}'s copy is {seen.status}."
        elif seen.lag_seconds is None:
            found[store.name] = f"How far {store.name}'s copy lags is unknown."
        elif seen.lag_seconds > store.max_lag_seconds:
            found[store.name] = (
                f"{store.name} lags {seen.lag_seconds:.0f} s, {store.max_lag_seconds} s are "
                f"allowed."
            )
    return found
