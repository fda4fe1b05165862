"""The `runbook` command and its subcommands.

What a command does is imported when it runs: `runbook --help` does not wait for AWS's SDK.
"""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

from cli import completion
from cli.options import ALL, on_stack, play_defaults, shared
from cli.outcomes import CTRL_C

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.connection import Deployed

MODES = ("observe", "ask", "auto")
"""As in ``oncall.contract``, which takes longer to import than this command's help may."""
_AS_JSON = "cli.as_json"


class Commands(click.Group):
    """Says in a sentence what is wrong, and ends with the exit code that belongs to it.

    Who has asked for JSON gets ``{"error", "message", "exit_code"}`` on stdout as well.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether JSON was asked for: what is wrong may be wrong with the arguments."""
        separate = ("--output", "json") in pairwise(args)
        ctx.meta[_AS_JSON] = "--output=json" in args or separate
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; errors that are a person's to fix are not tracebacks."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            _as_json(ctx, "BadInput", error.format_message(), error.exit_code)
            raise
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            sys.exit(CTRL_C)
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            from cli.faults import fault_of

            fault = fault_of(error)
            if fault is None:
                raise
            _as_json(ctx, type(error).__name__, fault.sentence, fault.exit_code)
            click.echo(f"runbook: {fault.sentence}", err=True)
            sys.exit(fault.exit_code)


def _as_json(ctx: click.Context, name: str, message: str, code: int) -> None:
    if ctx.meta.get(_AS_JSON) or ctx.params.get("output") == "json":
        from cli import show

        show.document({"error": name, "message": message, "exit_code": code})


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@shared(*ALL, group=True)
@click.pass_context
def main(ctx: click.Context, /, **given: Any) -> None:
    r"""Watch and steer the runbooks that act on production.

    What is asked for goes to stdout, all talk to stderr. The options may stand before the command
    or after it. INCIDENT is an incident's id or its execution's ARN.

    \b
    Exit codes of run and watch, which are those of the run:
      0    verified that it helped, or observed
      1    failed: did not help, was refused, broke; or AWS did not do it
      2    bad input, or credentials that AWS does not take
      3    rejected, or nobody answered in time
      4    handed over to a human
      5    aborted
      130  Ctrl-C: the watching has ended, the run goes on
    Other commands: 0 done, 1 not done, 2 bad input.
    """
    ctx.default_map = {"play": play_defaults(given)}


@main.command()
@click.argument("story", shell_complete=completion.stories)
@click.option("--headless", is_flag=True, help="No page, for pipelines.")
@click.option("--mode", type=click.Choice(MODES), help="The runbook's own otherwise.")
@click.option("--port", type=click.IntRange(0, 65535), help="Of the page, also without a terminal.")
@click.option("--exit", "exits", is_flag=True, help="End with the story; the page stays otherwise.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--endpoint-url", help="Play on this running emulator [AWS_ENDPOINT_URL].")
def play(  # noqa: PLR0917 -- click passes them by name
    story: str,
    headless: bool,  # noqa: FBT001 -- click passes flags so
    mode: str | None,
    port: int | None,
    exits: bool,  # noqa: FBT001 -- as above
    output: str,
    endpoint_url: str | None,
) -> None:
    """Make real trouble on the embedded AWS and watch the runbook deal with it.

    On a terminal a page opens: the machine, the Slack thread with working buttons, the plot, and
    more trouble to make. It stays after the story until Ctrl-C.

    STORY is queue-saturation, lambda-throttles, dlq-replay or route53-failover;

    or kill-switch: a saturated queue, the automation stopped;

    or dlq-replay-too-early: dead letters, their consumer still failing.
    """
    from cli.play import Viewing, endpoint_of, play_story
    from oncall.errors import BadInput

    if headless and port is not None:
        raise BadInput("--port: there is no page with --headless. Give for example --port 8080.")
    at_terminal = sys.stdout.isatty() and sys.stderr.isatty()
    shown = not headless and (at_terminal or port is not None)
    viewing = Viewing(
        port=(port or 0) if shown else None,
        browser=at_terminal and _has_browser(),
        stays=not exits,
    )
    code = play_story(
        story, output=output, endpoint_url=endpoint_of(endpoint_url), mode=mode, viewing=viewing
    )
    sys.exit(code)


