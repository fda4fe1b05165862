"""Read a service in both its Regions: the I/O before ``failover``.

Reads run side by side, with short timeouts; each that fails leaves its part unknown, as
``failover.Facts`` wants it, and none ends the inspection: in an outage much does not answer.
"""

from __future__ import annotations

import logging
import math
import random
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from oncall import counterpart, metrics, probes
from oncall.failover import (
    FAILBACK,
    FAILOVER,
    HEALTH_CHECK,
    RECORDS,
    ROUTING_CONTROL,
    Facts,
    LeverSeen,
    Setting,
    Side,
    StoreSeen,
)
from oncall.levers import LEVERS, MAPPING_ENABLED, RESERVED_CONCURRENCY
from oncall.service import ROLES, S3Signal
from oncall.words import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mypy_boto3_cloudwatch.type_defs import MetricDataQueryTypeDef

    from oncall.service import (
        AlarmSignal,
        Capacity,
        HealthCheckLever,
        Records,
        Role,
        RoutingControl,
        Service,
        Store,
    )
    from oncall.services import Services

logger = logging.getLogger(__name__)

_AT_ONCE = 24
_LAG_MINUTES = 60
_MINUTE = 60
_MOST_POINTS = 1440
"""Of GetMetricStatistics in one answer (CloudWatch API Reference)."""
_GAP_PERIODS = 5
"""Periods without datapoints after which a health check is not known to have stayed healthy."""
_HEALTH_METRICS_REGION = "us-east-1"
"""Where Route 53 publishes all metrics of health checks (Route 53 Developer Guide, "Monitoring
health checks using CloudWatch")."""
_LATEST_LAGS = 3
_NO_SERVER = 500
"""From this HTTP status on, a service has not answered; below, it has, if with a refusal."""
_CONFIG_REGION = "us-west-2"
"""Where routing controls are configured; their states are not (ARC Developer Guide, "AWS Region
availability for routing control")."""
_MOST_SETS = 100
_SIGNAL_KEPT = ((15, 60), (455, 3600))
"""For how many days CloudWatch keeps datapoints of so many seconds."""
_GONE = frozenset({"404", "NoSuchKey", "NotFound"})


class _Reads:
    """Reads that run side by side, and which APIs of a Region have answered any of them."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._asked: list[tuple[str, str, Future[Any]]] = []

    def start[T](self, region: str, api: str, read: Callable[[], T]) -> Future[T]:
        """Begin a read of an API in a Region."""
        found = self._pool.submit(read)
        self._asked.append((region, api, found))
        return found

    def answered(self, region: str) -> dict[str, bool]:
        """Return by API whether it has answered any read."""
        said: dict[str, bool] = {}
        for where, api, found in self._asked:
            if where == region:
                said[api] = said.get(api, False) or not _silent(found.exception())
        return said


def _silent(error: BaseException | None) -> bool:
    if isinstance(error, ClientError):
        return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= _NO_SERVER
    return error is not None


def _got[T, U](found: Future[T], otherwise: U) -> T | U:
    """Return what was read, or what stands for unknown where AWS has not told."""
    try:
        return found.result()
    except (ClientError, BotoCoreError) as error:
        logger.warning("Not read: %s", error)
        return otherwise


@dataclass(frozen=True, slots=True)
class Lag:
    """The worst of the latest replication lags, and when the last was measured."""

    seconds: float | None = None
    at: float | None = None


@dataclass(slots=True)
class _SideReads:
    """One Region's reads under way."""

    checkers: Future[dict[str, bool]]
    probe: Future[bool]
    counted: Future[tuple[float, float] | None] | None
    deployed: list[Future[float]]
    consumers: list[Future[Setting | None]]
    capacity: list[Future[Setting | None]]


