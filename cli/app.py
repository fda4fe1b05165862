"""The `runbook` command and its subcommands."""

from __future__ import annotations

import json
import os
import sys

import click
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
)

from cli import doctor as doctors
from cli import incidents
from cli.connection import Deployed, on_stack
from cli.outcomes import BAD_INPUT, CTRL_C, FAILED
from oncall import contract as contracts
from oncall.errors import BadInput, NotFound


class Commands(click.Group):
    """Says in a sentence what is wrong, and ends with the exit code that belongs to it."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; errors that are a person's to fix are not tracebacks."""
        try:
            return super().invoke(ctx)
        except (BadInput, NotFound) as error:
            click.echo(f"runbook: {error}", err=True)
            sys.exit(BAD_INPUT)
        except (NoCredentialsError, NoRegionError, ProfileNotFound) as error:
            example = "Give for example --profile prod --region eu-west-1."
            click.echo(f"runbook: {str(error).removesuffix('.')}. {example}", err=True)
            sys.exit(BAD_INPUT)
        except (ClientError, BotoCoreError) as error:
            click.echo(f"runbook: {error}", err=True)
            sys.exit(FAILED)
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            sys.exit(CTRL_C)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Watch and steer the runbooks that act on production.

    Exit codes: 0 verified, 1 failed, 2 bad input, 3 rejected or timed out, 4 handed over,
    5 aborted, 130 Ctrl-C.
    """


@main.command()
@click.argument("story")
@click.option("--headless", is_flag=True, help="No page, for pipelines.")
@click.option("--mode", type=click.Choice(contracts.MODES), help="The runbook's own otherwise.")
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
    from cli.play import Viewing, endpoint_of, play_story  # noqa: PLC0415 -- brings the emulator: 1 s

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
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@on_stack
def list_incidents(deployed: Deployed, limit: int, output: str) -> None:
    """List incidents, the latest first."""
    incidents.show_list(deployed.incidents()[:limit], output)


@main.command()
@click.argument("incident")
@on_stack
def watch(deployed: Deployed, incident: str, output: str) -> None:
    """Follow INCIDENT until it closes. Ctrl-C ends the watching, never the run."""
    sys.exit(incidents.follow(deployed, incident, output))


@main.command()
@click.argument("runbook")
@click.argument("inputs", nargs=-1, metavar="KEY=VALUE...")
@click.option("--mode", type=click.Choice(contracts.MODES), help="The runbook's own otherwise.")
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
    """Start RUNBOOK by hand and follow it: runbook run queue-saturation queue=orders."""
    given = incidents.read_input(runbook, inputs, mode, reason)
    execution = incidents.start(deployed, runbook, given)
    if no_wait:
        started = {"incident": execution.rsplit(":", 1)[-1], "execution": execution}
        click.echo(json.dumps(started) if output == "json" else started["incident"])
        return
    opened = incidents.wait_until_opened(deployed, execution)
    click.echo(f"Incident {opened.id}; Ctrl-C stops watching, not the run.", err=True)
    sys.exit(incidents.follow(deployed, opened.id, output))


@main.command()
@click.argument("incident")
@on_stack
def report(deployed: Deployed, incident: str, output: str) -> None:
    """Print the report of INCIDENT as Markdown, or its whole record as JSON."""
    click.echo(incidents.report(deployed, incident, output), nl=False)


@main.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--profile", help="Profile of the AWS configuration.")
@click.option(
    "--output", type=click.Choice(["table", "json", "text"]), default="table", show_default=True
)
def doctor(services: tuple[str, ...], profile: str | None, output: str) -> None:
    """Check whether SERVICE could be failed over tonight; without it, every service file's.

    Reads with your credentials and changes nothing. Exit codes: 0 all ok or warn, 1 anything bad
    or not seen, 2 bad input.
    """
    found = doctors.examine(services, profile)
    doctors.show(found, output)
    sys.exit(doctors.exit_code(found))


def _decision(name: str, kind: str, text: str) -> None:
    @main.command(name, help=text)
    @click.argument("incident")
    @click.option("--by", help="Your IAM ARN; as AWS knows you unless it is given.")
    @click.option("--reason", default="", help="Why, for the incident's record.")
    @on_stack
    def decide(deployed: Deployed, incident: str, by: str | None, reason: str, output: str) -> None:
        decision = {"incident": incident, "decision": kind, "by": by or deployed.caller()}
        if reason:
            decision["reason"] = reason
        sys.exit(incidents.decide(deployed, decision, output))


_decision("approve", "approve", "Approve the plan that INCIDENT asks about.")
_decision("reject", "reject", "Reject the plan that INCIDENT asks about.")
_decision("abort", "abort", "Stop the run of INCIDENT and put back what it has changed.")
_decision("takeover", "take_over", "Take INCIDENT over: the run ends, its changes stay.")
