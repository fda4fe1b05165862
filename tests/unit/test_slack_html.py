from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.slack import Ephemeral, Message, Version
from local.slack_html import ephemeral_html, message_html
from oncall.messages import header
from tests.unit.incidents import LINKS, NASTY, asking

USERS = {"U0ALICE": "alice", "U0RUNBOOKS": "runbooks"}
TAGS = {"h3", "div", "p", "span", "button", "code", "strong", "em", "s", "br", "hr"}
ATTRIBUTES = {"class", "title", "type"}


class Tags(HTMLParser):
    """Which tags a text opens, with which attributes, and what it says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said += data

    @property
    def names(self) -> set[str]:
        return {tag for tag, _ in self.opened}


def a_message(text: str = "", blocks: list[dict[str, Any]] | None = None) -> Message:
    return Message("C0", "1.5", None, "U0RUNBOOKS", [Version(1.5, text, blocks or [], [], {})])


def section(text: str) -> list[dict[str, Any]]:
    return [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]


@pytest.mark.parametrize(
    ("mrkdwn", "markup"),
    [
        ("*bold* and _it_", "<strong>bold</strong> and <em>it</em>"),
        ("`a *b* &lt;c&gt;`", "<code>a *b* &lt;c&gt;</code>"),
        ("by <@U0ALICE>", "by @alice"),
        ("at <!date^1764212520^{time}|03:02 UTC>", "at 03:02"),
        ("2 &amp; 3 &lt; 4", "2 &amp; 3 &lt; 4"),
        ("one\ntwo", "one<br>two"),
        (":warning: x", "⚠️ x"),
        ("\ue0000\ue001 `x`", "0 <code>x</code>"),
        ("*<!date^1764212520^{time}|x>*", "<strong>03:02</strong>"),
    ],
)
def test_mrkdwn_looks_as_in_slack(mrkdwn: str, markup: str) -> None:
    assert message_html(a_message(blocks=section(mrkdwn)), USERS) == f"<div>{markup}</div>"


def test_links_are_told_and_lead_nowhere() -> None:
    shown = message_html(a_message("<https://example.com/a?b=1&amp;c|Report>"), USERS)
    (link,) = [attrs for tag, attrs in Tags(shown).opened if tag == "span"]
    assert link["title"] == "https://example.com/a?b=1&c"
    assert "a" not in Tags(shown).names
    assert Tags(shown).said == "Report ↗"


def test_buttons_carry_what_a_click_needs_and_what_is_asked_first() -> None:
    told = header(asking(), LINKS)
    shown = Tags(message_html(a_message(blocks=list(told.blocks)), USERS))
    buttons = [attrs for tag, attrs in shown.opened if tag == "button"]
    assert [one["data-action"] for one in buttons] == ["approve", "reject", "take_over"]
    assert {one["data-ts"] for one in buttons} == {"1.5"}
    assert buttons[0]["data-title"] == "Approve?"
    assert "20 → none" in str(buttons[0]["data-text"])
    assert "data-title" not in buttons[1]


def test_a_message_without_blocks_shows_its_text() -> None:
    assert message_html(a_message("plain *words*"), USERS) == "plain <strong>words</strong>"
    only = Ephemeral("C0", "U0ALICE", "Approved.", [], None)
    assert ephemeral_html(only, USERS) == "Approved."


@given(
    st.text(alphabet="<>&\"'`*_~|!@#:/ab\n\ue000\ue0010", max_size=60)
    | st.sampled_from([NASTY, "<img src=x onerror=alert(1)>", "<javascript:alert(1)|x>"])
)
def test_text_from_outside_is_never_markup(text: str) -> None:
    blocks: list[dict[str, Any]] = [
        *section(text),
        {"type": "header", "text": {"type": "plain_text", "text": text}},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": text}]},
        {
            "type": "actions",
            "elements": [
                {
                    "type": "button",
                    "action_id": text,
                    "style": text,
                    "text": {"type": "plain_text", "text": text},
                    "confirm": {n: {"text": text} for n in ("title", "text", "confirm", "deny")},
                }
            ],
        },
    ]
    shown = Tags(message_html(a_message(text, blocks), USERS))
    assert shown.names <= TAGS
    for _, attributes in shown.opened:
        assert all(name in ATTRIBUTES or name.startswith("data-") for name in attributes)
