"""Whether the stack of runbooks could fail a service over, and back: roles, people, switches. Pure.

A failover runs in the standby's stack, a failback in the primary's: what is wrong there is ``bad``
in the standby, where it would keep the failover from helping, and a ``warn`` in the primary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from oncall.guards import OPT_IN_TAG, OPT_IN_VALUE, RUN
from oncall.readiness_seen import BAD, OK, WARN, Finding
from oncall.service import ROLES, S3Signal
from oncall.words import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from oncall.readiness_seen import Inventory, StackSeen
    from oncall.service import Role, Service

CHANGES, READS = "take-failover-step", "inspect-failover"
"""Functions of the stack, by the end of their names: who changes, and who looks before."""
_LISTED = 3
_WORST: Mapping[Role, str] = {"standby": BAD, "primary": WARN}
_WHAT: Mapping[Role, str] = {"standby": "failed over", "primary": "brought back"}
_RUNBOOK: Mapping[Role, str] = {"standby": "route53-failover", "primary": "route53-failback"}
_TWO = 2
_IF_TAGGED = {f"aws:ResourceTag/{OPT_IN_TAG}": OPT_IN_VALUE}
_CAPACITY = {
    "reserved-concurrency": "lambda:PutFunctionConcurrency",
    "provisioned-concurrency": "lambda:PutProvisionedConcurrencyConfig",
    "ecs-desired-count": "ecs:UpdateService",
}


@dataclass(frozen=True, slots=True)
class Need:
    """What a function's role has to be allowed."""

    function: str
    actions: tuple[str, ...]
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)
    """Condition keys of the request, with their values."""

    def words(self, action: str) -> str:
        """Say it: ``s3:PutObject on arn:…``."""
        return f"{action} on {self.resource}"


def needs(service: Service, role: Role) -> tuple[Need, ...]:
    """Return what a run of the stack in ``role``'s Region has to be allowed.

    Actions and resources are those of the Service Authorization Reference.
    """
    return (*_lever_needs(service), *_data_needs(service, role), *_tagged_needs(service, role))


def _lever_needs(service: Service) -> Iterator[Need]:
    if service.routing_control is not None:
        for control in service.routing_control.controls.values():
            yield Need(CHANGES, ("route53-recovery-cluster:UpdateRoutingControlStates",), control)
    partition = _partition(service)
    if service.health_check is not None:
        signal = service.health_check.signal
        if isinstance(signal, S3Signal):
            bucket = f"arn:{partition}:s3:::{signal.bucket}"
            yield Need(CHANGES, ("s3:PutObject", "s3:DeleteObject"), f"{bucket}/{signal.key}")
            yield Need(READS, ("s3:GetObject",), f"{bucket}/{signal.key}")
            yield Need(READS, ("s3:ListBucket",), bucket)
        else:
            namespace = {"cloudwatch:namespace": signal.namespace}
            yield Need(CHANGES, ("cloudwatch:PutMetricData",), "*", namespace)
    if service.records is not None:
        zone = f"arn:{partition}:route53:::hostedzone/{service.zone_id}"
        yield Need(CHANGES, ("route53:ChangeResourceRecordSets",), zone)


def _data_needs(service: Service, role: Role) -> Iterator[Need]:
    switch = ("rds:SwitchoverGlobalCluster",)
    actions = (*switch, "rds:FailoverGlobalCluster") if role == "standby" else switch
    for store in service.stores:
        if store.kind == "aurora":
            partition, account = store.clusters["primary"].split(":")[1:5:3]
            everything = f"arn:{partition}:rds::{account}:global-cluster:{store.name}"
            for one in (everything, *store.clusters.values()):
                yield Need(CHANGES, actions, one)


def _tagged_needs(service: Service, role: Role) -> Iterator[Need]:
    for arn in (one for side in ROLES for one in service.consumers[side]):
        yield Need(CHANGES, ("lambda:UpdateEventSourceMapping",), arn, _IF_TAGGED)
    for one in service.capacity[role]:
        yield Need(CHANGES, (_CAPACITY[one.kind],), one.resource, _IF_TAGGED)


def _partition(service: Service) -> str:
    region = service.regions["standby"]
    for start, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
        if region.startswith(start):
            return partition
    return "aws"


def tagged(service: Service) -> tuple[str, ...]:
    """Return the ARNs of all that has to be opted in by its tag."""
    found = [arn for role in ROLES for arn in service.consumers[role]]
    found += [one.resource for role in ROLES for one in service.capacity[role]]
    return tuple(dict.fromkeys(found))


