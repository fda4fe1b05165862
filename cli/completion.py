"""Shell completion: click's own protocol, with the words that only this product knows.

https://click.palletsprojects.com/en/stable/shell-completion/. A completion never fails and never
keeps anybody waiting: what cannot be had within a second or so is not offered.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
)

from cli.options import deployed_by, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import click

    from oncall.incident import Incident

    type Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

VARIABLE = "_RUNBOOK_COMPLETE"
_LATEST = 30


class _Bash(BashComplete):
    """Puts no space after ``queue=``."""

    source_template = BashComplete.source_template.replace(
        "COMPREPLY+=($value)",
        "COMPREPLY+=($value)\n            [[ $value == *= ]] && compopt -o nospace",
    )


class _Zsh(ZshComplete):
    """Puts no space after ``queue=``; the keys of an input stand alone."""

    source_template = ZshComplete.source_template.replace(
        '    if [ -n "$completions" ]; then',
        '    local -a suffix\n    [[ "${response[*]}" == *=* ]] && suffix=(-S "")\n\n'
        '    if [ -n "$completions" ]; then',
    ).replace("compadd -U -V unsorted", 'compadd "${suffix[@]}" -U -V unsorted')


SHELLS: Mapping[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": FishComplete}


def script(shell: str, command: click.Command) -> str:
    """Return what a shell has to read to complete the words of `runbook`."""
    return SHELLS[shell](command, {}, "runbook", VARIABLE).source()


def runbooks(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the ids of the runbooks."""
    from oncall import contract as contracts  # noqa: PLC0415 -- only where it is asked for

    return _offered(incomplete, contracts.names())


def inputs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the keys of the runbook's input that are not given yet."""
    from oncall import contract as contracts  # noqa: PLC0415 -- only where it is asked for

    runbook = ctx.params.get("runbook") or ctx.params.get("subject")
    given = [str(word) for word in ctx.params.get("inputs") or ()]
    if runbook not in contracts.names():
        return []
    contract = contracts.load(str(runbook))
    # bash breaks words at "=": after "queue" and "=" a value is being typed.
    if given and (given[-1] == "=" or given[-1] in contract.inputs):
        return []
    used = {word.partition("=")[0] for word in given}
    return _offered(incomplete, (f"{key}=" for key in contract.inputs if key not in used))


def stories(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer what `runbook play` plays."""
    from local.stories import STORIES  # noqa: PLC0415 -- only where it is asked for

    return _offered(incomplete, STORIES)


def services(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the services that there are files of."""
    from oncall import service  # noqa: PLC0415 -- only where it is asked for

    return _offered(incomplete, service.names())


def incidents(fits: Callable[[Incident], bool], *, only_open: bool = True) -> Complete:
    """Return what offers the incidents that ``fits`` takes."""

    def offer(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = [one.id for one in _reached(ctx, only_open=only_open) if fits(one)]
        return _offered(incomplete, found)

    return offer


def is_open(incident: Incident) -> bool:
    """Whether an incident is open."""
    return incident.status == "open"


def asks(incident: Incident) -> bool:
    """Whether an incident waits for an answer."""
    from oncall.headline import waiting  # noqa: PLC0415 -- only where it is asked for

    return waiting(incident)


def any_(_incident: Incident) -> bool:
    """Take every incident."""
    return True


def subjects(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer what can be explained: runbooks, and where none fits, incidents."""
    return runbooks(ctx, param, incomplete) or incidents(any_, only_open=False)(
        ctx, param, incomplete
    )


def _offered(incomplete: str, words: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def _reached(ctx: click.Context, *, only_open: bool) -> list[Incident]:
    """Read incidents if the stack can be reached soon."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 -- brings botocore

    from cli.connection import IMPATIENT  # noqa: PLC0415 -- brings boto3
    from oncall.errors import OnCallError  # noqa: PLC0415 -- only where it is asked for

    named = (value_of(ctx, name) for name in ("stack", "profile", "region", "endpoint_url"))
    deployed = replace(deployed_by(*named), config=IMPATIENT)
    try:
        return deployed.open_incidents() if only_open else deployed.store.latest(_LATEST)
    except (BotoCoreError, ClientError, OnCallError):
        return []  # there is nobody to tell: a sentence here would end up in the command line
