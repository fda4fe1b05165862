"""The page of `runbook play`, in a headless Chromium, from the first state to Ctrl-C."""

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from local.playground import ROOT
from tests.integration.browser import chromium

DEPLOYED_MS = 60_000
TOLD_MS = 90_000


@dataclass
class Playing:
    """A play in a process of its own, and what it says."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def playing() -> Iterator[Playing]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(  # noqa: S603 -- our own command
        [ROOT / "runbook", "play", "queue-saturation", "--mode", "ask", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ours,
        text=True,
    ) as process:
        assert process.stderr is not None
        found = Playing(process, "")
        for line in process.stderr:
            found.lines.append(line)
            if address := re.search(r"Page: (http://\S+)", line):
                found.url = address[1]
                break
        reading = threading.Thread(target=found.lines.extend, args=(process.stderr,), daemon=True)
        reading.start()
        yield found
        if process.poll() is None:
            process.kill()


@dataclass
class Seen:
    """A page that is open, and what went wrong in it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)


@pytest.fixture
def seen(browser: Browser, playing: Playing) -> Iterator[Seen]:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    found = Seen(page)
    page.on("console", lambda said: found.errors.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("request", lambda one: found.requests.append(one))  # noqa: PLW0108 -- no builtin
    page.goto(playing.url)
    yield found
    page.close()


def tab_to(page: Page, selector: str) -> None:
    """Reach an element with the Tab key alone."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
    pytest.fail(f"Tab does not reach {selector}")


def test_a_play_is_seen_steered_and_troubled_from_the_page(seen: Seen, playing: Playing) -> None:
    page = seen.page

    # It waits for a person, the graph shows where, and the way there is lit.
    approve = page.locator(".slack-button", has_text="Approve")
    expect(approve).to_be_visible(timeout=DEPLOYED_MS)
    expect(page.locator('[data-state="Ask on-call"]')).to_have_class(re.compile("rb-current"))
    expect(page.locator('[data-state="Inspect queue"]')).to_have_class(re.compile("rb-done"))
    expect(page.locator('[data-state="Set mapping concurrency"]')).to_have_class(
        re.compile("rb-new")
    )
    expect(page.locator("#word")).to_have_text("Waits for you")
    plot = page.locator("#plots svg").first
    expect(plot).to_contain_text("a burst of 400 orders")
    expect(plot).to_contain_text("asked")

    # Slack goes away and comes back, by a button that tells which it is.
    slack = page.locator("#troubles button", has_text="Slack down")
    slack.click()
    expect(slack).to_have_attribute("aria-pressed", "true")
    slack.click()
    expect(slack).to_have_attribute("aria-pressed", "false")

    # Approve by the keyboard alone: to the button, into the dialog, through it, and on it goes.
    page.evaluate("document.activeElement.blur()")
    tab_to(page, '.slack-button[data-action="approve"]')
    page.keyboard.press("Enter")
    expect(page.locator("#confirm-title")).to_have_text("Approve?")
    expect(page.locator("#confirm-text")).to_contain_text("maximum concurrency on orders 2 →")
    tab_to(page, "#confirm-yes")
    page.keyboard.press("Enter")
    expect(page.locator(".message.only")).to_contain_text("Approved")
    expect(page.locator('[data-state="Set mapping concurrency"]')).to_have_class(
        re.compile("rb-done"), timeout=TOLD_MS
    )
    expect(page.locator("#messages")).to_contain_text("Approved by @alice", timeout=TOLD_MS)

    # It ends well, every mark is in the plot, and all goes on.
    expect(page.locator("#word")).to_have_text("Resolved", timeout=TOLD_MS)
    expect(page.locator("#ended")).to_contain_text("make more trouble", timeout=TOLD_MS)
    for label in ("alarm", "approved", "verified", "put back", "resolved"):
        expect(plot).to_contain_text(label)
    expect(page.locator("#pagerduty")).to_contain_text("woken once")

    # More orders, for real: a plot that rises again, and a second alarm's run.
    page.locator("#troubles button", has_text="Spike of 400").click()
    expect(page.locator("#done")).to_contain_text("on its way")
    expect(page.locator(".message.root")).to_have_count(2, timeout=TOLD_MS)

    # The end of the process is told, and its code is the story's. SIGTERM is taken for Ctrl-C;
    # SIGINT itself is ignored by what a shell has put into the background.
    playing.process.terminate()
    expect(page.locator("#ended")).to_contain_text("its AWS is gone", timeout=20_000)
    expect(page.locator("#troubles button").first).to_be_disabled()
    assert playing.process.wait(timeout=30) == 0, "".join(playing.lines)

    assert seen.errors == []
    assert {urlsplit(request.url).hostname for request in seen.requests} == {"127.0.0.1"}
