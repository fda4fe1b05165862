"""Slack and PagerDuty as the report speaks to them: bounded waits, bounded retries, named errors.

``ChannelDown`` means "try later", ``Refused`` "this very payload will never be taken".
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2
import pagerduty
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.http_retry.builtin_handlers import (
    ConnectionErrorRetryHandler,
    RateLimitErrorRetryHandler,
    ServerErrorRetryHandler,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oncall.links import Links
    from oncall.messages import Message
    from oncall.pages import Page

TIMEOUT_SECONDS = 5
_PAYLOAD_ERRORS = frozenset(
    {
        "invalid_blocks",
        "invalid_blocks_format",
        "invalid_attachments",
        "msg_blocks_too_long",
        "msg_too_long",
        "no_text",
        "markdown_text_conflict",
        "invalid_arguments",
    }
)
_MESSAGE_GONE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
_THREAD_GONE = frozenset({"thread_not_found", "cannot_reply_to_message"})
_BAD_REQUEST = 400


class ChannelDown(Exception):  # noqa: N818 -- a state of the world, told as NotDelivered
    """The channel could not be reached, is overloaded, or refuses us: try later."""


class Refused(Exception):  # noqa: N818 -- as above
    """The channel refuses this payload; a plainer one may pass."""


class Gone(Exception):  # noqa: N818 -- as above
    """The message or thread no longer exists."""


class SlackChannel:
    """One Slack channel, spoken to with a bot token (scopes ``chat:write`` and ``files:write``).

    One that is not ``patient`` tries once and waits for no rate limit.
    """

    def __init__(
        self, token: str, channel: str, api_url: str = "", *, patient: bool = True
    ) -> None:
        retries = [
            ConnectionErrorRetryHandler(max_retry_count=1),
            RateLimitErrorRetryHandler(max_retry_count=2),
            ServerErrorRetryHandler(max_retry_count=1),
        ]
        self._client = WebClient(
            token=token,
            base_url=api_url or WebClient.BASE_URL,
            timeout=TIMEOUT_SECONDS,
            retry_handlers=retries if patient else [],
        )
        self.channel = channel

    def post(self, message: Message, thread: str = "") -> str:
        """Post a message, or a reply to ``thread``; return its ``ts``."""
        arguments: dict[str, Any] = {
            "channel": self.channel,
            "text": message.text,
            "unfurl_links": False,
            "unfurl_media": False,
        }
        if message.blocks:
            arguments["blocks"] = list(message.blocks)
        if thread:
            arguments |= {"thread_ts": thread, "reply_broadcast": message.broadcast}
        answer = self._call("chat.postMessage", arguments)
        # chat.update takes an id only, and the channel may be configured by name.
        self.channel = str(answer["channel"])
        return str(answer["ts"])

    def update(self, ts: str, message: Message) -> None:
        """Edit a message; one without blocks loses those it had."""
        self._call(
            "chat.update",
            {
                "channel": self.channel,
                "ts": ts,
                "text": message.text,
                "blocks": list(message.blocks),
            },
        )

    def permalink(self, ts: str) -> str:
        """Return the message's address."""
        answer = self._call("chat.getPermalink", {"channel": self.channel, "message_ts": ts})
        return str(answer["permalink"])

    def upload(self, picture: bytes, *, name: str, title: str, alt: str, thread: str) -> None:
        """Share a picture in ``thread``; the channel has to be given by its id.

        files.getUploadURLExternal, the upload and files.completeUploadExternal: only the last shows
        anything to anybody.
        """
        with _errors_of("files_upload_v2"):
            self._client.files_upload_v2(
                content=picture,
                filename=name,
                title=title,
                alt_txt=alt,
                channel=self.channel,
                thread_ts=thread,
            )

    def _call(self, method: str, arguments: dict[str, Any]) -> Any:
        with _errors_of(method):
            # chat.getPermalink takes no JSON body (https://docs.slack.dev/apis/web-api).
            if method == "chat.getPermalink":
                return self._client.api_call(method, params=arguments)
            return self._client.api_call(method, json=arguments)


