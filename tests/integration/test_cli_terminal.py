"""The command line on a real terminal and in a real shell."""

import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_SCRIPT = """
import sys
sys.path[:0] = [{root!r}, {root!r} + "/functions"]
from tests.unit.test_cli_follow import ASKING, CLOSED, OPEN, Store
from cli import connection, follow
from cli.app import main
follow.LOOK_SECONDS = 0.3
connection.Deployed.store = Store(OPEN, OPEN, ASKING, ASKING, CLOSED)
main(["watch", "one"], prog_name="runbook")
"""


def on_terminal(*, out: bool, **environment: str) -> tuple[str, str]:
    """Watch with stderr on a terminal, and stdout there too or in a pipe; return both."""
    mine, theirs = pty.openpty()
    with subprocess.Popen(  # noqa: S603 -- our own command
        [sys.executable, "-c", _SCRIPT.format(root=str(ROOT))],
        stdout=theirs if out else subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment},
    ) as process:
        os.close(theirs)
        seen = b"".join(_read(mine))
        piped = process.stdout.read() if process.stdout else b""
    os.close(mine)
    return seen.decode(), piped.decode()


def _read(terminal: int) -> Iterator[bytes]:
    while select.select([terminal], [], [], 20)[0]:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # Linux says so when the other side has closed
            return
        if not chunk:
            return
        yield chunk


def test_on_a_terminal_it_says_what_goes_on_and_keeps_it_off_a_piped_stdout() -> None:
    seen, piped = on_terminal(out=False)

    assert "acting: I act." in seen
    assert "Answer by 03:10 UTC: runbook approve one" in seen
    assert "Set it from 2 to 4." not in seen
    assert piped.splitlines()[0] == "03:00:04  opened     Alarm fired."
    assert piped.splitlines()[-1] == "Resolved: orders is drained."
    assert "\x1b" not in piped


def test_on_a_terminal_no_color_is_honoured() -> None:
    coloured, _ = on_terminal(out=True)
    plain, _ = on_terminal(out=True, NO_COLOR="1")

    colour = "\x1b[36mchanged"
    assert colour in coloured
    assert colour not in plain
    assert "changed" in plain
    assert "Resolved: orders is drained." in plain


def test_bash_completes_with_it(tmp_path: Path) -> None:
    (tmp_path / "runbook").symlink_to(ROOT / "runbook")
    asks = """
        source <(runbook completion bash)
        compopt() { echo "$@"; }
        COMP_WORDS=(runbook run queue-saturation qu); COMP_CWORD=3
        _runbook_completion runbook qu queue-saturation
        echo "${COMPREPLY[*]}"
    """
    environment: dict[str, Any] = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    ended = subprocess.run(  # noqa: S603 -- our own command
        ["/bin/bash", "-c", asks], capture_output=True, check=False, env=environment, text=True
    )

    assert ended.stdout.splitlines() == ["-o nospace", "queue="], ended.stderr
