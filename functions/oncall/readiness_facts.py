"""Read what readiness goes by beside ``failover_facts``: records, health checks, functions.

As there, a read that fails leaves its part unknown and ends nothing. Nothing is written.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from oncall.failover_facts import record_sets
from oncall.readiness_seen import OBSERVED, FunctionSeen, HealthCheckSeen, Inventory
from oncall.readiness_stack import tagged
from oncall.service import ROLES, AlarmSignal
from oncall.stack_facts import read_or, read_stack, read_tags

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from oncall.service import Role, Service
    from oncall.services import Services

logger = logging.getLogger(__name__)

_AT_ONCE = 16
_REFUSALS = ("AccessDenied", "ExpiredToken", "UnrecognizedClient", "InvalidSignature")


def read_inventory(aws: Services, service: Service, stack: str) -> Inventory:
    """Read a service's records, health checks, endpoints, alarm, functions, tags and stacks.

    ``stack`` is the name of the stack of runbooks, alike in both Regions.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        standby = aws.within(service.regions["standby"])
        endpoints = service.routing_control.endpoints if service.routing_control else {}
        asked = {
            region: pool.submit(_answers, standby, service, region, url)
            for region, url in endpoints.items()
        }
        alarm = pool.submit(read_or, partial(_alarm, standby, service), None)
        functions = {role: pool.submit(_functions, aws, service, role) for role in ROLES}
        stacks = {role: pool.submit(read_stack, aws, service, role, stack) for role in ROLES}
        tags = {arn: pool.submit(read_tags, aws, arn) for arn in tagged(service)}
        sets = read_or(partial(record_sets, standby, service), None)
        checks = _health_checks(standby, pool, _ids(service, sets or ()))
        return Inventory(
            record_sets=sets,
            health_checks=checks,
            endpoints={region: answer.result() for region, answer in asked.items()},
            alarm=alarm.result(),
            functions={role: found.result() for role, found in functions.items()},
            stack=stack,
            stacks={role: found.result() for role, found in stacks.items()},
            tags={arn: found.result() for arn, found in tags.items()},
        )


def _answers(aws: Services, service: Service, region: str, url: str) -> bool | None:
    """Return whether a cluster's endpoint tells a state; ``None``: it refuses who asks."""
    if service.routing_control is None:
        return None
    control = service.routing_control.controls["primary"]
    try:
        aws.cluster(region, url).get_routing_control_state(RoutingControlArn=control)
    except (ClientError, BotoCoreError) as error:
        logger.warning("Not read: %s", error)
        refused = isinstance(error, ClientError) and _refused(error)
        return None if refused else False
    return True


def _refused(error: ClientError) -> bool:
    return error.response["Error"]["Code"].startswith(_REFUSALS)


def _alarm(aws: Services, service: Service) -> dict[str, Any] | None:
    """Return the alarm that carries the signal (CloudWatch ``DescribeAlarms``), ``{}``: none."""
    lever = service.health_check
    if lever is None or not isinstance(lever.signal, AlarmSignal):
        return None
    found = aws.client("cloudwatch").describe_alarms(AlarmNames=[lever.signal.name])
    return dict(next(iter(found["MetricAlarms"]), {}))


# Health checks


def _ids(service: Service, sets: Iterable[Mapping[str, Any]]) -> set[str]:
    own = {one for role in ROLES for one in service.health_checks[role]}
    lever = {service.health_check.id} if service.health_check else set()
    return own | lever | {one["HealthCheckId"] for one in sets if "HealthCheckId" in one}


def _health_checks(
    aws: Services, pool: ThreadPoolExecutor, ids: set[str]
) -> dict[str, HealthCheckSeen]:
    """Read health checks and the children of calculated ones, each once."""
    found: dict[str, HealthCheckSeen] = {}
    known: set[str] = set()
    while ids:
        known |= ids
        asked = sorted(ids)
        seen = pool.map(lambda one: read_or(partial(_health_check, aws, one), None), asked)
        found |= {one: check for one, check in zip(asked, seen, strict=True) if check is not None}
        ids = {
            child
            for one in ids & found.keys()
            for child in found[one].config.get("ChildHealthChecks", ())
        } - known
    return found


def _health_check(aws: Services, check: str) -> HealthCheckSeen:
    """Read a health check (Route 53 ``GetHealthCheck``, ``GetHealthCheckStatus``)."""
    client = aws.client("route53")
    try:
        found = client.get_health_check(HealthCheckId=check)["HealthCheck"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchHealthCheck":
            raise
        return HealthCheckSeen({})
    config = found["HealthCheckConfig"]
    if config["Type"] not in OBSERVED:
        return HealthCheckSeen(config)
    said = read_or(partial(client.get_health_check_status, HealthCheckId=check), None)
    observed = said["HealthCheckObservations"] if said else []
    well = sum(
        one.get("StatusReport", {}).get("Status", "").startswith("Success") for one in observed
    )
    return HealthCheckSeen(config, well / len(observed) if observed else None)


# Functions


def _functions(aws: Services, service: Service, role: Role) -> Sequence[FunctionSeen]:
    """Read the functions that the file tells of: consumers, what has capacity, what is counted."""
    there = aws.within(service.regions[role])
    named = {one.resource for one in service.capacity[role] if ":function:" in one.resource}
    for arn in service.consumers[role]:
        named |= {one for one in (read_or(partial(_consumer, there, arn), ""),) if one}
    if service.requests is not None and service.requests.namespace == "AWS/Lambda":
        named |= {one for one in (service.requests.dimensions[role].get("FunctionName"),) if one}
    by_name = {one.rpartition(":function:")[2]: one for one in sorted(named)}
    return tuple(
        read_or(partial(_function, there, name, arn), FunctionSeen(name))
        for name, arn in sorted(by_name.items())
    )


def _consumer(aws: Services, arn: str) -> str:
    """Return the function of an event source mapping (Lambda ``GetEventSourceMapping``)."""
    found = aws.client("lambda").get_event_source_mapping(UUID=arn.rsplit(":", 1)[-1])
    return str(found.get("FunctionArn", ""))


def _function(aws: Services, name: str, arn: str) -> FunctionSeen:
    found = aws.client("lambda").get_function_configuration(FunctionName=arn)
    environment = found.get("Environment", {})
    return FunctionSeen(
        name,
        found["CodeSha256"],
        found["MemorySize"],
        found["Timeout"],
        None if "Error" in environment else frozenset(environment.get("Variables", {})),
    )
