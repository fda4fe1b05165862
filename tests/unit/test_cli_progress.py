import io

import pytest
from rich.console import Console

from cli.progress import Progress, sparkline
from local.stories import Row
from local.watch import Glance


def rows(waiting: int, in_flight: int, cap: int) -> tuple[Row, Row]:
    return (
        Row("queue", f"{waiting} waiting, {in_flight} in flight", waiting),
        Row("worker", f"at most {cap} at once"),
    )


LOOK = Glance(
    "The runbook runs", rows(300, 20, 4), "ALARM", "Plan relief", "I look at the metrics."
)


def a_console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, force_terminal=terminal, width=100), written


@pytest.mark.parametrize(
    ("values", "bars"),
    [([], ""), ([0, 0], "▁▁"), ([0, 50, 100], "▁▅█"), ([7], "█")],
)
def test_bars_are_drawn_to_the_largest(values: list[int], bars: str) -> None:
    assert sparkline(values) == bars


def test_without_a_terminal_each_state_is_one_plain_line() -> None:
    console, written = a_console(terminal=False)

    with Progress(console, "A burst") as progress:
        progress.say("Starting")
        progress.show(LOOK)
        progress.show(LOOK)
        progress.say("Stopping")

    said = [line[9:] for line in written.getvalue().splitlines()]
    assert said == [
        "A burst",
        "Starting",
        "The runbook runs: Plan relief (300 waiting, 20 in flight, at most 4 at once, alarm ALARM)",
        "Stopping",
    ]


def test_without_a_terminal_silence_is_broken_by_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("cli.progress.time.monotonic", lambda: now[0])
    console, written = a_console(terminal=False)

    with Progress(console, "A burst") as progress:
        for second in range(12):
            now[0] = float(second)
            progress.show(LOOK)

    lines = written.getvalue().splitlines()[1:]
    assert [line[:5].strip() for line in lines] == ["0.0", "5.0", "10.0"]


def test_a_terminal_shows_rows_alarm_and_state() -> None:
    console, written = a_console(terminal=True)
    progress = Progress(console, "A burst")
    progress.show(Glance("Steady load", rows(0, 0, 2), "OK"))
    progress.show(LOOK)
    console.print(progress)

    shown = written.getvalue()
    for part in (
        "▁█  300 waiting, 20 in flight",
        "at most 4 at once",
        "ALARM",
        "Plan relief",
        "I look at the metrics.",
    ):
        assert part in shown


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console, written = a_console(terminal=True)
    progress = Progress(console, "A burst")
    progress.show(LOOK)
    console.print(progress)

    assert "ALARM" in written.getvalue()
    assert "[31m" not in written.getvalue()
    assert "1;31m" not in written.getvalue()
