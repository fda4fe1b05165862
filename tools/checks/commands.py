"""Check the AWS CLI commands that contracts, machines and documents tell people to type.

The CLI makes its commands and options from botocore's models, so these are compared with the same
models: https://docs.aws.amazon.com/cli/latest/reference/.
"""

import re
from collections.abc import Iterator
from functools import cache

import botocore.session
from botocore import xform_name
from botocore.exceptions import UnknownServiceError
from botocore.model import ServiceModel

from tools.checks.finding import Finding

_COMMAND = re.compile(r"\baws ([a-z0-9-]+) ([a-z0-9-]+)((?:[^\S\n]+[^\s`|;]+)*)")
_OPTION = re.compile(r"(?<!\S)--([a-z][a-z0-9-]*)")
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
    shape = model.operation_model(names[operation]).input_shape
    members = shape.members if shape is not None else {}
    options = {xform_name(name, "-") for name in members} | _GLOBAL
    options |= {
        f"no-{xform_name(name, '-')}" for name, one in members.items() if one.type_name == "boolean"
    }
    given = _OPTION.findall(rest)
    for option in given:
        if option not in options:
            yield Finding("command", where, f"aws {service} {operation} has no --{option}")
    required = {xform_name(name, "-") for name in (shape.required_members if shape else ())}
    missing = required - set(given)
    # Without any option it is a command's name in a sentence.
    if missing and given and "cli-input-json" not in given:
        yield Finding(
            "command", where, f"aws {service} {operation} lacks --{', --'.join(sorted(missing))}"
        )
