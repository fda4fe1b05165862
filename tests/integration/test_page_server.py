"""Who may speak to the page's server, and what it looks like without a play; no emulator needed."""

import http.client
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser

from local.page.server import Page
from local.stories import STORIES
from local.watch import Glance
from oncall.errors import BadInput
from tests.integration.browser import chromium
from tests.unit.incidents import an_incident

STORY = STORIES["queue-saturation"]
NASTY = "</p><img src=x onerror=alert(1)><script>alert(1)</script>"
CLICK = {"ts": "1.0", "action": "approve", "user": "U0ALICE"}


@pytest.fixture
def page() -> Iterator[Page]:
    with Page(STORY) as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def fetched(
    page: Page,
    name: str = "",
    *,
    path: str | None = None,
    body: object = None,
    **headers: str,
) -> tuple[int, str, http.client.HTTPMessage]:
    address = urlsplit(page.url)
    connection = http.client.HTTPConnection(address.netloc, timeout=5)
    usual = {"Host": address.netloc}
    if body is not None:
        usual |= {"Origin": f"http://{address.netloc}", "Content-Type": "application/json"}
    usual |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(
        "GET" if body is None else "POST",
        path if path is not None else f"{address.path}{name}",
        body=None if body is None else json.dumps(body),
        headers=usual,
    )
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, answer.headers


def test_the_page_and_its_files_are_served_to_whoever_has_the_address(page: Page) -> None:
    status, text, headers = fetched(page)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert STORY.title in text
    for name in re.findall(r'(?:href|src)="(page\.\w+)"', text):
        assert fetched(page, name)[0] == 200
    assert fetched(page, "state")[0] == 200
    assert fetched(page, "../server.py")[0] == 404


def test_it_listens_on_this_machine_alone(page: Page) -> None:
    assert urlsplit(page.url).hostname == "127.0.0.1"
    assert page._server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("path", ["/", "/state", "/guessed/", "/guessed/state", "//"])
def test_without_the_token_there_is_nothing(page: Page, path: str) -> None:
    assert fetched(page, path=path)[0] == 404


def test_another_name_that_points_here_is_refused(page: Page) -> None:
    assert fetched(page, "state", Host="evil.example.com")[0] == 421


@pytest.mark.parametrize("origin", ["http://evil.example.com", "null", ""])
def test_another_site_can_change_nothing(page: Page, origin: str) -> None:
    assert fetched(page, "click", body=CLICK, Origin=origin)[0] == 403


@pytest.mark.parametrize(
    ("name", "body", "kind", "status"),
    [
        ("click", CLICK, "text/plain", 400),
        ("click", {"ts": "1"}, "application/json", 400),
        ("click", {**CLICK, "ts": 1}, "application/json", 400),
        ("click", [], "application/json", 400),
        ("click", {**CLICK, "ts": "x" * 5000}, "application/json", 400),
        ("state", CLICK, "application/json", 404),
        ("click", CLICK, "application/json", 409),  # nothing runs yet
        ("trouble", {"id": "spike"}, "application/json", 409),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(
    page: Page, name: str, body: object, kind: str, status: int
) -> None:
    found, text, _ = fetched(page, name, body=body, Content_Type=kind)
    assert found == status
    assert json.loads(text)["said"].endswith(".")


def test_nothing_from_elsewhere_can_run_in_it(page: Page) -> None:
    headers = fetched(page)[2]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_port_that_is_taken_is_said(page: Page) -> None:
    port = urlsplit(page.url).port
    assert port
    with pytest.raises(BadInput, match=f"--port: {port} cannot be listened on"), Page(STORY, port):
        pytest.fail("it must not be entered")


def test_the_state_comes_when_there_is_news(page: Page) -> None:
    first = json.loads(fetched(page, "state")[1])
    page.show(Glance("Steady load"))
    second = json.loads(fetched(page, f"state?after={first['version']}")[1])
    assert second["version"] > first["version"]
    assert second["status"]["text"] == "Steady load"
    assert fetched(page, "state?after=x")[0] == 400


def test_the_last_run_stays_to_be_seen_until_there_is_another(page: Page) -> None:
    ended = Glance("x", state="Done", entered=("Open incident", "Done"), over=True, alarm="OK")
    page.show(replace(ended, incident=an_incident(outcome="resolved", status="closed")))
    page.show(Glance("Waiting for the alarm", alarm="OK"))
    state = json.loads(fetched(page, "state")[1])
    assert state["status"]["word"] == "Resolved"
    assert "rb-done" in state["machine"]


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_narrow_and_wide_and_shows_text_from_outside_as_text(
    page: Page, browser: Browser, width: int, scheme: Literal["light", "dark"]
) -> None:
    page.show(Glance(NASTY, incident=an_incident(happened=NASTY), entered=("Open incident",)))
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    errors: list[str] = []
    tab.on("console", lambda said: errors.append(said.text))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(page.url)
    tab.wait_for_selector('[data-state="Open incident"]')
    wide = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    assert tab.locator("img, script:not([src])").count() == 0
    assert errors == []
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", background)[:3])) > 3 * 128
    assert light == (scheme == "light")
    tab.close()
