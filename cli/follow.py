"""Following a run: its timeline as it grows, what it waits for, and how it has ended."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, Self

import click
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from cli import show
from cli.faults import fault_of
from cli.incidents import needed
from cli.outcomes import exit_code_of
from oncall.errors import BadInput, OnCallError
from oncall.headline import waiting
from oncall.reports import report_json
from oncall.texts import clock_utc
from oncall.times import parse
from oncall.words import tell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.connection import Deployed
    from oncall.incident import Entry, Incident

LOOK_SECONDS = 1.0
_LONGEST_WAIT = 15.0
_DOUBLINGS = 4
_RUNNING = "RUNNING"
_LOOKS_A_PULSE = 20
_STYLES = {
    "asked": "bold yellow",
    "paged": "bold red",
    "refused": "red",
    "changed": "cyan",
    "put_back": "cyan",
    "decided": "bold",
}
_COLUMN = 21
"""Where the text of an entry begins."""


class _Told(Protocol):
    def __call__(self, entry: Entry) -> None: ...


def run_to_end(deployed: Deployed, execution: str, output: str) -> int:
    """Follow an execution from its start to its end; return its exit code."""
    incident_id = execution.rsplit(":", 1)[-1]
    with _ctrl_c_leaves_it(incident_id), _Now() as now:
        now.show(f"Incident {incident_id} is being opened")
        _wait_until_opened(deployed, execution)
        show.say(f"Incident {incident_id}; Ctrl-C stops watching, not the run.")
    return follow(deployed, incident_id, output)


def follow(deployed: Deployed, incident_id: str, output: str) -> int:
    """Print the timeline as it grows until the incident closes; return its exit code.

    Raises ``NotFound``, and the errors of AWS that do not pass by themselves. Ctrl-C ends the
    watching alone.
    """
    told = _tell_line if output == "text" else _teller(err=output == "json")
    with _ctrl_c_leaves_it(incident_id), _Now() as now:
        incident = _follow(deployed, incident_id, told, now)
    if output == "json":
        click.echo(report_json(incident), nl=False)
    elif output == "text":
        show.lines([(incident.closed_at, "outcome", incident.outcome)])
    else:
        show.out().print(Text(_ending(incident), style="bold"), soft_wrap=True)
    for sentence in left_to_do(deployed, incident):
        show.say(sentence)
    return exit_code_of(incident)


@contextmanager
def _ctrl_c_leaves_it(incident_id: str) -> Iterator[None]:
    """Say on Ctrl-C, and when AWS may not be asked any more, that the run goes on."""
    again = f"the run goes on. Watch it again: runbook watch {incident_id}"
    try:
        yield
    except KeyboardInterrupt:
        show.say(f"Stopped watching; {again}")
        raise
    except Exception as error:
        if fault_of(error) and not isinstance(error, OnCallError):
            show.say(f"I cannot watch any more; {again}")
        raise


def _follow(deployed: Deployed, incident_id: str, told: _Told, now: _Now) -> Incident:
    shown = 0
    asked = ""
    machine = _Machine(deployed)
    for incident in _looks(deployed, incident_id):
        fresh = incident.entries[shown:]
        shown = len(incident.entries)
        question = str(incident.ask.get("id", "")) if waiting(incident) else ""
        if fresh:
            with now.hidden():
                for entry in fresh:
                    told(entry)
        if question and question != asked:
            show.say(_answer(incident))
        asked = question
        if incident.status != "open":
            return incident
        machine.look(incident)
        now.show(_status(incident))
    raise AssertionError(incident_id)  # looks do not end


def _looks(deployed: Deployed, incident_id: str) -> Iterator[Incident]:
    """Load the incident again and again; while AWS does not answer, wait longer and longer."""
    misses = 0
    looked = False
    while True:
        try:
            incident = deployed.store.load(incident_id)
        except Exception as error:
            fault = fault_of(error)
            if fault is None or not fault.passes or not (looked or fault.reached):
                raise
            if not misses:
                show.say(f"{fault.sentence} I try again; the run does not depend on it.")
            misses += 1
        else:
            if misses:
                show.say("AWS answers again.")
            misses, looked = 0, True
            yield incident
        time.sleep(min(_LONGEST_WAIT, LOOK_SECONDS * 2 ** min(misses, _DOUBLINGS)))


class _Machine:
    """Sees when the machine of an open incident is gone, so that nobody waits for it in vain."""

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed
        self._looks = 0
        self._asks = True

    def look(self, incident: Incident) -> None:
        """Ask Step Functions now and then, until it is gone or may not be asked."""
        self._looks += 1
        if not self._asks or not incident.execution or self._looks % _LOOKS_A_PULSE:
            return
        try:
            run = self._deployed.client("stepfunctions").describe_execution(
                executionArn=incident.execution
            )
        except (BotoCoreError, ClientError) as error:
            fault = fault_of(error)
            show.say(f"Whether its machine runs I cannot see: {fault.sentence if fault else error}")
            self._asks = False
            return
        if run["status"] != _RUNNING:
            show.say(
                f"Its machine has ended ({run['status']}) without closing the incident; "
                f"the sweeper ends it properly within five minutes."
            )
            self._asks = False


def _wait_until_opened(deployed: Deployed, execution: str) -> Incident:
    """Wait for the incident of an execution, which bears its name.

    Raises ``BadInput`` with the machine's sentence when it ends without one.
    """
    sfn = deployed.client("stepfunctions")
    name = execution.rsplit(":", 1)[-1]
    while True:
        # In this order: a run that has ended has written its incident before.
        run = sfn.describe_execution(executionArn=execution)
        incident = deployed.store.find(name)
        if incident is not None:
            return incident
        if run["status"] != _RUNNING:
            raise BadInput(str(run.get("cause") or run.get("error") or run["status"]))
        time.sleep(LOOK_SECONDS / 4)


# What is said


def _teller(*, err: bool) -> _Told:
    console = show.out()
    if err:
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)

    def told(entry: Entry) -> None:
        first, *rest = entry.text.splitlines() or [""]
        line = Text.assemble(
            (f"{parse(entry.at):%H:%M:%S}  ", "dim"),
            (f"{entry.kind.replace('_', ' '):<9}  ", _STYLES.get(entry.kind, "")),
            show.safe(first),
            *(f"\n{' ' * _COLUMN}{show.safe(part)}" for part in rest),
        )
        console.print(line, soft_wrap=True)

    return told


def _tell_line(entry: Entry) -> None:
    show.lines([(entry.at, entry.kind, entry.text)])


def _answer(incident: Incident) -> str:
    """Say how the question that waits is answered."""
    return (
        f"Answer by {clock_utc(str(incident.ask['deadline']))}: "
        f"runbook approve {incident.id}, or runbook reject {incident.id}"
    )


def _status(incident: Incident) -> str:
    """Say what goes on now, in a line."""
    done = incident.progress.get("done") if incident.phase in {"acting", "watching"} else None
    share = "" if done is None else f" {float(done):.0%}"
    said = f"{incident.phase.replace('_', ' ')}{share}: {incident.doing} {needed(incident)}"
    return show.safe(said)


def _ending(incident: Incident) -> str:
    """Say how it has ended; summaries of bad ends begin with the outcome."""
    outcome = incident.outcome.replace("_", " ").capitalize()
    said = show.safe(incident.summary)
    return said if said.startswith(outcome) else f"{outcome}: {said}"


def left_to_do(deployed: Deployed, incident: Incident) -> list[str]:
    """Say what is left to a person after a bad end: what to do, what to undo, where to read on."""
    if exit_code_of(incident) == 0:
        return []
    said = [f"You: {show.safe(needed(incident))}"] if needed(incident) else []
    said += [
        f"Undo: {show.safe(one.undo)}   ({one.name} is {tell(one.after)}, was {tell(one.before)})"
        for one in incident.changes
        if one.standing or one.state == "handed_over"
    ]
    holder = deployed.store.holder(incident.target) if incident.outcome == "refused" else ""
    if holder:
        said.append(f"The run that works on it: runbook watch {holder}")
    return [*said, f"The whole story: runbook explain {incident.id}"]


class _Now:
    """What happens now, as a spinner on stderr; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._spinner = Spinner("dots", "")
        # stdout is not redirected: rich would send it to stderr with the rest.
        self._live = Live(
            self._spinner, console=self._console, transient=True, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""
        self._live.stop()

    def show(self, line: str) -> None:
        """Show what happens now."""
        width = max(10, self._console.width - 4)
        self._spinner.update(text=Text(line if len(line) <= width else f"{line[: width - 1]}…"))

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the spinner away while something else is printed."""
        hides = self._live.is_started
        if hides:
            self._live.stop()
        try:
            yield
        finally:
            if hides:
                self._live.start()