def read_facts(
    aws: Services,
    service: Service,
    rules: Mapping[str, float],
    *,
    direction: str,
    sick_since: float | None = None,
    not_the_deploy: bool = False,
    execution: str = "",
) -> Facts:
    """Read all that a diagnosis and a plan go by. ``rules`` is read for ``window_periods``.

    ``execution``: the run's own ARN, by which its counterpart in the other Region is found.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        reads = _Reads(pool)
        begun = {role: _begin_side(aws, reads, service, role, rules) for role in ROLES}
        levers = _begin_levers(aws, reads, service)
        leaves: Role = "primary" if direction == FAILOVER else "standby"
        since = _begin_soak(aws, reads, service) if direction == FAILBACK else None
        there = aws.within(service.regions[leaves])
        look = partial(counterpart.running, there, service, direction, execution)
        counter = reads.start("", "stepfunctions", look) if execution else None
        stores = [_begin_store(aws, reads, service, store, leaves) for store in service.stores]
        counted = {
            role: _got(side.counted, None) if side.counted else None for role, side in begun.items()
        }
        sides = {
            role: _side(side, counted, role, aws.settings.region) for role, side in begun.items()
        }
        seen = [_lever(kind, found) for kind, found in levers]
        data = [end() for end in stores]
        well_since = _got(since, None) if since else None
        other_run = _got(counter, None) if counter else ""
        answered = {role: reads.answered(service.regions[role]) for role in ROLES}
    return Facts(
        now=aws.clock().timestamp(),
        direction=direction,
        runs_in=aws.settings.region,
        primary=replace(_with(sides["primary"], answered["primary"]), well_since=well_since),
        standby=_with(sides["standby"], answered["standby"]),
        levers=tuple(seen),
        stores=tuple(data),
        sick_since=sick_since,
        other_run=other_run,
        not_the_deploy=not_the_deploy,
    )


def _with(side: dict[str, Any], answered: Mapping[str, bool]) -> Side:
    return Side(answered=answered, **side)


# The Regions


def _begin_side(
    aws: Services, reads: _Reads, service: Service, role: Role, rules: Mapping[str, float]
) -> _SideReads:
    region = service.regions[role]
    there = aws.within(region)
    functions = _functions(service, role)
    # So that a Region is asked for at least one thing, whatever the file names there.
    reads.start(region, "lambda", there.client("lambda").get_account_settings)
    return _SideReads(
        checkers=reads.start("", "route53", partial(checkers, there, service.health_checks[role])),
        probe=reads.start("", "probe", partial(probes.works, service.probes[role])),
        counted=reads.start(
            region, "cloudwatch", partial(requests, there, service, role, rules["window_periods"])
        )
        if service.requests
        else None,
        deployed=[
            *(reads.start(region, "lambda", partial(_deployed, there, one)) for one in functions),
            *(
                reads.start(region, "ecs", partial(_rolled_out, there, one.resource))
                for one in service.capacity[role]
                if one.kind == "ecs-desired-count"
            ),
        ],
        consumers=[
            reads.start(region, "lambda", partial(_consumer, there, arn))
            for arn in service.consumers[role]
        ],
        capacity=[
            reads.start(
                region,
                "ecs" if one.kind == "ecs-desired-count" else "lambda",
                partial(_capacity, there, service, role, one),
            )
            for one in service.capacity[role]
        ],
    )


def _side(
    begun: _SideReads, counted: Mapping[Role, tuple[float, float] | None], role: Role, place: str
) -> dict[str, Any]:
    own = counted[role]
    both = [one[0] for one in counted.values() if one is not None]
    total = sum(both)
    deployed = [when for one in begun.deployed if (when := _got(one, 0.0))]
    consumers = [_got(one, None) for one in begun.consumers]
    capacity = [_got(one, None) for one in begun.capacity]
    return {
        "checkers": _got(begun.checkers, {}),
        "probes": {place: _got(begun.probe, False)},  # noqa: FBT003 -- no answer is no
        "error_share": own[1] / own[0] if own and own[0] else None,
        "traffic_share": own[0] / total if own and len(both) == len(ROLES) and total else None,
        "deployed_at": max(deployed, default=None),
        "consumers": tuple(one for one in consumers if one is not None),
        "capacity": tuple(one for one in capacity if one is not None),
    }


def checkers(aws: Services, ids: Sequence[str]) -> dict[str, bool]:
    """Return by checker Region whether every one of these health checks is healthy there.

    Most of a Region's checkers decide (Route 53 ``GetHealthCheckStatus``; a status that begins
    with ``Success`` is a healthy observation).
    """
    found: dict[str, bool] = {}
    for check in ids:
        votes: dict[str, list[bool]] = {}
        answer = aws.client("route53").get_health_check_status(HealthCheckId=check)
        for one in answer["HealthCheckObservations"]:
            status = one.get("StatusReport", {}).get("Status", "")
            votes.setdefault(one.get("Region", UNKNOWN), []).append(status.startswith("Success"))
        for region, said in votes.items():
            found[region] = found.get(region, True) and sum(said) * 2 > len(said)
    return found


def _begin_soak(aws: Services, reads: _Reads, service: Service) -> Future[float | None]:
    there, ids = aws.within(_HEALTH_METRICS_REGION), service.health_checks["primary"]
    return reads.start("", "route53", partial(well_since, there, ids, service.soak_seconds))


def well_since(aws: Services, ids: Sequence[str], seconds: int) -> float | None:
    """Return since when all these health checks are healthy, looking ``seconds`` back at least.

    By ``HealthCheckStatus``, 1 for healthy and 0 else, once a minute (Route 53 Developer Guide,
    "Monitoring health checks using CloudWatch"). ``None`` without health checks, or where one is
    unhealthy or silent now: a gap is no health, so it begins anew after one.
    """
    now = aws.clock()
    back = seconds + 2 * _GAP_PERIODS * _MINUTE
    period = _MINUTE * math.ceil(back / _MINUTE / (_MOST_POINTS - _GAP_PERIODS))
    found: list[float] = []
    for check in ids:
        answer = aws.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/Route53",
            MetricName="HealthCheckStatus",
            Dimensions=[{"Name": "HealthCheckId", "Value": check}],
            StartTime=now - timedelta(seconds=back),
            EndTime=now,
            Period=period,
            Statistics=["Minimum"],
        )
        points = {one["Timestamp"].timestamp(): one["Minimum"] for one in answer["Datapoints"]}
        since = _unbroken(points, now.timestamp(), _GAP_PERIODS * period)
        if since is None:
            return None
        found.append(since)
    return max(found, default=None)


def _unbroken(points: Mapping[float, float], now: float, gap: float) -> float | None:
    """Return the begin of what is 1 up to now without a gap; ``None`` if it is not 1 now."""
    since = None
    last = now
    for at in sorted(points, reverse=True):
        if points[at] < 1 or last - at > gap:
            break
        since = last = at
    return since


def requests(
    aws: Services, service: Service, role: Role, periods: float
) -> tuple[float, float] | None:
    """Return how many requests a Region had and how many failed; ``None`` without datapoints."""
    asked = service.requests
    if asked is None:
        return None
    dimensions = asked.dimensions[role]
    found = metrics.read(
        aws,
        {
            "count": metrics.query(asked.namespace, asked.count, "Sum", **dimensions),
            "errors": metrics.query(asked.namespace, asked.errors, "Sum", **dimensions),
        },
        metrics.Window.latest(aws, periods),
    )
    return (sum(found["count"]), sum(found["errors"])) if found["count"] else None


def _functions(service: Service, role: Role) -> list[str]:
    """Return the functions that the file tells of: what has capacity, and what is counted."""
    arns = [one.resource for one in service.capacity[role] if ":function:" in one.resource]
    found = {":".join(arn.split(":")[:7]) for arn in arns}
    if service.requests is not None and service.requests.namespace == "AWS/Lambda":
        name = service.requests.dimensions[role].get("FunctionName", "")
        found |= {name} if name else set()
    return sorted(found)


def _deployed(aws: Services, function: str) -> float:
    configuration = aws.client("lambda").get_function_configuration(FunctionName=function)
    return datetime.fromisoformat(configuration["LastModified"]).timestamp()


def _rolled_out(aws: Services, arn: str) -> float:
    """Return when the newest deployment of an ECS service began (``DescribeServices``)."""
    found = ecs_service(aws, arn).get("deployments", ())
    return max((one["createdAt"].timestamp() for one in found), default=0.0)


def ecs_service(aws: Services, arn: str) -> Mapping[str, Any]:
    """Return what ECS says of a service, nothing where there is none (``DescribeServices``)."""
    answer = aws.client("ecs").describe_services(cluster=ecs_cluster(arn), services=[arn])
    found = answer["services"]
    return found[0] if found else {}


def ecs_cluster(arn: str) -> str:
    """Return the cluster in the ARN of an ECS service."""
    return arn.rsplit(":", 1)[-1].split("/")[1]


def _consumer(aws: Services, arn: str) -> Setting | None:
    return Setting(arn, LEVERS[MAPPING_ENABLED].read(aws, arn))


def _capacity(aws: Services, service: Service, role: Role, wanted: Capacity) -> Setting | None:
    if wanted.kind == "ecs-desired-count":
        found = ecs_service(aws, wanted.resource)
        return Setting(wanted.resource, int(found["desiredCount"])) if found else None
    now = LEVERS[wanted.kind].read(aws, wanted.resource)
    account = aws.client("lambda").get_account_settings()["AccountLimit"]
    pool = account["UnreservedConcurrentExecutions"] - aws.settings.account_floor + (now or 0)
    if wanted.kind == RESERVED_CONCURRENCY:
        return Setting(wanted.resource, now, pool)
    function = wanted.resource.rpartition(":")[0]
    reserved = LEVERS[RESERVED_CONCURRENCY].read(aws, function)
    raised = [
        one.at_least
        for one in service.capacity[role]
        if (one.kind, one.resource) == (RESERVED_CONCURRENCY, function)
    ]
    # Provisioned concurrency comes out of the function's own reservation, where it has one.
    room = pool if reserved is None else max([reserved, *raised])
    return Setting(wanted.resource, now, room)


# Data


def _begin_store(
    aws: Services, reads: _Reads, service: Service, store: Store, leaves: Role
) -> Callable[[], StoreSeen]:
    goes_to: Role = "standby" if leaves == "primary" else "primary"
    left, there = service.regions[leaves], service.regions[goes_to]
    begin = _begin_table if store.kind == "dynamodb" else _begin_database
    return begin(
        reads, store, (aws.within(left), left, leaves), (aws.within(there), there, goes_to)
    )


type _Place = tuple[Services, str, Role]
"""Services of a Region, its name and its role."""


def _begin_table(
    reads: _Reads, store: Store, left: _Place, there: _Place
) -> Callable[[], StoreSeen]:
    status = reads.start(there[1], "dynamodb", partial(_replica, there[0], store.name, there[1]))
    source = reads.start(left[1], "dynamodb", partial(_replica, left[0], store.name, left[1]))
    dimensions = {"TableName": store.name, "ReceivingRegion": there[1]}
    lag = reads.start(
        left[1],
        "cloudwatch",
        partial(latest_lag, left[0], "AWS/DynamoDB", "ReplicationLatency", dimensions),
    )

    def end() -> StoreSeen:
        measured = _got(lag, Lag())
        return StoreSeen(
            store.name,
            _got(status, UNKNOWN),
            measured.seconds,
            measured.at,
            source_available=_got(source, UNKNOWN) == "ACTIVE",
        )

    return end


def _replica(aws: Services, table: str, region: str) -> str:
    """Return the status of a Region's copy of a global table (DynamoDB ``DescribeTable``)."""
    found = aws.client("dynamodb").describe_table(TableName=table)["Table"]
    statuses = {
        one.get("RegionName"): one.get("ReplicaStatus") for one in found.get("Replicas", ())
    }
    if not statuses:
        return "no replica"
    return str(statuses.get(region) or found["TableStatus"])