def findings(service: Service, inventory: Inventory) -> tuple[Finding, ...]:
    """Return what hinders the stack's runs."""
    found = [_deployed(service, inventory, role) for role in ROLES]
    for role in ROLES:
        stack = inventory.stacks.get(role)
        if stack is not None and stack.deployed:
            found += [
                _allowed(service, inventory.stack, role, stack),
                _switched(service, role, stack),
                _channels(service, inventory.stack, role, stack),
            ]
    if all((one := inventory.stacks.get(role)) and one.deployed for role in ROLES):
        found.append(_alike(service, inventory))
    return (*found, *_approvers(service, inventory), *_opted_in(service, inventory))


def _deployed(service: Service, inventory: Inventory, role: Role) -> Finding:
    name, region, stack = f"stack:{role}", service.regions[role], inventory.stack
    seen = inventory.stacks.get(role)
    see = f"`aws lambda get-function --region {region} --function-name {stack}-{CHANGES}`"
    if seen is None or seen.deployed is None:
        words = f"The stack {stack} was not seen in {region}: {see}."
        return Finding(name, UNKNOWN, None, words)
    if not seen.deployed:
        words = (
            f"There is no stack {stack} in {region}, so {service.name} could not be {_WHAT[role]}. "
            f"`sam deploy --stack-name {stack} --region {region}`, as samconfig.toml has it."
        )
        return Finding(name, _WORST[role], None, words)
    return Finding(name, OK, None, f"The stack {stack} is in {region}.")


def _allowed(service: Service, stack: str, role: Role, seen: StackSeen) -> Finding:
    name, region = f"iam:{role}", service.regions[role]
    if seen.denied is None:
        words = (
            f"What the runbooks in {region} are allowed was not simulated (it takes "
            f"iam:SimulatePrincipalPolicy on their roles): `aws lambda get-function-configuration "
            f"--region {region} --function-name {stack}-{CHANGES} --query Role`."
        )
        return Finding(name, UNKNOWN, None, words)
    if seen.denied:
        words = (
            f"The runbooks in {region} may not do {_few(seen.denied)}, so {service.name} could "
            f"not be {_WHAT[role]} by them. Name what is missing in the stack's parameter "
            f"FailoverResources, and see that no boundary forbids it."
        )
        return Finding(name, _WORST[role], len(seen.denied), words)
    count = sum(len(need.actions) for need in needs(service, role))
    words = f"The runbooks in {region} are allowed all that they need of {service.name}."
    return Finding(name, OK, count, words)


def _few(things: tuple[str, ...]) -> str:
    more = len(things) - _LISTED
    said = ", ".join(things[:_LISTED])
    return f"{said} and {more} more" if more > 0 else said


def _switched(service: Service, role: Role, seen: StackSeen) -> Finding:
    name, region = f"switch:{role}", service.regions[role]
    if seen.switches is None:
        words = f"The kill switches in {region} were not read (ssm:GetParameters)."
        return Finding(name, UNKNOWN, None, words)
    off = [one for one, value in seen.switches.items() if value != RUN]
    if off:
        said = seen.switches[off[0]] or "missing"
        words = (
            f"The kill switch {off[0]} in {region} is {said!r}, so {service.name} cannot be "
            f"{_WHAT[role]}. If that is over: `aws ssm put-parameter --region {region} "
            f"--overwrite --name {off[0]} --value {RUN}`."
        )
        return Finding(name, _WORST[role], len(off), words)
    return Finding(name, OK, 0, f"The kill switches in {region} let {_RUNBOOK[role]} run.")


def _channels(service: Service, stack: str, role: Role, seen: StackSeen) -> Finding:
    name, region = f"secrets:{role}", service.regions[role]
    if seen.channels is None:
        words = (
            f"Whether the stack in {region} can read its secrets was not seen: `aws lambda invoke "
            f"--region {region} --function-name {stack}-report --cli-binary-format "
            f'raw-in-base64-out --payload \'{{"check": "channels"}}\' /dev/stdout`.'
        )
        return Finding(name, UNKNOWN, None, words)
    wrong = [f"{channel}: {why}" for channel, why in sorted(seen.channels.items()) if why]
    if wrong:
        words = (
            f"In {region} nobody would be told by {'; '.join(wrong)}. Mend the secret, or the "
            f"stack's parameter that names it."
        )
        return Finding(name, _WORST[role], len(wrong), words)
    if not seen.channels:
        words = (
            f"The stack in {region} is told of neither Slack nor PagerDuty, so nobody is asked or "
            f"called. Give SlackSecretArn and SlackChannel, or PagerDutySecretArn."
        )
        return Finding(name, WARN, 0, words)
    said = " and ".join(sorted(seen.channels))
    return Finding(name, OK, len(seen.channels), f"The stack in {region} can tell {said}.")


