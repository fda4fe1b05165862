"""docs/new-runbook.md, followed block by block in a copy of the project."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/new-runbook.md"
# A paragraph that says what to do with the block below it, or a block of commands.
ORDER = re.compile(
    r"^In `(?P<file>[^`]+)`, (?P<what>delete|write over|add to `(?P<part>\w+)`)"
    r"(?P<names>(?:,? `[^`]+`)*)[.:]$"
    r"|^Write `(?P<new>[^`]+)`:$"
    r"|^```sh\n(?P<commands>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
FENCE = re.compile(r"\n\n```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What `make` would set up first is there.
MADE = {
    "make pages contract": [
        [sys.executable, "-m", "tools.pages"],
        [sys.executable, "-m", "pytest", "-q", "tests/contract/test_product.py"],
    ]
}
LINKED = (".venv", "tools/asl/node_modules")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of what git tracks or would track."""
    listed = _git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, tmp_path / name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", "-A")
    return tmp_path


def test_the_page_makes_a_runbook_that_works(copy: Path) -> None:
    page = PAGE.read_text("utf-8")
    ran = [line for order in ORDER.finditer(page) for line in follow(copy, page, order)]

    assert ran[-1] == ".venv/bin/pytest tests/scenarios -k queue-concurrency"
    assert (copy / "docs/runbooks/queue-concurrency.md").is_file()


def follow(copy: Path, page: str, order: re.Match[str]) -> Iterator[str]:
    """Do what the page says; yield the commands that were run."""
    if order["commands"]:
        for line in order["commands"].splitlines():
            run(copy, line)
            yield line
        return
    file = copy / (order["new"] or order["file"])
    block = FENCE.match(page, order.end())
    text = "" if order["new"] else file.read_text("utf-8")
    if order["what"] == "delete":
        for name in re.findall(r"`([^`]+)`", order["names"]):
            text = replaced(text, rf" *(- state: {name}|{name}:)", "")
    else:
        assert block, f"there is no block below {order[0]!r}"
        if order["part"]:
            text = re.sub(rf"(?m)^{order['part']}:\n", lambda found: found[0] + block[1], text)
        elif order["new"]:
            text = block[1]
        else:
            for entry in entries(block[1]):
                text = replaced(text, re.escape(entry.partition(":")[0]) + ":.*", entry)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")


def run(copy: Path, line: str) -> None:
    commands = MADE.get(line) or [["bash", "-ec", line]]
    for command in commands:
        done = subprocess.run(  # noqa: S603 -- our own page's
            command, cwd=copy, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-5000:]}{done.stderr[-2000:]}"


def entries(block: str) -> list[str]:
    """Take a block of YAML apart into its outermost keys, each with its own lines."""
    margin = " " * (len(block) - len(block.lstrip()))
    return [part for part in re.split(rf"(?m)^(?={margin}\S)", block) if part]


def replaced(text: str, head: str, entry: str) -> str:
    """Replace the one entry that begins so, with all that is indented below it."""
    body = r"((?P=margin) +\S.*\n|\n(?=(?P=margin) +\S))*\n?"
    changed, count = re.subn(rf"(?m)^(?=(?P<margin> *)){head}\n{body}", lambda _: entry, text)
    assert count == 1, f"{head} is there {count} times"
    return changed


def _git(where: Path, *arguments: str) -> str:
    return subprocess.run(  # noqa: S603 -- fixed arguments, no shell
        ["git", "-C", where, *arguments],  # noqa: S607 -- git from the caller's PATH
        capture_output=True,
        text=True,
        check=True,
    ).stdout