def _begin_database(
    reads: _Reads, store: Store, left: _Place, there: _Place
) -> Callable[[], StoreSeen]:
    goes, comes = store.clusters[there[2]], store.clusters[left[2]]
    members = reads.start(there[1], "rds", partial(_members, there[0], store.name))
    status = reads.start(there[1], "rds", partial(_cluster_status, there[0], goes))
    source = reads.start(left[1], "rds", partial(_cluster_status, left[0], comes))
    # In the secondary's Region only (Aurora User Guide, "Amazon CloudWatch metrics for Aurora").
    dimensions = {"DBClusterIdentifier": goes.rsplit(":", 1)[-1]}
    lag = reads.start(
        there[1],
        "cloudwatch",
        partial(latest_lag, there[0], "AWS/RDS", "AuroraGlobalDBReplicationLag", dimensions),
    )

    def end() -> StoreSeen:
        measured, found = _got(lag, Lag()), _got(members, {})
        writer = next(
            (
                role
                for place in (left, there)
                if found.get(store.clusters[role := place[2]], {}).get("IsWriter")
            ),
            None,
        )
        connected = found.get(goes, {}).get("SynchronizationStatus", "connected") == "connected"
        word = _got(status, UNKNOWN)
        if word == "available":
            word = "ACTIVE" if connected else str(found[goes]["SynchronizationStatus"])
        return StoreSeen(
            store.name,
            word,
            measured.seconds,
            measured.at,
            writer=writer,
            source_available=_got(source, UNKNOWN) == "available",
        )

    return end


