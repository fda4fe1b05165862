"""Check the AWS CLI commands that contracts, machines and documents tell people to type.

The CLI makes its commands and options from botocore's models, so these are compared with the same
models: https://docs.aws.amazon.com/cli/latest/reference/.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.exceptions import UnknownServiceError
from botocore.model import (
    ListShape,
    MapShape,
    OperationModel,
    ServiceModel,
    Shape,
    StringShape,
    StructureShape,
)

from tools.checks.finding import Finding

_COMMAND = re.compile(r"\baws ([a-z0-9-]+) ([a-z0-9-]+)((?:[^\S\n]+[^\s`|;]+)*)")
_OPTION = re.compile(r"--([a-z][a-z0-9-]*)")
# What whoever pastes a command replaces, and what the CLI reads from a file.
_OPEN = re.compile(r"[A-Z][A-Z0-9_]*|file(b)?://.*")
# https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-options.html
_GLOBAL = frozenset(
    {
        "cli-binary-format",
        "cli-input-json",
        "debug",
        "endpoint-url",
        "no-cli-pager",
        "no-paginate",
        "max-items",
        "output",
        "profile",
        "query",
        "region",
    }
)
# Commands that the CLI adds to what the models hold.
_CUSTOM_SERVICES = frozenset({"configure", "s3", "sso"})
_CUSTOM_OPERATIONS = frozenset({("logs", "tail")})
# Options by which the CLI builds one of the model's: awscli/customizations/putmetricdata.py.
_CUSTOM_OPTIONS = {
    ("cloudwatch", "PutMetricData"): frozenset({"dimensions", "metric-name", "unit", "value"})
}
_CLI_NAMES = {"s3api": "s3", "deploy": "codedeploy", "configservice": "config"}


@cache
def _model(service: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(_CLI_NAMES.get(service, service))


def check_commands(where: str, text: str) -> list[Finding]:
    """Return what the AWS CLI would not understand of the `aws …` commands in a text."""
    return sorted(
        finding
        for service, operation, rest in _COMMAND.findall(text)
        for finding in _command(where, service, operation, rest)
    )


def _command(where: str, service: str, operation: str, rest: str) -> Iterator[Finding]:
    try:
        words = shlex.split(rest)
    except ValueError:
        yield Finding("command", where, f"aws {service} {operation}: a quote is not closed")
        return
    if service in _CUSTOM_SERVICES or (service, operation) in _CUSTOM_OPERATIONS:
        return
    try:
        model = _model(service)
    except UnknownServiceError:
        yield Finding("command", where, f"aws has no service {service}")
        return
    names = {xform_name(name, "-"): name for name in model.operation_names}
    if operation not in names:
        yield Finding("command", where, f"aws {service} has no {operation}")
        return
    for wrong in _wrong(model.operation_model(names[operation]), words):
        yield Finding("command", where, f"aws {service} {operation} {wrong}")


def _wrong(operation: OperationModel, words: Sequence[str]) -> Iterator[str]:
    """Say what is wrong with a command's options, to be read after its name."""
    shape = operation.input_shape
    members: dict[str, Shape] = {
        xform_name(name, "-"): one for name, one in (shape.members if shape else {}).items()
    }
    members |= {f"no-{name}": one for name, one in members.items() if one.type_name == "boolean"}
    options: dict[str, list[str]] = {}
    for word in words:
        if option := _OPTION.fullmatch(word):
            options[option[1]] = last = []
        elif options:
            last.append(word)
    if not options:
        return  # a command's name in a sentence
    name = (operation.service_model.service_name, operation.name)
    built = _CUSTOM_OPTIONS.get(name, frozenset())
    for unknown in options.keys() - members.keys() - _GLOBAL - built:
        yield f"has no --{unknown}"
    required = {xform_name(name, "-") for name in (shape.required_members if shape else ())}
    missing = required - options.keys()
    if missing and "cli-input-json" not in options:
        yield f"lacks --{', --'.join(sorted(missing))}"
    yield from _values(members, options)
    beyond = [word for name, own in options.items() for word in own[_takes(members, name) :]]
    if operation.has_streaming_output and not beyond:
        yield "lacks the file that the answer is written to"


def _takes(members: Mapping[str, Shape], option: str) -> int | None:
    """Return how many of the words after an option are its own; None for all."""
    kind = members[option].type_name if option in members else "string"
    return {"boolean": 0, "list": None}.get(kind, 1)


def _values(members: Mapping[str, Shape], options: Mapping[str, Sequence[str]]) -> Iterator[str]:
    as_it_is = options.get("cli-binary-format", [])[:1] == ["raw-in-base64-out"]
    for option in members.keys() & options.keys():
        shape, values = members[option], options[option][: _takes(members, option)]
        if shape.type_name == "boolean":
            continue
        if not values:
            yield f"--{option} lacks a value"
        for wrong in (wrong for value in values for wrong in _value(shape, value)):
            yield f"--{option}: {wrong}"
        # https://docs.aws.amazon.com/cli/latest/userguide/cliv2-migration-changes.html
        if shape.type_name == "blob" and not as_it_is and not any(map(_OPEN.fullmatch, values)):
            yield f"--{option} lacks --cli-binary-format raw-in-base64-out"


def _value(shape: Shape, value: str) -> Iterator[str]:
    if value[:1] not in ("{", "[") or shape.type_name not in ("list", "map", "structure"):
        yield from _short(shape, value)
        return
    try:
        yield from _json(shape, json.loads(value))
    except ValueError:
        yield f"{value} is no JSON"


def _short(shape: Shape, value: str) -> Iterator[str]:
    """Check a scalar, or https://docs.aws.amazon.com/cli/latest/userguide/cli-usage-shorthand.html."""
    if _OPEN.fullmatch(value):
        return
    if isinstance(shape, ListShape):
        yield from _short(shape.member, value)
    elif isinstance(shape, StructureShape):
        for key in re.findall(r"(?:^|,)([^=,]*)", value):
            if key not in shape.members:
                yield f"there is no {key!r} in it"
    elif isinstance(shape, MapShape):
        if "=" not in value:
            yield f"{value} is no KEY=VALUE"
    else:
        yield from _json(shape, int(value) if value.isdigit() else value)


def _json(shape: Shape, value: Any) -> Iterator[str]:
    """Compare a value with its shape, as far as the CLI would refuse it."""
    if isinstance(value, str) and _OPEN.fullmatch(value):
        return
    if isinstance(shape, StructureShape):
        for key in value if isinstance(value, dict) else ["object"]:
            if key not in shape.members:
                yield f"there is no {key!r} in it"
            else:
                yield from _json(shape.members[key], value[key])
    elif isinstance(shape, ListShape):
        for one in value if isinstance(value, list) else [value]:
            yield from _json(shape.member, one)
    elif shape.type_name in ("integer", "long"):
        if not isinstance(value, int):
            yield f"{value!r} is no whole number"
    elif isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        yield f"{value!r} is none of {', '.join(shape.enum)}"
