"""`runbook play`: real trouble on the embedded AWS, and what on-call would have seen of it."""

from __future__ import annotations

import json
import os
import signal
import time
import webbrowser
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from rich.console import Console

from cli.outcomes import FAILED, exit_code
from cli.progress import Progress
from local.document import document, pagerduty_told, threads
from local.emulator import running_aws
from local.page.server import Page
from local.play import play
from local.playground import Playground
from local.stories import STORIES, in_mode
from local.troubles import Troubles
from local.watch import Watch
from oncall.errors import BadInput
from oncall.words import tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.aws import AwsAccount
    from local.play import Played
    from local.stories import Story
    from local.watch import Glance


_STAYS = "The story is over and all goes on: make more trouble, or end it: Ctrl-C in the terminal."
_LOOK_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Viewing:
    """How a play is seen: by default in the terminal alone."""

    port: int | None = None
    """Of the page; ``None`` for no page, 0 for any that is free."""
    browser: bool = False
    """Whether to open one with the page."""
    stays: bool = False
    """Whether all goes on after the story, for those who look at the page, until Ctrl-C."""


def play_story(
    name: str,
    *,
    output: str,
    endpoint_url: str | None,
    mode: str | None = None,
    viewing: Viewing | None = None,
) -> int:
    """Play, print, and return the exit code.

    Raises ``BadInput`` for a story that there is not, or a port that is taken.
    """
    if name not in STORIES:
        raise BadInput(
            f"story: there is no story {name!r}; there are {', '.join(STORIES)}. "
            f"Give for example runbook play {next(iter(STORIES))}."
        )
    story = in_mode(STORIES[name], mode) if mode else STORIES[name]
    seen = viewing or Viewing()
    if endpoint_url and story.own_aws:
        raise BadInput(
            f"--endpoint-url: {name} asks name servers, which only an emulator of its own has. "
            f"Leave it out and unset AWS_ENDPOINT_URL: runbook play {name}."
        )
    # A pipeline that cancels sends SIGTERM: tidy up as for Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        page = None if seen.port is None else stack.enter_context(Page(story, seen.port))
        if page and seen.browser:
            webbrowser.open(page.url)
        with Progress(Console(stderr=True), story.title, page.url if page else "") as progress:
            progress.say("Starting the embedded AWS, deploying the runbooks and the pilot")
            aws = stack.enter_context(running_aws(endpoint_url)) if endpoint_url else None
            ground = stack.enter_context(ground_of(story, aws))
            show = progress.show
            if page:
                page.attach(ground, stack.enter_context(Troubles(ground, story)))
                stack.callback(page.detach)
                show = _both(progress.show, page.show)
            played = play(story, ground, show)
        _print(played, output)
        if page and seen.stays:
            _stay(page, ground, story)
    return code_of(played)


def _both(one: Callable[[Glance], None], other: Callable[[Glance], None]) -> Callable[..., None]:
    def show(glance: Glance) -> None:
        one(glance)
        other(glance)

    return show


def _stay(page: Page, ground: Playground, story: Story) -> None:
    """Show what goes on, one run after the other, until Ctrl-C."""
    click.echo(f"The page stays at {page.url}; Ctrl-C ends it.", err=True)
    page.end(_STAYS)
    watch = Watch(ground, story)
    try:
        while True:
            glance = watch.look()
            page.show(glance)
            if glance.incident and watch.told(glance.incident):
                watch = Watch(ground, story)
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        watch.abort(page.show)


def _print(played: Played, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(document(played), indent=2, ensure_ascii=False))
    else:
        click.echo(told(played))
    for sentence in (played.overdue, *played.left):
        if sentence:
            click.echo(f"Not as it should be: {sentence.removesuffix('.')}.", err=True)


def ground_of(story: Story, aws: AwsAccount | None = None) -> Playground:
    """Return the playground that a story needs; not open yet."""
    return Playground(aws=aws, parameters=story.runbooks, pilot_parameters=story.pilot)


def code_of(played: Played) -> int:
    """Return 0 only for a resolved incident that has left nothing behind, or an observed one."""
    wanted = "observed" if played.story.mode == "observe" else "resolved"
    if played.outcome != wanted:
        return exit_code(played.outcome) or FAILED
    return FAILED if played.left else 0


def told(played: Played) -> str:
    """Say what on-call would have read, who was woken, what was changed, and when."""
    parts = [*threads(played), _pagerduty(played), _changes(played), _times(played)]
    return "\n\n".join(part for part in parts if part)


def _pagerduty(played: Played) -> str:
    woken = len(played.pagerduty.pages)
    times = "once" if woken == 1 else f"{woken} times"
    lines = ["PagerDuty: " + (f"on-call was woken {times}." if woken else "nobody was woken.")]
    lines += [f"   {one['kind']:<12} {one['summary']}" for one in pagerduty_told(played.pagerduty)]
    return "\n".join(lines)


def _changes(played: Played) -> str:
    changes = played.incident.changes if played.incident else ()
    if not changes:
        return f"Changes: {played.effect or 'none.'}"
    lines = ["Changes (before → after → now):"]
    for change in changes:
        now = tell(played.now[change.lever, change.resource])
        lines.append(f"   {change.name}: {tell(change.before)} → {tell(change.after)} → {now}")
    return "\n".join(lines)


def _times(played: Played) -> str:
    moments = {
        "alarm": played.alarm_after,
        "first change": played.first_change_after,
        played.story.relieved: played.relieved_after,
        "closed": played.ended_after,
    }
    said = [f"{name} after {seconds:.0f} s" for name, seconds in moments.items() if seconds]
    outcome = played.outcome.replace("_", " ").capitalize()
    left = "something is left behind" if played.left else played.story.left
    return f"{outcome}: {', '.join(said)}; {left}." if said else f"{outcome}; {left}."


def endpoint_of(option: str | None) -> str | None:
    """Return the emulator to play on: the option, else AWS_ENDPOINT_URL, else none."""
    return option or os.environ.get("AWS_ENDPOINT_URL") or None