def _has_browser() -> bool:
    """Whether there is a screen: without one, a browser would take the terminal."""
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform in {"darwin", "win32"} or any(os.environ.get(one) for one in screens)


@main.command("list")
@click.option("--open", "only_open", is_flag=True, help="Only what is open.")
@click.option("--runbook", help="Only this runbook's.", shell_complete=completion.runbooks)
@click.option("--runbooks", is_flag=True, help="The runbooks themselves, and which are deployed.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@on_stack
def list_incidents(  # noqa: PLR0917 -- click passes them by name
    deployed: Deployed,
    only_open: bool,  # noqa: FBT001 -- click passes flags so
    runbook: str | None,
    runbooks: bool,  # noqa: FBT001 -- click passes flags so
    limit: int,
    output: str,
) -> None:
    """List incidents, or runbooks.

    What needs you now comes first, then the latest.

    Lines of --output text: incident, runbook, target, mode, state, open, started, took and age in
    seconds, whether it needs you now, and for what.
    """
    from cli import incidents, show
    from oncall import contract as contracts

    if runbooks:
        show.overview(incidents.runbooks(deployed), output)
        return
    name = contracts.load(runbook).id if runbook else ""
    found = incidents.listed(deployed, limit=limit, runbook=name, only_open=only_open)
    incidents.show_list(found, output)


@main.command()
@click.argument("incident", shell_complete=completion.incidents(completion.is_open))
@on_stack
def watch(deployed: Deployed, incident: str, output: str) -> None:
    """Follow INCIDENT until it closes. Ctrl-C ends the watching, never the run.

    --output json prints the whole record once it has closed, and the timeline on stderr;
    text prints time, kind and text, the last line's kind being outcome.
    """
    from cli.follow import follow
    from cli.incidents import id_of

    sys.exit(follow(deployed, id_of(incident), output))


@main.command()
@click.argument("runbook", shell_complete=completion.runbooks)
@click.argument("inputs", nargs=-1, metavar="KEY=VALUE...", shell_complete=completion.inputs)
@click.option("--mode", type=click.Choice(MODES), help="The runbook's own otherwise.")
@click.option("--reason", default="", help="Why, for the incident's record.")
@click.option("--no-wait", is_flag=True, help="Do not follow the run.")
@on_stack
def run(  # noqa: PLR0917 -- click passes them by name
    deployed: Deployed,
    runbook: str,
    inputs: tuple[str, ...],
    mode: str | None,
    reason: str,
    no_wait: bool,  # noqa: FBT001 -- click passes flags so
    output: str,
) -> None:
    """Start RUNBOOK by hand and follow it.

    For example: runbook run queue-saturation queue=orders

    The input may be JSON as in the console: runbook run queue-saturation '{"queue": "orders"}'.
    What a runbook needs: runbook explain RUNBOOK. See first what it would do: --mode observe.
    """
    from cli import incidents, show
    from cli.follow import run_to_end

    given = incidents.read_input(runbook, inputs, mode, reason)
    execution = incidents.start(deployed, runbook, given)
    if not no_wait:
        sys.exit(run_to_end(deployed, execution, output))
    started = {"incident": incidents.id_of(execution), "execution": execution}
    if output == "json":
        show.document(started)
    else:
        click.echo(started["incident"])


@main.command()
@click.argument("subject", required=False, shell_complete=completion.subjects)
@click.argument("inputs", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=completion.inputs)
@on_stack
def explain(deployed: Deployed, subject: str | None, inputs: tuple[str, ...], output: str) -> None:
    """Explain a runbook or an incident.

    Of a runbook: what it means, what it will and will never do, each state with the command to do
    it and to undo it by hand; asks nothing of AWS. Of an incident: what happened, why this plan,
    what was changed and how to undo it, what it waits for. Without SUBJECT: the runbooks.
    """
    from cli import explain as explains
    from cli import incidents, show
    from oncall import contract as contracts

    if not subject:
        show.overview(explains.overview(), output)
    elif subject in contracts.names():
        given = incidents.read_input(subject, inputs, None, "") if inputs else None
        about = explains.runbook(subject, deployed.stack, given)
        show.sections(about, explains.RUNBOOK, output)
    else:
        one = explains.find(deployed, incidents.id_of(subject), inputs)
        show.sections(explains.incident(one), explains.INCIDENT, output)


@main.command()
@click.argument("incident", shell_complete=completion.incidents(completion.any_, only_open=False))
@on_stack
def report(deployed: Deployed, incident: str, output: str) -> None:
    """Print the report of INCIDENT.

    It is Markdown; with --output json the whole record.
    """
    from cli import incidents

    click.echo(incidents.report(deployed, incidents.id_of(incident), output), nl=False)


@main.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=completion.services)
@click.option("--stack", default="runbooks", show_default=True, help="Name of the stack.")
@shared("profile", "output")
def doctor(services: tuple[str, ...], stack: str, profile: str | None, output: str) -> None:
    """Check whether SERVICE could be failed over tonight; without it, every service file's.

    Reads with your credentials and changes nothing. Exit codes: 0 all ok or warn, 1 anything bad
    or not seen, 2 bad input.
    """
    from cli import doctor as doctors

    found = doctors.examine(services, stack, profile)
    doctors.show(found, output)
    sys.exit(doctors.exit_code(found))


