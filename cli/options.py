"""The options that every command has, before its name or after it."""

from __future__ import annotations

import re
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.connection import Deployed

OUTPUTS = ("table", "json", "text")
DEFAULTS = {"stack": "runbooks", "output": "table"}
_PLAY = {"table": "text"}
"""What `runbook play`, which prints no table, calls an output."""
_OPTIONS: dict[str, dict[str, Any]] = {
    "stack": {"envvar": "RUNBOOK_STACK", "help": "Name of the stack  [runbooks]."},
    "profile": {"help": "Profile of the AWS configuration  [AWS_PROFILE]."},
    "region": {
        "envvar": ["AWS_REGION", "AWS_DEFAULT_REGION"],
        "help": "AWS Region  [AWS_REGION, else the profile's].",
    },
    "endpoint_url": {
        "envvar": "AWS_ENDPOINT_URL",
        "help": "An emulator's address  [AWS_ENDPOINT_URL].",
    },
    "output": {
        "type": click.Choice(OUTPUTS),
        "envvar": "RUNBOOK_OUTPUT",
        "help": "For people, programs or grep  [table].",
    },
}
ALL = tuple(_OPTIONS)


def shared(*names: str, group: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the named options; what it is not given is the group's, else the default.

    The group alone reads the environment, so that what is given before the command's name wins
    over that too.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_options(**given: Any) -> object:
            if not group:
                given |= {name: value_of(click.get_current_context(), name) for name in names}
            return command(**given)

        decorated: Callable[..., Any] = with_options
        for name in reversed(names):
            settings = dict(_OPTIONS[name])
            if not group:
                settings.pop("envvar", None)
            decorated = click.option(f"--{name.replace('_', '-')}", **settings)(decorated)
        return decorated

    return decorate


def value_of(ctx: click.Context, name: str) -> Any:
    """Return an option as it holds for a command: its own, the group's, or the default."""
    own = ctx.params.get(name)
    return own if own is not None else ctx.find_root().params.get(name) or DEFAULTS.get(name)


def play_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Return what stands before `play` as defaults of its own options."""
    return {
        name: _PLAY.get(value, value)
        for name, value in given.items()
        if name in {"output", "endpoint_url"} and value is not None
    }


def on_stack(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that find the stack, and ``deployed`` as its first argument."""

    @shared(*ALL)
    @wraps(command)
    def with_stack(
        stack: str, profile: str | None, region: str | None, endpoint_url: str | None, **others: Any
    ) -> object:
        return command(deployed_by(stack, profile, region, endpoint_url), **others)

    return with_stack


def deployed_by(
    stack: str, profile: str | None, region: str | None, endpoint_url: str | None
) -> Deployed:
    """Return the stack that the options name; nothing is asked of AWS yet.

    Raises ``BadInput`` for an address that is none.
    """
    from cli.connection import Deployed  # noqa: PLC0415 -- brings boto3: --help does without
    from oncall.errors import BadInput  # noqa: PLC0415 -- as above

    if endpoint_url and not re.fullmatch(r"https?://[^/\s]+/?", endpoint_url):
        raise BadInput(
            f"--endpoint-url: {endpoint_url!r} is no address. "
            f"Give for example --endpoint-url http://127.0.0.1:4566."
        )
    return Deployed(stack, profile or None, region or None, endpoint_url or None)
