"""One embedded AWS a session (or xdist worker), and in the end what its stories have shown."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.scenarios.coverage import Coverage
from tests.scenarios.story import STORIES, story_id
from tests.scenarios.world import Worlds

COVERAGE = pytest.StashKey[Coverage]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COVERAGE] = Coverage()


@pytest.fixture(scope="session")
def coverage(pytestconfig: pytest.Config) -> Coverage:
    return pytestconfig.stash[COVERAGE]


@pytest.fixture(scope="session")
def worlds(coverage: Coverage) -> Iterator[Worlds]:
    with Worlds() as worlds:
        yield worlds
        for world in worlds.all():
            coverage.watch(world)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take in what an xdist worker has seen."""
    node.config.stash[COVERAGE].merge(node.workeroutput["coverage"])


def pytest_sessionfinish(session: pytest.Session) -> None:
    coverage = session.config.stash[COVERAGE]
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["coverage"] = coverage.to_json()
    elif _complete(coverage) and session.testsfailed == 0 and coverage.findings():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    coverage = config.stash[COVERAGE]
    if not _complete(coverage):
        return
    untaken = coverage.untaken()
    terminalreporter.section(f"edges that no story takes: {len(untaken)}")
    for line in untaken:
        terminalreporter.line(line)
    findings = coverage.findings()
    if findings:
        terminalreporter.section("what the stories do not show", red=True)
        for line in findings:
            terminalreporter.line(line)


def _complete(coverage: Coverage) -> bool:
    return coverage.stories >= set(map(story_id, STORIES))