@contextmanager
def _errors_of(method: str) -> Iterator[None]:
    """Raise what the SDK raises as this module's own errors."""
    try:
        yield
    except SlackApiError as error:
        code = str(error.response.get("error", error.response.status_code))
        if code in _PAYLOAD_ERRORS:
            raise Refused(f"Slack {method}: {code}") from error
        if code in _MESSAGE_GONE | _THREAD_GONE:
            raise Gone(f"Slack {method}: {code}") from error
        raise ChannelDown(f"Slack {method}: {code}{_remedy(error, code)}") from error
    except (SlackClientError, OSError, ValueError) as error:
        raise ChannelDown(f"Slack {method}: {type(error).__name__}") from error


def _remedy(error: SlackApiError, code: str) -> str:
    """Say what puts right that Slack lets the bot do less than it needs."""
    if code == "not_in_channel":
        return "; invite the bot to the channel"
    needed = error.response.get("needed") if code == "missing_scope" else None
    return f"; give the bot the scope {needed}" if needed else ""


class _LocalTransport(httpx2.HTTPTransport):
    """Carries what the client addresses to https, as it insists on, to a server on 127.0.0.1."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = httpx2.URL(address)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send to the local server over plain HTTP."""
        request.url = request.url.copy_with(
            scheme="http", host=self._address.host, port=self._address.port
        )
        return super().handle_request(request)


class PagerDuty:
    """Events API v2 under one or two routing keys."""

    def __init__(self, routing_key: str, escalation_key: str = "", events_url: str = "") -> None:
        self._events = _events_client(routing_key, events_url)
        self._escalation = (
            _events_client(escalation_key, events_url) if escalation_key else self._events
        )

    def send(self, page: Page, links: Links) -> None:
        """Send one event; a refused one is sent again with the summary alone."""
        client = self._escalation if page.escalated else self._events
        try:
            try:
                self._send(client, page, page.payload, links)
            except pagerduty.HttpError as error:
                if _status(error) != _BAD_REQUEST:
                    raise
                least = ("summary", "source", "severity")
                payload = {name: page.payload[name] for name in least if name in page.payload}
                self._send(client, page, payload, None)
        except pagerduty.HttpError as error:
            raise ChannelDown(f"PagerDuty: status {_status(error)}") from error
        except (pagerduty.Error, httpx2.HTTPError) as error:
            raise ChannelDown(f"PagerDuty: {type(error).__name__}") from error

    def _send(
        self,
        client: pagerduty.EventsApiV2Client,
        page: Page,
        payload: Any,
        links: Links | None,
    ) -> None:
        named = links.named() if links else []
        shown = [{"href": address, "text": name} for name, address in named]
        if page.action == "change":
            client.send_change_event(payload=dict(payload), links=shown)
            return
        properties: dict[str, Any] = {}
        if payload:
            properties["payload"] = dict(payload)
        if page.action == "trigger" and links:
            properties |= {"links": shown, "client": "runbooks", "client_url": links.execution}
        client.send_event(page.action, page.dedup_key, **properties)


def _status(error: pagerduty.HttpError) -> int:
    return int(error.response.status_code) if error.response is not None else 0


def _events_client(routing_key: str, events_url: str) -> pagerduty.EventsApiV2Client:
    """Make a client whose waits and retries end: it retries 429 without limit by default."""
    local = urlsplit(events_url)
    if local.scheme == "http":
        if local.hostname != "127.0.0.1":
            raise ValueError(
                f"PAGERDUTY_EVENTS_URL: {events_url} is not https. "
                f"Give for example https://events.eu.pagerduty.com."
            )
        client = pagerduty.EventsApiV2Client(
            routing_key, base_url="https://127.0.0.1", transport=_LocalTransport(events_url)
        )
    else:
        client = pagerduty.EventsApiV2Client(routing_key, base_url=events_url or None)
    client.retry = {429: 2, 500: 1, 502: 1, 503: 1, 504: 1}
    client.max_network_attempts = 1
    client.sleep_timer = 0.5
    client.timeout = TIMEOUT_SECONDS
    return client
