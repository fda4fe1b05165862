"""The fake Slack, driven by Slack's own client and checked by Slack's own signature verifier."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.error import URLError
from urllib.parse import parse_qs

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import (
    ConnectionErrorRetryHandler,
    RateLimitErrorRetryHandler,
    ServerErrorRetryHandler,
)
from slack_sdk.models.blocks import (
    ActionsBlock,
    ButtonElement,
    ConfirmObject,
    ContextBlock,
    HeaderBlock,
    MarkdownTextObject,
    SectionBlock,
)
from slack_sdk.signature import SignatureVerifier
from slack_sdk.webhook import WebhookClient

from local.slack import FakeSlack, NoSuchButtonError

if TYPE_CHECKING:
    from collections.abc import Iterator

type Json = dict[str, Any]

CHANNEL = "C0ONCALL"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_795_402_800.0  # 2026-11-23 03:00 UTC

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slack(clock: Clock) -> Iterator[FakeSlack]:
    channels = {CHANNEL: "oncall", "C0OTHER": "other"}
    with FakeSlack(channels=channels, rate=100, clock=clock) as fake:
        yield fake


@pytest.fixture
def client(slack: FakeSlack) -> WebClient:
    return WebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=[], timeout=5)


def post(client: WebClient, **content: Any) -> Json:
    answer = client.chat_postMessage(channel=CHANNEL, **({"text": "hello"} | content)).data
    assert isinstance(answer, dict)
    return answer


def refusal(answer: pytest.ExceptionInfo[SlackApiError]) -> str:
    return str(answer.value.response["error"])


def section(text: str = "text", **more: Any) -> Json:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}, **more}


def button(text: str = "Approve", **more: Any) -> Json:
    return {"type": "button", "text": {"type": "plain_text", "text": text}, **more}


def actions(*elements: Json, **more: Any) -> Json:
    return {"type": "actions", "elements": list(elements), **more}


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def confirm(**more: Any) -> Json:
    texts = {"title": "Sure?", "text": "It moves users.", "confirm": "Yes", "deny": "No"} | more
    return {name: plain(text) for name, text in texts.items()}


# Each limit twice: the largest content that Slack takes, the smallest that it refuses, and the
# words by which it tells the field.
LIMITS: dict[str, tuple[list[Json], list[Json], str]] = {
    "blocks": (
        [{"type": "divider"}] * 50,
        [{"type": "divider"}] * 51,
        "no more than 50 items allowed [json-pointer:/blocks]",
    ),
    "section text": (
        [section("x" * 3000)],
        [section("x" * 3001)],
        "must be less than 3001 characters [json-pointer:/blocks/0/text/text]",
    ),
    "empty text": ([section("x")], [section("")], "must be more than 0 characters"),
    "section without text": (
        [{"type": "section", "fields": [plain("x")]}],
        [{"type": "section"}],
        "json-pointer:/blocks/0]",
    ),
    "fields": (
        [{"type": "section", "fields": [plain("x")] * 10}],
        [{"type": "section", "fields": [plain("x")] * 11}],
        "no more than 10 items allowed [json-pointer:/blocks/0/fields]",
    ),
    "field text": (
        [{"type": "section", "fields": [plain("x" * 2000)]}],
        [{"type": "section", "fields": [plain("x" * 2001)]}],
        "must be less than 2001 characters [json-pointer:/blocks/0/fields/0/text]",
    ),
    "header text": (
        [{"type": "header", "text": plain("x" * 150)}],
        [{"type": "header", "text": plain("x" * 151)}],
        "must be less than 151 characters [json-pointer:/blocks/0/text/text]",
    ),
    "header type": (
        [{"type": "header", "text": plain("x")}],
        [{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}],
        "json-pointer:/blocks/0/text/type",
    ),
    "actions": (
        [actions(*[button()] * 25)],
        [actions(*[button()] * 26)],
        "no more than 25 items allowed [json-pointer:/blocks/0/elements]",
    ),
    "context": (
        [{"type": "context", "elements": [plain("x")] * 10}],
        [{"type": "context", "elements": [plain("x")] * 11}],
        "no more than 10 items allowed [json-pointer:/blocks/0/elements]",
    ),
    "button text": (
        [actions(button("x" * 75))],
        [actions(button("x" * 76))],
        "must be less than 76 characters [json-pointer:/blocks/0/elements/0/text/text]",
    ),
    "button text type": (
        [actions(button())],
        [actions({"type": "button", "text": {"type": "mrkdwn", "text": "x"}})],
        "json-pointer:/blocks/0/elements/0/text/type",
    ),
    "button value": (
        [actions(button(value="x" * 2000))],
        [actions(button(value="x" * 2001))],
        "must be less than 2001 characters [json-pointer:/blocks/0/elements/0/value]",
    ),
    "button url": (
        [actions(button(url="x" * 3000))],
        [actions(button(url="x" * 3001))],
        "must be less than 3001 characters [json-pointer:/blocks/0/elements/0/url]",
    ),
    "button style": (
        [actions(button(style="danger"))],
        [actions(button(style="green"))],
        "json-pointer:/blocks/0/elements/0/style",
    ),
    "action_id": (
        [actions(button(action_id="x" * 255))],
        [actions(button(action_id="x" * 256))],
        "must be less than 256 characters [json-pointer:/blocks/0/elements/0/action_id]",
    ),
    "block_id": (
        [section(block_id="x" * 255)],
        [section(block_id="x" * 256)],
        "must be less than 256 characters [json-pointer:/blocks/0/block_id]",
    ),
    "repeated block_id": (
        [section(block_id="a"), section(block_id="b")],
        [section(block_id="a"), section(block_id="a")],
        "already exists [json-pointer:/blocks/1/block_id]",
    ),
    "repeated action_id": (
        [actions(button(action_id="a")), actions(button(action_id="a"))],
        [actions(button(action_id="a"), button(action_id="a"))],
        "already exists [json-pointer:/blocks/0/elements/1/action_id]",
    ),
    "block type": (
        [{"type": "divider"}],
        [{"type": "banner"}],
        "unsupported type: banner [json-pointer:/blocks/0/type]",
    ),
    "element type": (
        [actions(button())],
        [actions({"type": "slider"})],
        "json-pointer:/blocks/0/elements/0/type",
    ),
    "unknown property": ([section()], [section(colour="red")], "json-pointer:/blocks/0]"),
    "confirm title": (
        [actions(button(confirm=confirm(title="x" * 100)))],
        [actions(button(confirm=confirm(title="x" * 101)))],
        "must be less than 101 characters [json-pointer:/blocks/0/elements/0/confirm/title/text]",
    ),
    "confirm text": (
        [actions(button(confirm=confirm(text="x" * 300)))],
        [actions(button(confirm=confirm(text="x" * 301)))],
        "must be less than 301 characters [json-pointer:/blocks/0/elements/0/confirm/text/text]",
    ),
    "confirm button": (
        [actions(button(confirm=confirm(confirm="x" * 30)))],
        [actions(button(confirm=confirm(confirm="x" * 31)))],
        "must be less than 31 characters",
    ),
    "deny button": (
        [actions(button(confirm=confirm(deny="x" * 30)))],
        [actions(button(confirm=confirm(deny="x" * 31)))],
        "must be less than 31 characters",
    ),
    "markdown": (
        [{"type": "markdown", "text": "x" * 12_000}],
        [{"type": "markdown", "text": "x" * 12_001}],
        "must be less than 12001 characters [json-pointer:/blocks/0/text]",
    ),
    "image without alt_text": (
        [{"type": "image", "image_url": "https://example.com/a.png", "alt_text": "graph"}],
        [{"type": "image", "image_url": "https://example.com/a.png"}],
        "'alt_text' is a required property [json-pointer:/blocks/0]",
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_block_kit_limit(slack: FakeSlack, client: WebClient, name: str) -> None:
    fits, exceeds, words = LIMITS[name]

    ts = post(client, blocks=fits)["ts"]
    with pytest.raises(SlackApiError) as refused:
        post(client, blocks=exceeds)
    with pytest.raises(SlackApiError) as refused_edit:
        client.chat_update(channel=CHANNEL, ts=ts, text="edited", blocks=exceeds)

    assert refusal(refused) == refusal(refused_edit) == "invalid_blocks"
    messages = refused.value.response["response_metadata"]["messages"]
    assert any(words in message for message in messages), messages
    assert [m.text for m in slack.messages] == ["hello"]


def test_all_text_of_a_message_has_a_limit_of_its_own(slack: FakeSlack, client: WebClient) -> None:
    fits = [section("x" * 3000)] * 4 + [section("x" * 1200)]
    post(client, blocks=fits)
    with pytest.raises(SlackApiError) as refused:
        post(client, blocks=[*fits, section("x")])
    assert refusal(refused) == "msg_blocks_too_long"
    assert len(slack.messages) == 1


def test_blocks_in_an_attachment_are_checked_too(slack: FakeSlack, client: WebClient) -> None:
    post(client, attachments=[{"color": "#2eb886", "blocks": [section("x" * 3000)]}])
    with pytest.raises(SlackApiError) as refused:
        post(client, attachments=[{"blocks": [section("x" * 3001)]}])
    assert "/attachments/0/blocks/0/text/text" in str(refused.value.response)
    with pytest.raises(SlackApiError) as too_many:
        post(client, attachments=[{"text": "x"}] * 101)
    assert refusal(too_many) == "too_many_attachments"
    assert len(slack.messages) == 1


@pytest.mark.parametrize("blocks", ["not json", '{"type": "divider"}'])
def test_blocks_must_be_a_list(client: WebClient, blocks: str) -> None:
    with pytest.raises(SlackApiError) as refused:
        post(client, blocks=blocks)
    assert refusal(refused) == "invalid_blocks_format"
    post(client, blocks='[{"type": "divider"}]')


@pytest.mark.filterwarnings("ignore:The top-level `text` argument is missing:UserWarning")
def test_a_message_says_something(slack: FakeSlack, client: WebClient) -> None:
    with pytest.raises(SlackApiError) as refused:
        client.chat_postMessage(channel=CHANNEL, text="")
    assert refusal(refused) == "no_text"
    ts = client.chat_postMessage(channel=CHANNEL, blocks=[section()])["ts"]
    with pytest.raises(SlackApiError) as refused_edit:
        client.chat_update(channel=CHANNEL, ts=ts)
    assert refusal(refused_edit) == "no_text"
    assert len(slack.messages) == 1


def test_a_long_text_is_cut_when_posted_and_refused_when_edited(
    slack: FakeSlack, client: WebClient
) -> None:
    ts = post(client, text="x" * 40_001)["ts"]
    assert len(slack.messages[0].text) == 40_000
    client.chat_update(channel=CHANNEL, ts=ts, text="y" * 4_000)
    with pytest.raises(SlackApiError) as refused:
        client.chat_update(channel=CHANNEL, ts=ts, text="z" * 4_001)
    assert refusal(refused) == "msg_too_long"
    assert slack.messages[0].text == "y" * 4_000


def test_only_the_bots_token_is_let_in(slack: FakeSlack, client: WebClient) -> None:
    assert client.auth_test()["user_id"] == slack.bot_user
    with pytest.raises(SlackApiError) as wrong:
        WebClient("xoxb-wrong", base_url=slack.base_url).auth_test()
    with pytest.raises(SlackApiError) as missing:
        WebClient(base_url=slack.base_url).auth_test()
    assert (refusal(wrong), refusal(missing)) == ("invalid_auth", "not_authed")
    with pytest.raises(SlackApiError) as unknown:
        client.api_call("chat.shout")
    assert refusal(unknown) == "unknown_method"


def test_a_channel_is_posted_to_by_id_or_name_and_edited_by_id(
    slack: FakeSlack, client: WebClient
) -> None:
    posted = [client.chat_postMessage(channel=c, text="x") for c in (CHANNEL, "#oncall", "oncall")]
    assert [answer["channel"] for answer in posted] == [CHANNEL] * 3
    with pytest.raises(SlackApiError) as unknown:
        client.chat_postMessage(channel="#nowhere", text="x")
    with pytest.raises(SlackApiError) as by_name:
        client.chat_update(channel="#oncall", ts=posted[0]["ts"], text="edited")
    assert refusal(unknown) == refusal(by_name) == "channel_not_found"
    client.chat_update(channel=CHANNEL, ts=posted[0]["ts"], text="edited")
    assert [m.text for m in slack.messages] == ["edited", "x", "x"]


def test_a_reply_needs_its_parent(slack: FakeSlack, client: WebClient) -> None:
    parent = post(client, text="parent")["ts"]
    reply = post(client, text="reply", thread_ts=parent)["ts"]
    with pytest.raises(SlackApiError) as missing:
        post(client, thread_ts="1.000001")
    with pytest.raises(SlackApiError) as nested:
        post(client, thread_ts=reply)
    with pytest.raises(SlackApiError) as elsewhere:
        client.chat_postMessage(channel="C0OTHER", text="x", thread_ts=parent)
    assert refusal(missing) == refusal(elsewhere) == "thread_not_found"
    assert refusal(nested) == "cannot_reply_to_message"
    assert [m.text for m in slack.thread(parent)] == ["parent", "reply"]
    replies = client.conversations_replies(channel=CHANNEL, ts=parent)["messages"]
    assert [m["text"] for m in replies] == ["parent", "reply"]
    with pytest.raises(SlackApiError) as no_thread:
        client.conversations_replies(channel=CHANNEL, ts="1.000001")
    assert refusal(no_thread) == "thread_not_found"
    with pytest.raises(KeyError):
        slack.thread(reply)


def test_an_edit_keeps_the_message_and_its_history(
    slack: FakeSlack, client: WebClient, clock: Clock
) -> None:
    event = {"event_type": "incident", "event_payload": {"id": "i-1"}}
    ts = post(client, text="before", blocks=[section("before")], metadata=event)["ts"]
    clock.now += 60
    client.chat_update(channel=CHANNEL, ts=ts, text="after", blocks=[section("after")])
    (message,) = slack.messages
    assert (message.ts, message.text, message.edited) == (ts, "after", clock.now)
    assert [v.blocks[0]["text"]["text"] for v in message.versions] == ["before", "after"]
    assert message.metadata == event
    client.chat_update(channel=CHANNEL, ts=ts, text="text alone removes the blocks")
    assert message.blocks == []
    with pytest.raises(SlackApiError) as missing:
        client.chat_update(channel=CHANNEL, ts="1.000001", text="x")
    assert refusal(missing) == "message_not_found"
    with pytest.raises(SlackApiError) as bad_metadata:
        post(client, metadata={"event_type": "incident"})
    assert refusal(bad_metadata) == "invalid_metadata_format"


@pytest.mark.parametrize(
    ("content", "notified"),
    [
        ({"text": "<!channel> look"}, {"!channel"}),
        ({"text": "<!here|here> <@U0ALICE>"}, {"!here", "@U0ALICE"}),
        ({"text": "&lt;!channel&gt; and @channel"}, set()),
        ({"text": "@channel", "link_names": True}, {"!channel"}),
        ({"text": "@channel", "parse": "full"}, {"!channel"}),
        ({"blocks": [section("by <!everyone>")]}, {"!everyone"}),
        ({"blocks": [section("&lt;!everyone&gt;")]}, set()),
        ({"blocks": [section("ask @here")]}, {"!here"}),
        ({"blocks": [{"type": "section", "text": plain("<!channel> @here")}]}, set()),
        ({"attachments": [{"text": "<!subteam^S01>"}]}, {"!subteam^S01"}),
        (
            {
                "blocks": [
                    {
                        "type": "section",
                        "text": {"type": "mrkdwn", "text": "@here", "verbatim": True},
                    }
                ]
            },
            set(),
        ),
    ],
)
def test_whom_a_message_notifies(
    slack: FakeSlack, client: WebClient, content: Json, notified: set[str]
) -> None:
    post(client, **content)
    assert slack.messages[0].mentions == notified


def test_a_mention_counts_even_after_it_was_edited_away(
    slack: FakeSlack, client: WebClient
) -> None:
    ts = post(client, text="<!here>")["ts"]
    client.chat_update(channel=CHANNEL, ts=ts, text="<@U0BOB> calm down")
    client.chat_update(channel=CHANNEL, ts=ts, text="calm")
    assert slack.messages[0].mentions == {"!here", "@U0BOB"}


def test_a_channel_takes_one_message_a_second_with_a_burst(clock: Clock) -> None:
    with FakeSlack(channels={CHANNEL: "oncall", "C0OTHER": "other"}, clock=clock) as slack:
        client = WebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=[])
        for _ in range(5):
            post(client)
        with pytest.raises(SlackApiError) as limited:
            post(client)
        assert limited.value.response.status_code == 429
        assert refusal(limited) == "ratelimited"
        assert int(limited.value.response.headers["Retry-After"]) == 5
        client.chat_postMessage(channel="C0OTHER", text="another channel has its own limit")
        clock.now += 5
        post(client)
        assert len(slack.messages) == 7


def test_edits_have_a_tier(clock: Clock) -> None:
    with FakeSlack(updates_per_minute=2, clock=clock) as slack:
        client = WebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=[])
        ts = post(client)["ts"]
        for text in ("one", "two"):
            client.chat_update(channel=CHANNEL, ts=ts, text=text)
        with pytest.raises(SlackApiError) as limited:
            client.chat_update(channel=CHANNEL, ts=ts, text="three")
        assert refusal(limited) == "ratelimited"
        clock.now += 60
        client.chat_update(channel=CHANNEL, ts=ts, text="four")
        assert [v.text for v in slack.messages[0].versions] == ["hello", "one", "two", "four"]


def test_the_clients_own_retry_gets_through_a_rate_limit(slack: FakeSlack) -> None:
    handlers = [
        ConnectionErrorRetryHandler(max_retry_count=2),
        RateLimitErrorRetryHandler(max_retry_count=2),
        ServerErrorRetryHandler(max_retry_count=2),
    ]
    client = WebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=handlers)
    slack.rate_limited(1, retry_after=0)
    post(client)
    assert (len(slack.requests), len(slack.messages)) == (2, 1)


def test_failures_can_be_switched_on_and_off(slack: FakeSlack, client: WebClient) -> None:
    post(client, text="before")

    slack.down()
    with pytest.raises(URLError, match="refused"):
        post(client)
    slack.down(status=503)  # while refusing: still refused
    with pytest.raises(URLError, match="refused"):
        post(client)
    slack.up()

    slack.down(status=503)
    with pytest.raises(SlackApiError) as unavailable:
        post(client)
    assert unavailable.value.response.status_code == 503
    slack.error("fatal_error")
    with pytest.raises(SlackApiError) as fatal:
        post(client)
    assert (fatal.value.response.status_code, refusal(fatal)) == (200, "fatal_error")
    slack.up()

    slack.rate_limited(2, retry_after=7)
    for _ in range(2):
        with pytest.raises(SlackApiError) as limited:
            post(client)
        assert limited.value.response.headers["Retry-After"] == "7"
    post(client, text="after")
    assert [m.text for m in slack.messages] == ["before", "after"]


def test_a_slow_answer_comes_after_the_message_was_posted(slack: FakeSlack) -> None:
    impatient = WebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=[], timeout=1)
    slack.slow(30)
    with pytest.raises(TimeoutError):
        post(impatient, text="sent, though the sender cannot know")
    slack.up()
    post(impatient, text="at once")
    assert len(slack.messages) == 2


def test_only_one_person_sees_an_ephemeral(slack: FakeSlack, client: WebClient) -> None:
    client.chat_postEphemeral(channel=CHANNEL, user="U0BOB", text="Already decided.")
    with pytest.raises(SlackApiError) as stranger:
        client.chat_postEphemeral(channel=CHANNEL, user="U0NOBODY", text="x")
    assert refusal(stranger) == "user_not_in_channel"
    assert [(e.user, e.text) for e in slack.ephemerals] == [("U0BOB", "Already decided.")]
    assert slack.messages == []


def test_a_permalink_leads_to_one_message(client: WebClient) -> None:
    parent = post(client)["ts"]
    reply = post(client, thread_ts=parent)["ts"]
    links = [
        client.chat_getPermalink(channel=CHANNEL, message_ts=ts)["permalink"]
        for ts in (parent, reply)
    ]
    archive = f"https://workspace.example.com/archives/{CHANNEL}"
    assert links == [
        f"{archive}/p{parent.replace('.', '')}",
        f"{archive}/p{reply.replace('.', '')}?thread_ts={parent}&cid={CHANNEL}",
    ]
    with pytest.raises(SlackApiError) as missing:
        client.chat_getPermalink(channel=CHANNEL, message_ts="1.000001")
    assert refusal(missing) == "message_not_found"


def test_a_reaction_is_added_once(slack: FakeSlack, client: WebClient) -> None:
    ts = post(client)["ts"]
    client.reactions_add(channel=CHANNEL, timestamp=ts, name="eyes")
    with pytest.raises(SlackApiError) as again:
        client.reactions_add(channel=CHANNEL, timestamp=ts, name="eyes")
    with pytest.raises(SlackApiError) as missing:
        client.reactions_add(channel=CHANNEL, timestamp="1.000001", name="eyes")
    assert (refusal(again), refusal(missing)) == ("already_reacted", "message_not_found")
    assert slack.messages[0].reactions == ["eyes"]


def test_a_picture_lands_in_the_thread(slack: FakeSlack, client: WebClient) -> None:
    parent = post(client)["ts"]
    client.files_upload_v2(
        channel=CHANNEL,
        thread_ts=parent,
        filename="depth.png",
        title="Depth",
        alt_txt="Rises to 12,900.",
        content=b"\x89PNG",
    )
    announced = client.files_getUploadURLExternal(filename="later.png", length=4)["file_id"]
    for missing in (announced, "F404"):
        with pytest.raises(SlackApiError) as never_uploaded:
            client.files_completeUploadExternal(
                files=[{"id": missing, "title": "x"}], channel_id=CHANNEL
            )
        assert refusal(never_uploaded) == "file_not_found"
    with pytest.raises(SlackApiError) as empty:
        client.files_getUploadURLExternal(filename="depth.png", length=0)
    assert refusal(empty) == "missing_argument"
    _, reply = slack.thread(parent)
    (file,) = reply.files
    assert (file.name, file.title, file.content) == ("depth.png", "Depth", b"\x89PNG")
    assert file.alt == "Rises to 12,900."
    assert file.message_ts == reply.ts


def uploaded(slack: FakeSlack, client: WebClient) -> str:
    announced = client.files_getUploadURLExternal(filename="depth.png", length=4)
    with urllib.request.urlopen(announced["upload_url"], data=b"\x89PNG") as answer:  # noqa: S310 -- the fake's
        assert answer.status == 200
    assert slack.files[-1].content == b"\x89PNG"
    return str(announced["file_id"])


def test_an_upload_is_completed_once(slack: FakeSlack, client: WebClient) -> None:
    post(client)
    file: Json = {"id": uploaded(slack, client), "title": "Depth"}
    client.files_completeUploadExternal(files=[file], channel_id=CHANNEL)
    with pytest.raises(SlackApiError) as again:
        client.files_completeUploadExternal(files=[file], channel_id=CHANNEL)
    assert refusal(again) == "file_not_found"
    assert len([message for message in slack.messages if message.files]) == 1


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ({"channel_id": "C404"}, "channel_not_found"),
        ({"channel_id": "#oncall"}, "channel_not_found"),
        ({"channel_id": CHANNEL, "thread_ts": "1.000001"}, "thread_not_found"),
    ],
)
def test_a_picture_needs_a_channel_id_and_a_thread(
    slack: FakeSlack, client: WebClient, where: Json, code: str
) -> None:
    file: Json = {"id": uploaded(slack, client), "title": "Depth"}
    with pytest.raises(SlackApiError) as refused:
        client.files_completeUploadExternal(files=[file], **where)
    assert refusal(refused) == code
    assert slack.messages == []


def test_alt_text_has_a_limit(client: WebClient) -> None:
    client.files_getUploadURLExternal(filename="a.png", length=1, alt_txt="x" * 1000)
    with pytest.raises(SlackApiError) as long:
        client.files_getUploadURLExternal(filename="a.png", length=1, alt_txt="x" * 1001)
    assert refusal(long) == "alt_txt_too_large"


def test_a_picture_needs_the_scope(slack: FakeSlack, client: WebClient) -> None:
    slack.lacks("files:write")
    post(client)
    with pytest.raises(SlackApiError) as refused:
        client.files_upload_v2(channel=CHANNEL, filename="a.png", content=b"x")
    assert refusal(refused) == "missing_scope"
    assert refused.value.response["needed"] == "files:write"
    slack.up()
    client.files_upload_v2(channel=CHANNEL, filename="a.png", content=b"x")


def test_uploads_are_tier_4(slack: FakeSlack, client: WebClient) -> None:
    for _ in range(100):
        client.files_getUploadURLExternal(filename="a.png", length=1)
    with pytest.raises(SlackApiError) as limited:
        client.files_getUploadURLExternal(filename="a.png", length=1)
    assert limited.value.response.status_code == 429
    assert len(slack.files) == 100


class Receiver(BaseHTTPRequestHandler):
    """The product's side of a click: verify, answer, remember."""

    secret = ""
    delay = 0.0
    received: ClassVar[list[Json]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        valid = SignatureVerifier(self.secret).is_valid_request(body, dict(self.headers.items()))
        if valid:
            self.received.append(json.loads(parse_qs(body.decode())["payload"][0]))
        time.sleep(self.delay)
        self.send_response(200 if valid else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[str]:
    Receiver.received.clear()
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def asking() -> Iterator[tuple[FakeSlack, WebClient]]:
    """Slack by the real clock (signatures age) with a message that asks for a decision."""
    with FakeSlack(rate=100) as slack:
        client = WebClient(slack.bot_token, base_url=slack.base_url, retry_handlers=[])
        Receiver.secret = slack.signing_secret
        post(
            client,
            blocks=[
                SectionBlock(text="Raise 20 to 60?"),
                ActionsBlock(
                    block_id="decision",
                    elements=[
                        ButtonElement(
                            text="Approve",
                            action_id="approve",
                            value="i-1|approve",
                            style="primary",
                            confirm=ConfirmObject(title="Sure?", text="*60* it is"),
                        ),
                        ButtonElement(text="Reject", action_id="reject", value="i-1|reject"),
                    ],
                ),
            ],
        )
        yield slack, client


def test_a_click_is_a_signed_request_of_slacks_shape(
    asking: tuple[FakeSlack, WebClient], receiver: str
) -> None:
    slack, _ = asking
    (message,) = slack.messages
    shown = [(b.text, b.value, b.style) for b in slack.buttons(message)]
    assert shown == [("Approve", "i-1|approve", "primary"), ("Reject", "i-1|reject", None)]

    click = slack.click(message, "approve", user="U0BOB", url=receiver)

    assert (click.status, click.acknowledged) == (200, True)
    (payload,) = Receiver.received
    assert payload["type"] == "block_actions"
    assert payload["user"]["id"] == "U0BOB"
    assert payload["channel"] == {"id": CHANNEL, "name": "oncall"}
    assert payload["container"]["message_ts"] == payload["message"]["ts"] == message.ts
    assert payload["response_url"] == click.response_url
    (action,) = payload["actions"]
    assert (action["action_id"], action["block_id"]) == ("approve", "decision")
    assert (action["type"], action["value"]) == ("button", "i-1|approve")


def test_a_forged_or_old_click_is_recognisable(
    asking: tuple[FakeSlack, WebClient], receiver: str
) -> None:
    slack, _ = asking
    (message,) = slack.messages
    forged = slack.click(message, "approve", url=receiver, signing_secret="guessed")
    old = slack.click(message, "approve", url=receiver, timestamp=time.time() - 400)
    assert [forged.status, old.status, forged.acknowledged] == [401, 401, False]
    assert Receiver.received == []


def test_a_replay_is_the_very_same_request(
    asking: tuple[FakeSlack, WebClient], receiver: str
) -> None:
    slack, _ = asking
    first = slack.click(slack.messages[0], "approve", url=receiver)
    again = slack.replay(first)
    assert again.status == 200
    assert Receiver.received[0] == Receiver.received[1]
    assert again.request_headers == first.request_headers


def test_a_button_that_is_gone_can_only_be_pressed_on_a_stale_screen(
    asking: tuple[FakeSlack, WebClient], receiver: str
) -> None:
    slack, client = asking
    (message,) = slack.messages
    client.chat_update(channel=CHANNEL, ts=message.ts, text="x", blocks=[section("Approved.")])
    assert slack.buttons(message) == []
    with pytest.raises(NoSuchButtonError, match="no button"):
        slack.click(message, "approve", url=receiver)
    assert slack.click(message, "approve", url=receiver, stale=True).acknowledged
    with pytest.raises(NoSuchButtonError):
        slack.click(message, "explode", url=receiver, stale=True)


def test_a_click_that_nobody_acknowledges_in_time_shows_an_error(
    asking: tuple[FakeSlack, WebClient], receiver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slack, _ = asking
    monkeypatch.setattr("local.slack.ACKNOWLEDGE_SECONDS", 0.1)
    monkeypatch.setattr(Receiver, "delay", 0.3)
    late = slack.click(slack.messages[0], "approve", url=receiver)
    nobody = slack.click(slack.messages[0], "approve", url="http://127.0.0.1:1/")
    assert [late.status, late.acknowledged, nobody.status] == [None, False, None]


def test_a_response_url_answers_the_one_who_clicked(
    slack: FakeSlack, client: WebClient, clock: Clock, receiver: str
) -> None:
    post(client, blocks=[section(), actions(button(action_id="approve"))])
    (message,) = slack.messages
    webhook = WebhookClient(
        slack.click(message, "approve", user="U0BOB", url=receiver).response_url
    )
    assert webhook.send(text="Already decided by @alice.").status_code == 200
    assert [(e.user, e.text) for e in slack.ephemerals] == [("U0BOB", "Already decided by @alice.")]
    webhook.send(text="Approved.", replace_original=True)
    assert (message.text, message.blocks) == ("Approved.", [])
    webhook.send(text="everybody", response_type="in_channel")
    assert slack.messages[-1].text == "everybody"
    assert webhook.send(text="").status_code == 400
    assert [webhook.send(text="x").status_code for _ in range(3)] == [200, 200, 404]

    other = WebhookClient(
        slack.click(message, "approve", user="U0BOB", url=receiver, stale=True).response_url
    )
    clock.now += 30 * 60 - 1
    assert other.send(text="just in time").status_code == 200
    clock.now += 1
    assert other.send(text="too late").status_code == 404
    assert [e.text for e in slack.ephemerals[-2:]] == ["x", "just in time"]


def test_a_thread_reads_as_it_would_in_slack(
    slack: FakeSlack, client: WebClient, clock: Clock
) -> None:
    deadline = int(clock.now) + 21 * 60
    asked = [
        HeaderBlock(text=":large_orange_circle: orders: 12,900 waiting. Raise 20 to 60?"),
        SectionBlock(
            fields=[
                MarkdownTextObject(text="*What happened*\nover 5,000 since 02:54 &amp; rising"),
                MarkdownTextObject(
                    text=f"*I need*\nyour yes by <!date^{deadline}^{{time}}|later>, <@U0ALICE>"
                ),
            ]
        ),
        SectionBlock(text="by hand: `aws sqs * _x_` or <https://example.com/a_b_c|the runbook>"),
        ActionsBlock(
            elements=[
                ButtonElement(text="Approve", action_id="approve", value="1"),
                ButtonElement(text="Reject", action_id="reject", value="1"),
                ButtonElement(text="Runbook", action_id="runbook", url="https://example.com/"),
            ]
        ),
        ContextBlock(elements=[MarkdownTextObject(text="prod"), MarkdownTextObject(text="_eu_")]),
    ]
    ts = post(client, blocks=asked)["ts"]
    header = slack.messages[0]
    assert slack.render_text(header) == (
        "#oncall  03:00\n"
        "🟠 orders: 12,900 waiting. Raise 20 to 60?\n"
        "   What happened   over 5,000 since 02:54 & rising\n"
        "   I need          your yes by 03:21, @alice\n"
        "   by hand: `aws sqs * _x_` or the runbook ↗\n"
        "   [Approve] [Reject] [Runbook ↗]\n"
        "   prod  eu"
    )

    clock.now += 120
    client.chat_update(
        channel=CHANNEL, ts=ts, text="done", blocks=[section("🟢 *orders*: drained.")]
    )
    client.chat_postMessage(channel=CHANNEL, thread_ts=ts, text="*alice* approved: 20 → 60")
    clock.now += 60
    picture: Json = {"filename": "depth.png", "title": "depth", "content": "png"}
    client.files_upload_v2(channel=CHANNEL, thread_ts=ts, **picture)
    assert slack.render_text(slack.thread(ts)) == (
        "#oncall  03:00, updated 03:02\n"
        "🟢 orders: drained.\n"
        "   ↳ 03:02 alice approved: 20 → 60\n"
        "   ↳ 03:03 [graph: depth]"
    )


def test_what_was_escaped_reads_as_it_was_meant(slack: FakeSlack, client: WebClient) -> None:
    post(client, text="alarm says &lt;!channel&gt; *now* <!here> ~old~ a*b*c snake_case_name")
    _, line = slack.render_text(slack.messages[0]).splitlines()
    assert line == "alarm says <!channel> now @here old a*b*c snake_case_name"


def test_long_lines_wrap_under_their_text(slack: FakeSlack, client: WebClient) -> None:
    ts = post(client, text="head")["ts"]
    post(client, thread_ts=ts, text="one two three four five six seven eight nine ten")
    assert slack.render_text(slack.thread(ts), width=40).splitlines()[2:] == [
        "   ↳ 03:00 one two three four five six",
        "           seven eight nine ten",
    ]