def _members(aws: Services, name: str) -> dict[str, Mapping[str, Any]]:
    """Return the clusters of a global database by ARN (RDS ``DescribeGlobalClusters``)."""
    found = aws.client("rds").describe_global_clusters(GlobalClusterIdentifier=name)
    members = found["GlobalClusters"][0].get("GlobalClusterMembers", ())
    return {one["DBClusterArn"]: one for one in members if "DBClusterArn" in one}


def _cluster_status(aws: Services, arn: str) -> str:
    found = aws.client("rds").describe_db_clusters(DBClusterIdentifier=arn)["DBClusters"]
    return str(found[0].get("Status", UNKNOWN))


def latest_lag(aws: Services, namespace: str, metric: str, dimensions: Mapping[str, str]) -> Lag:
    """Return the worst of the latest lags of the hour; they are published in milliseconds."""
    now = aws.clock()
    answer = aws.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=metric,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=now - timedelta(minutes=_LAG_MINUTES),
        EndTime=now + timedelta(minutes=1),
        Period=60,
        Statistics=["Maximum"],
    )
    points = sorted(answer["Datapoints"], key=lambda one: one["Timestamp"])[-_LATEST_LAGS:]
    if not points:
        return Lag()
    return Lag(max(one["Maximum"] for one in points) / 1000, points[-1]["Timestamp"].timestamp())


