"""What the stories have shown: states and edges of the machines, and what each role has used."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from local.playground import REGION, ROOT, STACK
from tests.scenarios.world import World
from tools.checks import iam_rules, machines, template

_EXCEPTIONS = Path(__file__).parent / "exceptions.yaml"

_REFUSED = 400
_NAMED_IN_THE_TEMPLATE = {"AWS::SSM::Parameter", "AWS::StepFunctions::StateMachine"}
# Condition keys that AWS fills in: that only tagged resources are written, only leases deleted, and
# metrics only put into one namespace, is proved by the stories themselves. What has a prefix lists
# an incident's archive, and the keys that the embedded AWS asks for are those of buckets.
_CONTEXT = {
    "kms:ViaService": f"s3.{REGION}.amazonaws.com",
    "s3:prefix": "incidents/",
    "aws:ResourceTag/runbook-automation": "enabled",
    "dynamodb:LeadingKeys": "SETTING#",
    "cloudwatch:namespace": "Failover",
}

type Json = dict[str, Any]


@dataclass
class Coverage:
    """What was seen, of all worlds and (under xdist) all workers; lists, so that it can travel."""

    machines: set[str] = field(default_factory=set)
    """Ids of what is deployed."""
    edges: set[tuple[str, str]] = field(default_factory=set)
    """Machine and edge, such as ``("queue-saturation", "Hand over -> Close …")``."""
    calls: set[tuple[str, str, str]] = field(default_factory=set)
    """Role's logical id, action, resource."""
    stories: set[str] = field(default_factory=set)
    """Each as ``runbook/name``."""
    unpermitted: set[str] = field(default_factory=set)
    """Calls that were answered although the template's policies do not allow them."""

    def watch(self, world: World) -> None:
        """Take in what has happened in a world."""
        for machine in world.machines:
            self.machines.add(machine)
            for execution in world.executions(machine):
                seen = _edges(world.history(execution))
                self.edges |= {(machine, edge) for edge in seen}
        self.unpermitted |= _unpermitted(world)
        names = _roles(world)
        for role, calls in world.aws.calls.by_role().items():
            if role in names:
                self.calls |= {
                    (names[role], call.action, _generic(call.resource, world)) for call in calls
                }

    def merge(self, other: Mapping[str, Iterable[Any]]) -> None:
        """Take in what another worker has seen."""
        self.machines |= set(other["machines"])
        self.edges |= {(machine, edge) for machine, edge in other["edges"]}
        self.calls |= {(role, action, resource) for role, action, resource in other["calls"]}
        self.stories |= set(other["stories"])
        self.unpermitted |= set(other["unpermitted"])

    def to_json(self) -> Json:
        """Return what can be sent to the controller."""
        return {name: [*map(_plain, sorted(getattr(self, name)))] for name in vars(self)}

    def findings(self) -> list[str]:
        """Return what is missing and not excused, and excuses that are none any more."""
        excused = yaml.safe_load(_EXCEPTIONS.read_text("utf-8"))
        found = sorted(self.unpermitted)
        for machine, definition in self._deployed():
            entered = {state for one, edge in self.edges if one == machine for state in _ends(edge)}
            missing = set(definition["States"]) - entered
            reasons = excused["states"].get(machine) or {}
            found += [f"{machine}: no story enters {s!r}" for s in sorted(missing - set(reasons))]
            found += [f"{machine}: {s!r} is entered by now" for s in sorted(set(reasons) - missing)]
        deployed = template.translate(template.load(ROOT / "template.yaml"), ROOT)
        calls = [
            SimpleNamespace(role=role, action=action, resource=resource)
            for role, action, resource in sorted(self.calls)
        ]
        reasons = {
            (role, action): reason
            for role, actions in (excused["actions"] or {}).items()
            for action, reason in actions.items()
        }
        shared = tuple(f"{action} is allowed" for action in excused["everywhere"])
        idle = map(str, iam_rules.unused(calls, deployed, reasons))
        return found + [one for one in idle if not any(words in one for words in shared)]

    def untaken(self) -> list[str]:
        """Return the edges of the machines that no story took."""
        return [
            f"{machine}: {edge}"
            for machine, definition in self._deployed()
            for edge in _defined(definition)
            if (machine, edge) not in self.edges
        ]

    def _deployed(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for machine, definition in machines.load(ROOT / "statemachines").items():
            if machine in self.machines:
                yield machine, definition


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _ends(edge: str) -> list[str]:
    before, _, after = edge.partition(" -> ")
    return [before.partition(" [")[0], after] if after else [before]


def _unpermitted(world: World) -> set[str]:
    """Judge the calls that were answered by the template's own policies, by a second evaluator.

    The embedded AWS enforces the roles as well, but does not know every action and condition.
    """
    stacks = world.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    names = {one["ParameterKey"]: one["ParameterValue"] for one in stacks[0]["Parameters"]}
    names |= {"AWS::AccountId": world.aws.account, "AWS::Region": world.aws.region}
    names |= {
        one["LogicalResourceId"]: _ref(one)
        for one in _stack_resources(world)
        if one["ResourceType"] not in _NAMED_IN_THE_TEMPLATE
    }
    deployed = template.translate(template.load(ROOT / "template.yaml"), ROOT)
    answered = [call for call in list(world.aws.calls) if call.status < _REFUSED]
    found = iam_rules.unpermitted(answered, deployed, names, lambda _: _CONTEXT)
    return set(map(str, found))


def _ref(resource: Mapping[str, str]) -> str:
    """Return what Ref gives: an ARN of topics, of others that are named here the name."""
    name = resource["PhysicalResourceId"]
    return name if resource["ResourceType"] == "AWS::SNS::Topic" else re.split("[:/]", name)[-1]


def _roles(world: World) -> Mapping[str, str]:
    """Return logical ids of the deployment's roles by their names."""
    return {
        one["PhysicalResourceId"]: one["LogicalResourceId"]
        for one in _stack_resources(world)
        if one["ResourceType"] == "AWS::IAM::Role"
    }


def _stack_resources(world: World) -> list[Mapping[str, str]]:
    pages = (
        world.client("cloudformation")
        .get_paginator("list_stack_resources")
        .paginate(StackName=STACK)
    )
    return [dict(one) for page in pages for one in page["StackResourceSummaries"]]


def _generic(resource: str, world: World) -> str:
    return resource.replace(world.aws.account, "123456789012")


def _edges(events: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Read the edges out of a history; ``A [Error] -> B`` is a Catch, ``A retries`` a Retry."""
    state, scheduled, error = "", 0, ""
    for event in events:
        if "stateEnteredEventDetails" in event:
            name = event["stateEnteredEventDetails"]["name"]
            if state:
                yield f"{state} [{error}] -> {name}" if error else f"{state} -> {name}"
            state, scheduled, error = name, 0, ""
            yield state
        elif event["type"] in {"TaskScheduled", "LambdaFunctionScheduled"}:
            scheduled += 1
            if error:
                yield f"{state} retries"
            error = ""
        elif event["type"] == "TaskFailed":
            error = event["taskFailedEventDetails"].get("error", "?")
        elif event["type"] == "TaskTimedOut":
            error = event["taskTimedOutEventDetails"].get("error", "States.Timeout")
        elif event["type"] == "TaskSucceeded":
            error = ""


def _defined(definition: Mapping[str, Any]) -> Iterator[str]:
    for name, state in definition["States"].items():
        following = [state.get("Next"), state.get("Default")]
        following += [choice["Next"] for choice in state.get("Choices", [])]
        yield from (f"{name} -> {one}" for one in following if one)
        if state.get("Retry"):
            yield f"{name} retries"
        for catch in state.get("Catch", []):
            yield from (f"{name} [{error}] -> {catch['Next']}" for error in catch["ErrorEquals"])
