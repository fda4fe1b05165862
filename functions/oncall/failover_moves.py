"""Make one step of a failover's order: the I/O of ``failover_plan.Step``.

Every step may be made again after a crash: what is done already is done. A step that finds neither
what the plan saw nor what it wants raises ``WorldMoved``, and so does one whose Region has stopped
answering: the next plan goes on from what is there. What takes its time is asked for and then
looked at until it is done.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from oncall import failover_facts
from oncall.errors import NeedsHuman, WorldMoved
from oncall.failover import RECORDS, ROUTING_CONTROL
from oncall.guards import OPT_IN_TAG, OPT_IN_VALUE
from oncall.levers import LEVERS, MAPPING_ENABLED, PROVISIONED_CONCURRENCY, write_as_planned
from oncall.words import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from oncall.service import Service
    from oncall.services import Services

_ECS = "ecs-desired-count"
_SOON = 5
"""Seconds until a step that is under way is looked at again."""
_NO_SERVER = 500
_UNDER_WAY = frozenset({"InvalidGlobalClusterStateFault", "PriorRequestNotComplete"})

type Step = Mapping[str, Any]
"""``failover_plan.Step`` as the record holds it."""


@dataclass(frozen=True, slots=True)
class Made:
    """How far a step is."""

    done: bool
    wait_seconds: int = 0
    """Until it is worth looking again."""
    change_id: str = ""
    """Of a change of records, for ``GetChange``."""


_DONE = Made(done=True)


def tags(aws: Services, step: Step) -> Mapping[str, str]:
    """Return the tags of what a step changes. Raises ``WorldMoved``.

    A function or mapping has its own; all else belongs to the service, whose owner has opted in by
    its file: tags of records cannot be read when Route 53's control plane does not answer.
    """
    with _heard(step):
        return _tags(aws, step)


def _tags(aws: Services, step: Step) -> Mapping[str, str]:
    lever = step["detail"].get("lever", "")
    if lever in LEVERS:
        return LEVERS[lever].tags(aws.within(step["region"]), step["detail"]["resource"])
    if lever == _ECS:
        found = aws.within(step["region"]).client("ecs")
        listed = found.list_tags_for_resource(resourceArn=step["detail"]["resource"])["tags"]
        return {one["key"]: one["value"] for one in listed}
    return {OPT_IN_TAG: OPT_IN_VALUE}


def make(aws: Services, service: Service, step: Step, *, again: bool) -> Made:
    """Make a step, or see how far it is; ``again``: it has been waited for.

    Raises ``WorldMoved`` or ``NeedsHuman``; nothing has been changed then.
    """
    with _heard(step):
        return _MOVES[step["verb"]](aws, service, step, again)


@contextmanager
def _heard(step: Step) -> Iterator[None]:
    """Raise ``WorldMoved`` where what a step calls does not answer."""
    words = f"{step['region']} did not answer when I was to {step['sentence']}; I look again."
    try:
        yield
    except BotoCoreError as error:
        raise WorldMoved(words) from error
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) < _NO_SERVER:
            raise
        raise WorldMoved(words) from error


def _set(aws: Services, _service: Service, step: Step, _again: bool) -> Made:  # noqa: FBT001 -- a move
    """Change a setting, compared with what the plan saw."""
    there, detail = aws.within(step["region"]), step["detail"]
    live = _read(there, detail)
    if live != detail["after"]:
        if live != detail["before"]:
            raise WorldMoved(
                f"{detail['resource']} is {tell(live)} now; the plan saw "
                f"{tell(detail['before'])}. I look again."
            )
        _write(there, detail)
        live = _read(there, detail)
        if live != detail["after"]:
            raise WorldMoved(
                f"{detail['resource']} reads {tell(live)} right after it was set to "
                f"{tell(detail['after'])}: somebody else is changing it. I look again."
            )
    return _DONE if _is_there(there, detail) else Made(done=False, wait_seconds=_SOON)


def _read(aws: Services, detail: Mapping[str, Any]) -> Any:
    if detail["lever"] == _ECS:
        return failover_facts.ecs_service(aws, detail["resource"]).get("desiredCount")
    return LEVERS[detail["lever"]].read(aws, detail["resource"])


def _write(aws: Services, detail: Mapping[str, Any]) -> None:
    if detail["lever"] == _ECS:
        cluster = failover_facts.ecs_cluster(detail["resource"])
        aws.client("ecs").update_service(
            cluster=cluster, service=detail["resource"], desiredCount=detail["after"]
        )
        return
    name = detail["resource"]
    write_as_planned(aws, detail["lever"], detail["resource"], detail["after"], name)


def _is_there(aws: Services, detail: Mapping[str, Any]) -> bool:
    """Return whether what was asked for has taken effect."""
    lever, resource = detail["lever"], detail["resource"]
    if lever == MAPPING_ENABLED:
        found = aws.client("lambda").get_event_source_mapping(UUID=resource.rsplit(":", 1)[-1])
        return found["State"] in {"Enabled", "Disabled"}
    if lever == PROVISIONED_CONCURRENCY:
        function, _, qualifier = resource.rpartition(":")
        config = aws.client("lambda").get_provisioned_concurrency_config(
            FunctionName=function, Qualifier=qualifier
        )
        if config["Status"] == "FAILED":
            raise NeedsHuman(
                f"Lambda could not provision {detail['after']} for {resource}: "
                f"{config.get('StatusReason', 'it gives no reason')}."
            )
        return config["Status"] == "READY"
    if lever == _ECS:
        service = failover_facts.ecs_service(aws, resource)
        return int(service.get("runningCount", 0)) >= int(detail["after"])
    return True


def _drain(_aws: Services, _service: Service, step: Step, again: bool) -> Made:  # noqa: FBT001 -- a move
    return _DONE if again else Made(done=False, wait_seconds=step["detail"]["seconds"])


def _promote(aws: Services, _service: Service, step: Step, _again: bool) -> Made:  # noqa: FBT001 -- a move
    """Let a global database be written in another Region, once; then wait for it."""
    rds, detail = aws.within(step["region"]).client("rds"), step["detail"]
    name = detail["parameters"]["GlobalClusterIdentifier"]
    target = detail["parameters"]["TargetDbClusterIdentifier"]
    found = rds.describe_global_clusters(GlobalClusterIdentifier=name)["GlobalClusters"][0]
    writers = [
        one.get("DBClusterArn")
        for one in found.get("GlobalClusterMembers", ())
        if one.get("IsWriter")
    ]
    wait = Made(done=False, wait_seconds=_SOON)
    if found.get("Status") != "available" or found.get("FailoverState"):
        return wait
    if writers == [target]:
        return _DONE
    call = {
        "SwitchoverGlobalCluster": rds.switchover_global_cluster,
        "FailoverGlobalCluster": rds.failover_global_cluster,
    }[detail["operation"]]
    try:
        call(**detail["parameters"])
    except ClientError as error:
        if error.response["Error"]["Code"] in _UNDER_WAY:
            return wait
        if error.response["Error"]["Code"] != "InvalidDBClusterStateFault":
            raise
        raise WorldMoved(
            f"{name} cannot do that as it is ({error.response['Error']['Message']}). I look again."
        ) from error
    return wait


def _shift(aws: Services, service: Service, step: Step, _again: bool) -> Made:  # noqa: FBT001 -- a move
    kind = step["detail"]["lever"]
    if kind == ROUTING_CONTROL:
        return _control(aws, service, step["detail"])
    if kind == RECORDS:
        return _change_records(aws, service, step["detail"])
    call = step["detail"]["call"]
    there = aws.within(step["region"])
    if call["service"] == "cloudwatch":
        there.client("cloudwatch").put_metric_data(**call["parameters"])
    elif call["operation"] == "PutObject":
        there.client("s3").put_object(**call["parameters"])
    else:
        there.client("s3").delete_object(**call["parameters"])
    return _DONE


def _control(aws: Services, service: Service, detail: Mapping[str, Any]) -> Made:
    """Set both routing controls in one call, at whichever endpoint of the cluster answers.

    Safety rules judge the whole of a call; they are never overridden.
    """
    lever = service.routing_control
    if lever is None:
        raise WorldMoved(f"{service.name}'s file has no routing control any more; I look again.")
    last: BotoCoreError | ClientError | None = None
    for region, endpoint in failover_facts.shuffled(lever.endpoints):
        client = aws.cluster(region, endpoint)
        try:
            states = [
                {
                    "RoutingControlArn": entry["RoutingControlArn"],
                    "RoutingControlState": client.get_routing_control_state(
                        RoutingControlArn=entry["RoutingControlArn"]
                    )["RoutingControlState"],
                }
                for entry in detail["entries"]
            ]
            if states == detail["entries"]:
                return _DONE
            if states != detail["entries_before"]:
                raise WorldMoved("A routing control was set since the plan was made; I look again.")
            client.update_routing_control_states(UpdateRoutingControlStateEntries=detail["entries"])
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and (
                error.response["Error"]["Code"] == "ConflictException"
            ):
                raise NeedsHuman(
                    f"A safety rule forbids to switch: {error.response['Error']['Message']}"
                ) from error
            last = error
            continue
        return _DONE
    raise WorldMoved("None of the cluster's endpoints answers; I look again.") from last


def _change_records(aws: Services, service: Service, detail: Mapping[str, Any]) -> Made:
    """Change both record sets in one batch that fails as a whole if they are not as planned."""
    here = aws.within(aws.settings.region)
    changes = detail["change_batch"]["Changes"]
    after = [one["ResourceRecordSet"] for one in changes if one["Action"] == "CREATE"]
    if _are(failover_facts.record_sets(here, service), after):
        return _DONE
    try:
        answer = here.client("route53").change_resource_record_sets(
            HostedZoneId=service.zone_id,
            ChangeBatch=detail["change_batch"],
        )
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in _UNDER_WAY:
            return Made(done=False, wait_seconds=_SOON)
        if code != "InvalidChangeBatch":
            raise
        # A try whose answer was lost has made it.
        if _are(failover_facts.record_sets(here, service), after):
            return _DONE
        raise WorldMoved(
            f"{service.record} has been changed since the plan was made; I look again."
        ) from error
    return Made(done=True, change_id=answer["ChangeInfo"]["Id"])


def _are(found: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> bool:
    by_name = {one.get("SetIdentifier"): one for one in found}
    return all(by_name.get(one["SetIdentifier"]) == one for one in wanted)


def is_insync(aws: Services, change_id: str) -> bool | None:
    """Return whether a change has reached all name servers; ``None`` where Route 53 is silent."""
    route53 = aws.within(aws.settings.region).client("route53")
    try:
        return route53.get_change(Id=change_id)["ChangeInfo"]["Status"] == "INSYNC"
    except (BotoCoreError, ClientError):
        return None


type _Move = Callable[[Services, Service, Step, bool], Made]

_MOVES: Mapping[str, _Move] = {
    "fence": _set,
    "drain": _drain,
    "raise": _set,
    "promote": _promote,
    "enable": _set,
    "shift": _shift,
}
LOOKED_AT = frozenset({"verify"})
"""Verbs of steps that change nothing: the looks make them."""