# Levers


def _begin_levers(
    aws: Services, reads: _Reads, service: Service
) -> list[tuple[str, Future[LeverSeen]]]:
    standby = aws.within(service.regions["standby"])
    begun: list[tuple[str, Future[LeverSeen]]] = []
    if service.routing_control is not None:
        read = partial(routing_controls, standby, service.routing_control)
        begun.append((ROUTING_CONTROL, reads.start("", "cluster", read)))
    if service.health_check is not None:
        check = partial(health_check, standby, service.health_check)
        begun.append((HEALTH_CHECK, reads.start("", "signal", check)))
    if service.records is not None:
        sets = partial(records, standby, service, service.records)
        begun.append((RECORDS, reads.start("", "route53", sets)))
    return begun


def _lever(kind: str, found: Future[LeverSeen]) -> LeverSeen:
    return _got(found, LeverSeen(kind, answered=False))


def routing_controls(aws: Services, lever: RoutingControl) -> LeverSeen:
    """Read both routing controls' states from any of the cluster's endpoints that answers.

    They are asked in random order, as any of them may be away (ARC Developer Guide, "Best
    practices for routing control"). Raises the last one's error where none answers.
    """
    last: ClientError | BotoCoreError | None = None
    for region, endpoint in shuffled(lever.endpoints):
        client = aws.cluster(region, endpoint)
        try:
            states = {
                role: client.get_routing_control_state(RoutingControlArn=lever.controls[role])
                for role in ROLES
            }
        except (ClientError, BotoCoreError) as error:
            last = error
            continue
        is_open = {role: states[role]["RoutingControlState"] == "On" for role in ROLES}
        safe = _safety(aws, lever)
        return LeverSeen(ROUTING_CONTROL, True, is_open, endpoint=region, safe=safe)  # noqa: FBT003 -- answered
    if last is None:
        raise AssertionError("a cluster without endpoints is no routing control")
    raise last


