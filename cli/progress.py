"""What happens now, on stderr: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console, ConsoleOptions, RenderResult

    from local.watch import Glance

_BARS = "▁▂▃▄▅▆▇█"
_HISTORY = 40
_SILENCE_SECONDS = 5.0
_COLOURS = {"ALARM": "bold red", "OK": "green"}


def sparkline(values: list[int]) -> str:
    """Draw values as bars, the largest full; an empty line for none."""
    most = max(values, default=0) or 1
    return "".join(_BARS[min(len(_BARS) - 1, value * len(_BARS) // most)] for value in values)


class Progress:
    """Shows glances; ``with Progress(console, title) as progress: progress.show(glance)``.

    ``page`` is where the same is to be seen in a browser, if anywhere.
    """

    def __init__(self, console: Console, title: str, page: str = "") -> None:
        self._console = console
        self._title = title
        self._page = page
        self._started = time.monotonic()
        self._glance: Glance | None = None
        self._said: set[str] = set()
        self._said_at = -_SILENCE_SECONDS
        self._levels: defaultdict[str, deque[int]] = defaultdict(lambda: deque(maxlen=_HISTORY))
        self._live = Live(
            self, console=console, refresh_per_second=4, transient=True, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        """Start the display."""
        if self._console.is_terminal:
            self._live.start()
        else:
            self._print(self._title)
            if self._page:
                self._print(f"Page: {self._page}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Clear the display: what stays is said on stdout."""
        if self._console.is_terminal:
            self._live.stop()

    def say(self, now: str) -> None:
        """Show what happens now, where there is nothing else to see yet."""
        from local.watch import Glance  # noqa: PLC0415 -- brings the emulator, which only play needs

        self.show(Glance(now=now))

    def show(self, glance: Glance) -> None:
        """Show a glance; as a plain line only what is new, and a sign of life now and then."""
        self._glance = glance
        for row in glance.rows:
            if row.level is not None and not row.is_setting:
                self._levels[row.name].append(row.level)
        line = glance.now + (f": {glance.state}" if glance.state else "")
        quiet = self._elapsed() - self._said_at < _SILENCE_SECONDS
        if not self._console.is_terminal and not (quiet and line in self._said):
            self._said.add(line)
            self._said_at = self._elapsed()
            seen = ", ".join([*(row.text for row in glance.rows), f"alarm {glance.alarm}"])
            self._print(f"{line} ({seen})" if glance.rows else line)

    def _print(self, text: str) -> None:
        line = f"{self._elapsed():5.1f} s  {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the display as it is now; rich calls this four times a second."""
        yield Text(f"{self._title}  {self._elapsed():.0f} s", style="bold")
        if self._page:
            yield Text(f"page  {self._page}")
        glance = self._glance
        if glance is None:
            return
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim", no_wrap=True)
        rows.add_column()
        rows.add_row("now", glance.now)
        for row in glance.rows:
            graph = (
                ""
                if row.level is None or row.is_setting
                else f"{sparkline(list(self._levels[row.name]))}  "
            )
            rows.add_row(row.name, f"{graph}{row.text}")
        if glance.alarm:
            rows.add_row("alarm", Text(glance.alarm, style=_COLOURS.get(glance.alarm, "yellow")))
        if glance.state:
            rows.add_row("state", Text(glance.state, style="bold"))
        if glance.doing:
            rows.add_row("it says", Text(glance.doing))
        yield rows