def _alike(service: Service, inventory: Inventory) -> Finding:
    here, there = (inventory.stacks[role] for role in ROLES)
    regions = f"{service.regions['primary']} and {service.regions['standby']}"
    deploy = "Deploy one build with the same parameters to both (`sam deploy --config-env …`)."
    if here.settings is None or there.settings is None:
        words = f"The stacks' parameters in {regions} were not read in full."
        return Finding("stack:alike", UNKNOWN, None, words)
    differ = [
        one
        for one in sorted(here.settings.keys() | there.settings.keys())
        if here.settings.get(one) != there.settings.get(one)
    ]
    differ += ["the code"] if here.code_sha256 != there.code_sha256 else []
    if differ:
        words = f"The stacks in {regions} are not alike: {', '.join(differ)}. {deploy}"
        return Finding("stack:alike", WARN, len(differ), words)
    return Finding("stack:alike", OK, 0, f"The stacks in {regions} are alike.")


def _approvers(service: Service, inventory: Inventory) -> list[Finding]:
    there = inventory.stacks.get("standby")
    gone = there is not None and there.deployed is False
    return [] if gone else [_who_approves(service, inventory)]


def _who_approves(service: Service, inventory: Inventory) -> Finding:
    name = "approvers"
    seen = {role: inventory.stacks.get(role) for role in ROLES}
    known = {role: one.approvers for role, one in seen.items() if one is not None and one.deployed}
    there = known.get("standby")
    if there is None:
        words = "Who may approve a failover was not seen: see the stack's parameter Approvers."
        return Finding(name, UNKNOWN, None, words)
    region, home = service.regions["standby"], service.regions["primary"]
    if not there:
        words = f"Nobody may approve a failover: the stack's Approvers in {region} is empty."
        return Finding(name, WARN if service.unattended else BAD, 0, words)
    if len(there) < _TWO and service.stores:
        words = (
            f"Only {there[0]} is among the stack's Approvers in {region}, and two have to say yes "
            f"where latest writes are given up. Add others."
        )
        return Finding(name, WARN, len(there), words)
    back, primary = known.get("primary"), seen["primary"]
    if back is None and primary is not None and primary.deployed is False:
        # That there is no stack to go back by is said already.
        return Finding(
            name, OK, len(there), f"There are people enough who may approve in {region}."
        )
    if back is None:
        words = f"Who may approve a failback was not seen: see the stack's Approvers in {home}."
        return Finding(name, UNKNOWN, None, words)
    strange = [one for one in service.approvers if one not in back]
    if strange:
        words = (
            f"Of the file's failback.approvers, {', '.join(strange)} may not approve: the stack's "
            f"Approvers in {home} do not name them. Add them there, or take them out of the file."
        )
        return Finding(name, WARN, len(strange), words)
    may = service.approvers or back
    if len(may) < _TWO:
        words = (
            f"Fewer than two people may approve a failback ({', '.join(may) or 'nobody'}), which "
            f"takes two. Add others to failback.approvers and to the stack's Approvers in {home}."
        )
        return Finding(name, WARN, len(may), words)
    return Finding(name, OK, len(there), "There are people enough who may approve.")


def _opted_in(service: Service, inventory: Inventory) -> list[Finding]:
    name, wanted = "opted_in", tagged(service)
    if not wanted:
        return []
    tags = {one: inventory.tags.get(one) for one in wanted}
    read = {one: had for one, had in tags.items() if had is not None}
    lack = [one for one, had in read.items() if had.get(OPT_IN_TAG) != OPT_IN_VALUE]
    if lack:
        words = (
            f"Not opted in, so a run would stop there: {_few(tuple(lack))}. Its owner can: "
            f"`{_tag_command(lack[0])}`."
        )
        return [Finding(name, BAD, len(lack), words)]
    unseen = tuple(one for one in wanted if one not in read)
    if unseen:
        words = f"Whether these are opted in was not read: {_few(unseen)}."
        return [Finding(name, UNKNOWN, len(unseen), words)]
    words = f"All {len(wanted)} that a run may change have the tag {OPT_IN_TAG}={OPT_IN_VALUE}."
    return [Finding(name, OK, len(wanted), words)]


def _tag_command(arn: str) -> str:
    parts = arn.split(":")
    if parts[2] == "ecs":
        return (
            f"aws ecs tag-resource --region {parts[3]} --resource-arn {arn} --tags "
            f"key={OPT_IN_TAG},value={OPT_IN_VALUE}"
        )
    # A version or alias has its function's tags.
    whose = ":".join(parts[:7])
    return (
        f"aws lambda tag-resource --region {parts[3]} --resource {whose} --tags "
        f"{OPT_IN_TAG}={OPT_IN_VALUE}"
    )