def shuffled(endpoints: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the cluster's endpoints by Region, in random order."""
    found = list(endpoints.items())
    random.shuffle(found)
    return found


def _safety(aws: Services, lever: RoutingControl) -> bool | None:
    """Return whether an assertion rule keeps one of both controls On; ``None``: not told."""
    panel = lever.controls["primary"].partition("/routingcontrol/")[0]
    config = aws.client("route53-recovery-control-config", _CONFIG_REGION)
    try:
        rules = config.list_safety_rules(ControlPanelArn=panel)["SafetyRules"]
    except (ClientError, BotoCoreError) as error:
        logger.warning("Not read: %s", error)
        return None
    return any(_keeps_one(rule.get("ASSERTION", {}), lever) for rule in rules)


def _keeps_one(rule: Mapping[str, Any], lever: RoutingControl) -> bool:
    config = rule.get("RuleConfig", {})
    at_least = config.get("Type") in {"ATLEAST", "OR"} and not config.get("Inverted")
    enough = config.get("Type") == "OR" or config.get("Threshold", 0) >= 1
    return at_least and enough and set(rule["AssertedControls"]) == set(lever.controls.values())


def health_check(aws: Services, lever: HealthCheckLever) -> LeverSeen:
    """Read what the health check watches, in the standby Region; it asks no control plane.

    Route 53 goes by the alarm's metric data and not by its state, which SetAlarmState sets
    (Developer Guide, "How Route 53 determines the status of health checks that monitor CloudWatch
    alarms":
    https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/dns-failover-determining-health-of-endpoints.html).
    """
    signal = lever.signal
    if isinstance(signal, S3Signal):
        is_away = _is_there(aws, signal) == (signal.away_when == "present")
    else:
        is_away = _rings(aws, signal)
    return LeverSeen(
        HEALTH_CHECK,
        answered=True,
        open={"primary": not is_away, "standby": True},
        holds=isinstance(signal, S3Signal) or _holds(aws, lever),
    )


def _is_there(aws: Services, signal: S3Signal) -> bool:
    try:
        aws.client("s3").head_object(Bucket=signal.bucket, Key=signal.key)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _GONE:
            raise
        return False
    return True


def _rings(aws: Services, signal: AlarmSignal) -> bool:
    """Return whether the alarm's metric was set to its away value last, however long ago.

    The health check keeps its last state without data, so that an old datapoint still counts.
    Those of a minute are kept for 15 days, those of an hour for 455 (CloudWatch API Reference,
    ``GetMetricData``).
    """
    extreme = "Maximum" if signal.away_value > signal.home_value else "Minimum"
    for days, period in _SIGNAL_KEPT:
        found = _latest(aws, signal, extreme, days, period)
        if found is not None:
            return found == signal.away_value
    return False


def _latest(
    aws: Services, signal: AlarmSignal, statistic: str, days: int, period: int
) -> float | None:
    """Return the value that the metric was last set to; ``None`` if it was not."""
    now = aws.clock()
    asked: MetricDataQueryTypeDef = {
        "Id": "signal",
        "MetricStat": {
            "Metric": {"Namespace": signal.namespace, "MetricName": signal.metric},
            "Period": period,
            "Stat": statistic,
        },
    }
    pages = aws.client("cloudwatch").get_paginator("get_metric_data")
    for page in pages.paginate(
        MetricDataQueries=[asked],
        StartTime=now - timedelta(days=days),
        EndTime=now + timedelta(minutes=1),
        ScanBy="TimestampDescending",
    ):
        for value in page["MetricDataResults"][0]["Values"]:
            return value
    return None


def _holds(aws: Services, lever: HealthCheckLever) -> bool:
    """Return whether the check keeps its last state without data; taken so where it is not told.

    In an outage Route 53's control plane may be silent, and the check still switches.
    """
    try:
        found = aws.client("route53").get_health_check(HealthCheckId=lever.id)["HealthCheck"]
    except (ClientError, BotoCoreError) as error:
        logger.warning("Not read: %s", error)
        return True
    config = found["HealthCheckConfig"]
    return config.get("InsufficientDataHealthStatus", "LastKnownStatus") == "LastKnownStatus"


def records(aws: Services, service: Service, lever: Records) -> LeverSeen:
    """Read the record's sets (Route 53 ``ListResourceRecordSets``) and compare them."""
    found = record_sets(aws, service)
    by_name = {str(one.get("SetIdentifier", "")): one for one in found}
    key = "Weight" if lever.weighted else "Failover"
    sets = {role: by_name[lever.sets[role]] for role in ROLES if lever.sets[role] in by_name}
    differs = ""
    missing = [lever.sets[role] for role in ROLES if role not in sets]
    odd = [name for name in by_name if name not in lever.sets.values()]
    if missing:
        differs = f"there is no record set {missing[0]}"
    elif odd:
        differs = f"there is one more record set, {odd[0] or 'without an identifier'}"
    elif any(key not in one for one in sets.values()):
        differs = f"its record sets are not {lever.policy}"
    is_open = {
        role: one[key] > 0 if lever.weighted else one[key] == "PRIMARY"
        for role, one in sets.items()
        if key in one
    }
    return LeverSeen(RECORDS, answered=True, open=is_open, differs=differs, sets=sets)


def record_sets(aws: Services, service: Service) -> list[dict[str, Any]]:
    """Return all record sets of the service's name and type, with all their members."""
    answer = aws.client("route53").list_resource_record_sets(
        HostedZoneId=service.zone_id,
        StartRecordName=service.record,
        StartRecordType=service.record_type,  # type: ignore[arg-type]  # one of the schema's
        MaxItems=str(_MOST_SETS),
    )
    return [
        dict(one)
        for one in answer["ResourceRecordSets"]
        if (one["Name"].rstrip("."), one["Type"]) == (service.record, service.record_type)
    ]