@main.command("completion")
@click.argument("shell", type=click.Choice(list(completion.SHELLS)))
def print_completion(shell: str) -> None:
    r"""Print the completion script of SHELL.

    It completes commands, options, runbooks, inputs, stories and incidents.

    \b
    bash  in ~/.bashrc   eval "$(runbook completion bash)"
    zsh   in ~/.zshrc    eval "$(runbook completion zsh)"   after compinit
    fish                 runbook completion fish > ~/.config/fish/completions/runbook.fish

    `runbook` has to be on PATH.
    """
    click.echo(completion.script(shell, main))


def _decision(name: str, kind: str, fits: Callable[[Any], bool], text: str) -> None:
    @click.argument("incident", shell_complete=completion.incidents(fits))
    @click.option("--by", help="Your IAM ARN; as AWS knows you unless it is given.")
    @click.option("--reason", default="", help="Why, for the incident's record.")
    @on_stack
    def decide(deployed: Deployed, incident: str, output: str, **given: Any) -> None:
        from cli import decide as decides
        from cli.incidents import id_of

        made = decides.decide(deployed, kind, id_of(incident), **given)
        sys.exit(decides.told(made, output))

    if kind in {"approve", "reject"}:
        asked = "The question that you have read (explain shows it); the one that waits otherwise."
        decide = click.option("--ask", help=asked)(decide)
    codes = "Exit codes: 0 recorded, 1 not recorded, 2 bad input."
    main.command(name, help=f"{text}\n\n{codes}")(decide)


_decision(
    "approve",
    "approve",
    completion.asks,
    "Approve the plan of INCIDENT. Where two must approve, it waits for the second.",
)
_decision("reject", "reject", completion.asks, "Reject the plan of INCIDENT. Nothing is changed.")
_decision("abort", "abort", completion.is_open, "Stop INCIDENT and put back what it changed.")
_decision(
    "takeover",
    "take_over",
    completion.is_open,
    "Stop INCIDENT and leave it to you. Its changes stay; the commands to undo them are told.",
)
