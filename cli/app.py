"""The `runbook` command and its subcommands."""

from __future__ import annotations

import sys

import click

from cli.outcomes import BAD_INPUT, CTRL_C
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
@click.option("--headless", is_flag=True, help="No page and no questions: for pipelines.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--endpoint-url", help="Play on this running emulator [AWS_ENDPOINT_URL].")
def play(story: str, headless: bool, output: str, endpoint_url: str | None) -> None:  # noqa: ARG001, FBT001 -- there is no page yet that --headless would leave out
    """Make real trouble on the embedded AWS and watch the runbook deal with it.

    STORY is queue-saturation, or kill-switch for the same trouble with the automation stopped.
    """
    from cli.play import endpoint_of, play_story  # noqa: PLC0415 -- brings the emulator: 1 s

    code = play_story(story, output=output, endpoint_url=endpoint_of(endpoint_url))
    sys.exit(code)
