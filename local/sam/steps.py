"""The template's functions, as they are named by people and as they are deployed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from samtranslator.yaml_helper import yaml_parse

from oncall.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import boto3

_FUNCTION = "AWS::Serverless::Function"


@dataclass(frozen=True, slots=True)
class Step:
    """One function of the template."""

    id: str
    """Its logical id, ``InspectQueueFunction``."""
    verb: str
    """The module of its handler, ``inspect_queue``, which its event is named like."""
    code: str
    """Its ``CodeUri``, relative to the template."""


def read(template: Path) -> tuple[Step, ...]:
    """Return the functions of a template or, under ``.aws-sam/build``, of a built one."""
    parsed = yaml_parse(template.read_text("utf-8"))
    shared = parsed.get("Globals", {}).get("Function", {}).get("CodeUri", "")
    return tuple(
        Step(
            name,
            str(resource["Properties"]["Handler"]).removesuffix(".handler"),
            str(resource["Properties"].get("CodeUri", shared)),
        )
        for name, resource in parsed["Resources"].items()
        if resource["Type"] == _FUNCTION
    )


def find(steps: Sequence[Step], name: str) -> Step:
    """Return the function with this logical id or verb. Raises ``BadInput``."""
    for step in steps:
        if name in {step.id, step.verb, step.verb.replace("_", "-")}:
            return step
    raise BadInput(
        f"FUNCTION: there is no function {name!r}; there are "
        f"{', '.join(step.verb for step in steps)}. Give for example FUNCTION={steps[0].verb}."
    )


def read_event(path: Path) -> Any:
    """Read an event. Raises ``BadInput`` for a file that is missing or no JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"EVENT: {path} cannot be read ({error}). Give for example "
            f"EVENT=events/inspect_queue.json."
        ) from error


def deployed(session: boto3.Session, stack: str) -> dict[str, str]:
    """Return the name of each function of a stack by its logical id. Raises ``BadInput``."""
    pages = session.client("cloudformation").get_paginator("list_stack_resources")
    try:
        return {
            resource["LogicalResourceId"]: resource["PhysicalResourceId"]
            for page in pages.paginate(StackName=stack)
            for resource in page["StackResourceSummaries"]
            if resource["ResourceType"] == "AWS::Lambda::Function"
        }
    except ClientError as error:
        # ListStackResources: "Stack with id … does not exist" is a ValidationError.
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        raise BadInput(
            f"STACK: there is no stack {stack!r} in {session.region_name}, and a step needs its "
            f"table. Deploy it, for example python -m local.aws --playground."
        ) from error


def configuration(session: boto3.Session, function: str) -> Mapping[str, Any]:
    """Return what ``GetFunctionConfiguration`` says: Handler, Timeout, Environment and the rest."""
    return dict(session.client("lambda").get_function_configuration(FunctionName=function))


def variables(configuration: Mapping[str, Any], endpoint_url: str) -> dict[str, str]:
    """Return a function's variables; its AWS is at ``endpoint_url``, or AWS's own for ``""``."""
    found = configuration.get("Environment", {}).get("Variables", {})
    return {**found, "AWS_ENDPOINT_URL": endpoint_url}


def failure(answer: str) -> str:
    """Return in a sentence why an answer is a failure; ``""`` for a good one.

    Neither `sam local invoke` nor the runtime interface emulator tells a failure by its exit code
    or status: an exception is an answer with ``errorType``, and a timeout is no answer or a text.
    """
    if answer.strip() in {"", "null"}:
        return "The function gave no answer: it ran out of time, or its container was unreachable."
    try:
        parsed = json.loads(answer)
    except ValueError:
        return f"The answer is no JSON: {answer.strip()}"
    if isinstance(parsed, dict) and "errorType" in parsed:
        return f"{parsed['errorType']}: {parsed.get('errorMessage', '')}"
    return ""
