"""A Slack workspace that a laptop can run, strict where Slack is strict.

The product's own `slack_sdk.WebClient` talks to it through `base_url`. It refuses what Slack
refuses (the SDK checks next to nothing), keeps what a channel would show, and lets a test or the
demo press a button as a person would: with a request that is signed like Slack's.

Sources, unless a docstring names another: https://docs.slack.dev/reference/methods (errors of each
method), https://docs.slack.dev/reference/block-kit (limits of blocks and elements),
https://docs.slack.dev/apis/web-api/rate-limits and
https://docs.slack.dev/authentication/verifying-requests-from-slack.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from local.block_kit import MAX_ATTACHMENTS, block_errors, ids_filled_in, texts_of, total_text
from local.fake_http import Answer, FakeService, RateLimit, Request
from local.slack_text import rendered_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import tzinfo

type Json = dict[str, Any]

MAX_TEXT = 40_000
"""chat.postMessage truncates a longer text."""
MAX_UPDATE_TEXT = 4_000
"""chat.update refuses a longer one with msg_too_long."""
MAX_BLOCK_TEXT = 13_200
"""All text of a message's blocks together; measured by users, documented nowhere:
https://github.com/slackapi/bolt-js/issues/2509."""
RESPONSE_URL_USES = 5
RESPONSE_URL_SECONDS = 30 * 60
"""https://docs.slack.dev/interactivity/handling-user-interaction#message_responses"""
ACKNOWLEDGE_SECONDS = 3.0
"""An interaction that is not acknowledged by then shows the person an error."""

MAX_ALT_TEXT = 1_000
"""https://docs.slack.dev/reference/methods/files.getUploadURLExternal, alt_txt_too_large"""

_SCOPES = {
    "chat.postMessage": "chat:write",
    "chat.update": "chat:write",
    "chat.postEphemeral": "chat:write",
    "conversations.replies": "channels:history",
    "reactions.add": "reactions:write",
    "files.getUploadURLExternal": "files:write",
    "files.completeUploadExternal": "files:write",
}
"""What a bot token needs for a method, by the method's page; the others need none."""
_FILES_PER_MINUTE = 100
"""Of each of the two methods: tier 4 is 100 or more a minute."""
_BURST_SECONDS = 5
_ESCAPED_MENTION = re.compile(r"<(!(?:channel|here|everyone|subteam\^\w+)|@[UW]\w+)(?:\|[^>]*)?>")
_BARE_MENTION = re.compile(r"(?<![\w@])@(channel|here|everyone)\b")


class NoSuchButtonError(LookupError):
    """A click on a button that the person's screen does not show."""


@dataclass(frozen=True)
class Version:
    """What a message said from `at` (seconds since the epoch) until its next version."""

    at: float
    text: str
    blocks: list[Json]
    attachments: list[Json]
    metadata: Json


@dataclass
class Message:
    """One message of a channel or thread, with every version that it ever had."""

    channel: str
    ts: str
    thread_ts: str | None
    user: str
    versions: list[Version]
    mentions: set[str] = field(default_factory=set)
    """Whom any version would have notified: `!channel`, `!here`, `@U…`."""
    reactions: list[str] = field(default_factory=list)
    files: list[File] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The notification's text, and the message's own when it has no blocks."""
        return self.versions[-1].text

    @property
    def blocks(self) -> list[Json]:
        """Blocks as they are now; Slack fills in the ids that the sender left out."""
        return self.versions[-1].blocks

    @property
    def attachments(self) -> list[Json]:
        """Attachments as they are now."""
        return self.versions[-1].attachments

    @property
    def metadata(self) -> Json:
        """Metadata as it is now; empty when there is none."""
        return self.versions[-1].metadata

    @property
    def posted_at(self) -> float:
        """Seconds since the epoch."""
        return self.versions[0].at

    @property
    def edited(self) -> float | None:
        """When it was last edited, in seconds since the epoch; None if never."""
        return self.versions[-1].at if len(self.versions) > 1 else None


@dataclass(frozen=True)
class Button:
    """A button of a message, as a person would see it."""

    action_id: str
    block_id: str
    text: str
    value: str | None
    style: str | None
    url: str | None
    confirm: Json | None


@dataclass(frozen=True)
class Ephemeral:
    """A message that only `user` saw."""

    channel: str
    user: str
    text: str
    blocks: list[Json]
    thread_ts: str | None


@dataclass
class File:
    """An uploaded file; `message_ts` is None until it has been shared."""

    id: str
    name: str
    title: str
    alt: str = ""
    """For screen readers."""
    content: bytes = b""
    message_ts: str | None = None
    is_complete: bool = False


@dataclass(frozen=True)
class Click:
    """A click that was sent: the request as it went out, and what came back.

    `status` is None when nothing came back within `ACKNOWLEDGE_SECONDS`.
    """

    url: str
    request_body: bytes
    request_headers: Mapping[str, str]
    response_url: str
    status: int | None
    body: str

    @property
    def acknowledged(self) -> bool:
        """Whether the person saw no error: a 2xx answer in time."""
        return self.status is not None and self.status // 100 == 2  # noqa: PLR2004 -- HTTP's 2xx


@dataclass
class _ResponseUrl:
    channel: str
    user: str
    message_ts: str
    expires: float
    uses: int = 0


class _SlackError(Exception):
    """Ends a method with `{"ok": false, "error": code}`."""

    def __init__(self, code: str, messages: Sequence[str] = ()) -> None:
        super().__init__(code)
        self.code = code
        self.messages = list(messages)


class _RateLimitedError(Exception):
    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class FakeSlack(FakeService):
    """Slack on 127.0.0.1; use it as a context manager.

    `channels` maps ids to names, `users` ids to display names. `rate` is messages a second for
    each channel, with a burst of five seconds' worth; `updates_per_minute` is chat.update's tier
    (3: 50 or more a minute).
    """

    def __init__(
        self,
        *,
        channels: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        rate: float = 1.0,
        updates_per_minute: int = 50,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock)
        self.bot_token = "xoxb-fake-bot-token"  # noqa: S105 -- a dummy, accepted by this fake alone
        self.signing_secret = "fake-signing-secret"  # noqa: S105 -- signs this fake's clicks alone
        self.bot_user = "U0RUNBOOKS"
        self.channels = dict(channels or {"C0ONCALL": "oncall"})
        self.users = {
            self.bot_user: "runbooks",
            **(users or {"U0ALICE": "alice", "U0BOB": "bob"}),
        }
        self.messages: list[Message] = []
        """Every message, oldest first."""
        self.ephemerals: list[Ephemeral] = []
        self.files: list[File] = []
        self.scopes = set(_SCOPES.values())
        """What the bot's token may."""
        self._response_urls: dict[str, _ResponseUrl] = {}
        burst = max(1, round(rate * _BURST_SECONDS))
        self._post_rate = RateLimit(burst, burst / rate, clock)
        self._file_rate = RateLimit(_FILES_PER_MINUTE, 60, clock)
        self._update_rate = RateLimit(updates_per_minute, 60, clock)
        self._last_ts = 0
        self._methods: dict[str, Callable[[Json], Json]] = {
            "auth.test": self._auth_test,
            "chat.postMessage": self._post_message,
            "chat.update": self._update,
            "chat.postEphemeral": self._post_ephemeral,
            "chat.getPermalink": self._get_permalink,
            "conversations.replies": self._replies,
            "reactions.add": self._add_reaction,
            "files.getUploadURLExternal": self._get_upload_url,
            "files.completeUploadExternal": self._complete_upload,
        }

    def lacks(self, scope: str) -> None:
        """Take a scope away from the bot's token until `up()`."""
        self.scopes.discard(scope)

    def up(self) -> None:
        """End every failure mode, and give back the scopes that were taken away."""
        self.scopes = set(_SCOPES.values())
        super().up()

    @property
    def base_url(self) -> str:
        """`WebClient(base_url=…)`: `http://127.0.0.1:<port>/api/`."""
        return f"{self.origin}/api/"

    def thread(self, ts: str) -> list[Message]:
        """Return the message with this ts and its replies, oldest first; KeyError if unknown."""
        found = [m for m in self.messages if ts in {m.ts, m.thread_ts}]
        if not found or found[0].thread_ts is not None:
            raise KeyError(ts)
        return found

    def buttons(self, message: Message) -> list[Button]:
        """Return the buttons that the message shows now, in order."""
        return _buttons(message.blocks)

    def render_text(
        self, message: Message | Sequence[Message], *, zone: tzinfo | None = None, width: int = 100
    ) -> str:
        """Write a message or a thread as a person reads it in Slack; times in `zone` (UTC)."""
        thread = [message] if isinstance(message, Message) else list(message)
        return rendered_thread(thread, self.users, self.channels, zone=zone, width=width)

    def click(
        self,
        message: Message,
        action_id: str,
        *,
        url: str,
        user: str = "U0ALICE",
        stale: bool = False,
        signing_secret: str | None = None,
        timestamp: float | None = None,
    ) -> Click:
        """Press a button: send a signed block_actions request to `url` and wait for the answer.

        With `stale` the person's screen still shows the last version that had the button. Another
        `signing_secret` or an old `timestamp` (seconds since the epoch) make a forged request.
        Payload: https://docs.slack.dev/reference/interaction-payloads/block_actions-payload.
        Raises NoSuchButtonError.
        """
        with self._lock:
            payload = self._block_actions(message, action_id, user, stale=stale)
        body = urlencode({"payload": json.dumps(payload)}).encode()
        sent_at = str(int(self.clock() if timestamp is None else timestamp))
        secret = (signing_secret or self.signing_secret).encode()
        digest = hmac.new(secret, b"v0:" + sent_at.encode() + b":" + body, hashlib.sha256)
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
            "X-Slack-Request-Timestamp": sent_at,
            "X-Slack-Signature": f"v0={digest.hexdigest()}",
        }
        return _send_click(url, body, headers, payload["response_url"])

    def replay(self, click: Click) -> Click:
        """Send the very same request again, as somebody who recorded it would."""
        return _send_click(click.url, click.request_body, click.request_headers, click.response_url)

    def answer(self, request: Request) -> Answer:
        """Route one request."""
        match request.path.strip("/").split("/"):
            case ["api", method]:
                return self._call(method, request)
            case ["upload", "v1", file_id]:
                return self._upload(file_id, request)
            case ["actions", key]:
                return self._respond_to_interaction(key, request)
        return Answer(404, "not found")

    def too_many_requests(self, retry_after: int) -> Answer:
        """429 with Retry-After in seconds."""
        body = {"ok": False, "error": "ratelimited"}
        return Answer(429, body, {"Retry-After": str(retry_after)})

    def failure(self, code: str, status: int | None) -> Answer:
        """`{"ok": false}` with status 200, which is how Slack reports its own failures too."""
        return Answer(status or 200, {"ok": False, "error": code})

    def _call(self, method: str, request: Request) -> Answer:
        body: Json
        try:
            arguments = _arguments(request)
            self._authenticate(request, arguments)
            if method not in self._methods:
                return self.failure("unknown_method", None)
            needed = _SCOPES.get(method, "")
            if needed and needed not in self.scopes:
                provided = ",".join(sorted(self.scopes))
                body = {"ok": False, "error": "missing_scope", "needed": needed}
                return Answer(200, body | {"provided": provided})
            return Answer(200, {"ok": True, **self._methods[method](arguments)})
        except _SlackError as refusal:
            body = {"ok": False, "error": refusal.code}
            if refusal.messages:
                body["errors"] = refusal.messages
                body["response_metadata"] = {"messages": [f"[ERROR] {m}" for m in refusal.messages]}
            return Answer(200, body)
        except _RateLimitedError as limit:
            return self.too_many_requests(limit.retry_after)

    def _authenticate(self, request: Request, arguments: Json) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            token = arguments.pop("token", "")
        if not token:
            raise _SlackError("not_authed")
        if token != self.bot_token:
            raise _SlackError("invalid_auth")

    def _auth_test(self, _: Json) -> Json:
        return {
            "url": "https://workspace.example.com/",
            "team": "workspace",
            "team_id": "T0WORKSPACE",
            "user": self.users[self.bot_user],
            "user_id": self.bot_user,
            "bot_id": "B0RUNBOOKS",
        }

    def _post_message(self, arguments: Json) -> Json:
        channel = self._channel(arguments, by_name=True)
        content = _content(arguments)
        thread_ts = arguments.get("thread_ts")
        if thread_ts is not None:
            parent = self._message(channel, thread_ts, "thread_not_found")
            if parent.thread_ts is not None:
                # Slack only warns against replying to a reply; such a message would be lost.
                raise _SlackError("cannot_reply_to_message")
        _wait_for(self._post_rate, channel)
        message = self._store(channel, thread_ts, content, link_names=_links_names(arguments))
        return {"channel": channel, "ts": message.ts, "message": self._as_json(message)}

    def _store(
        self,
        channel: str,
        thread_ts: str | None,
        content: Version,
        *,
        link_names: bool = False,
        files: Sequence[File] = (),
    ) -> Message:
        ts = self._next_ts()
        version = Version(
            float(ts),
            content.text[:MAX_TEXT],
            ids_filled_in(content.blocks, ts),
            content.attachments,
            content.metadata,
        )
        mentions = _mentions(version, link_names=link_names)
        message = Message(channel, ts, thread_ts, self.bot_user, [version], mentions)
        message.files = list(files)
        for file in files:
            file.message_ts = ts
        self.messages.append(message)
        return message

    def _update(self, arguments: Json) -> Json:
        channel = self._channel(arguments, by_name=False)
        message = self._message(channel, arguments.get("ts"), "message_not_found")
        content = _content(arguments)
        if len(content.text) > MAX_UPDATE_TEXT:
            raise _SlackError("msg_too_long")
        _wait_for(self._update_rate, "chat.update")
        self._edit(message, content, arguments)
        return {
            "channel": channel,
            "ts": message.ts,
            "text": message.text,
            "message": self._as_json(message),
        }

    def _edit(self, message: Message, content: Version, arguments: Json) -> None:
        """Replace a message; chat.update keeps what was left out, save blocks under a new text."""
        before = message.versions[-1]
        at = self.clock()
        keep_blocks = "blocks" not in arguments and not content.text
        version = Version(
            at,
            content.text if "text" in arguments else before.text,
            before.blocks if keep_blocks else ids_filled_in(content.blocks, f"{at:.6f}"),
            content.attachments if "attachments" in arguments else before.attachments,
            content.metadata if "metadata" in arguments else before.metadata,
        )
        message.versions.append(version)
        message.mentions |= _mentions(version, link_names=_links_names(arguments))

    def _post_ephemeral(self, arguments: Json) -> Json:
        channel = self._channel(arguments, by_name=True)
        user = arguments.get("user")
        if user not in self.users:
            raise _SlackError("user_not_in_channel")
        content = _content(arguments)
        self.ephemerals.append(
            Ephemeral(channel, user, content.text, content.blocks, arguments.get("thread_ts"))
        )
        return {"message_ts": self._next_ts()}

    def _get_permalink(self, arguments: Json) -> Json:
        channel = self._channel(arguments, by_name=False)
        message = self._message(channel, arguments.get("message_ts"), "message_not_found")
        link = f"https://workspace.example.com/archives/{channel}/p{message.ts.replace('.', '')}"
        if message.thread_ts is not None:
            link += f"?thread_ts={message.thread_ts}&cid={channel}"
        return {"channel": channel, "permalink": link}

    def _replies(self, arguments: Json) -> Json:
        channel = self._channel(arguments, by_name=False)
        message = self._message(channel, arguments.get("ts"), "thread_not_found")
        thread = [m for m in self.thread(message.thread_ts or message.ts) if m.channel == channel]
        return {"messages": [self._as_json(m) for m in thread], "has_more": False}

    def _add_reaction(self, arguments: Json) -> Json:
        channel = self._channel(arguments, by_name=False)
        message = self._message(channel, arguments.get("timestamp"), "message_not_found")
        name = arguments.get("name")
        if not name:
            raise _SlackError("no_reaction")
        if name in message.reactions:
            raise _SlackError("already_reacted")
        message.reactions.append(name)
        return {}

    def _get_upload_url(self, arguments: Json) -> Json:
        """See https://docs.slack.dev/reference/methods/files.getUploadURLExternal."""
        length = str(arguments.get("length") or 0)
        if not length.isdecimal():
            raise _SlackError("invalid_arguments")
        if not arguments.get("filename") or int(length) == 0:
            raise _SlackError("missing_argument")
        alt = str(arguments.get("alt_txt") or "")
        if len(alt) > MAX_ALT_TEXT:
            raise _SlackError("alt_txt_too_large")
        _wait_for(self._file_rate, "files.getUploadURLExternal")
        file_id = f"F{len(self.files) + 1:08d}"
        name = arguments["filename"]
        self.files.append(File(file_id, name, name, alt))
        return {"file_id": file_id, "upload_url": f"{self.origin}/upload/v1/{file_id}"}

    def _upload(self, file_id: str, request: Request) -> Answer:
        """Take a file's raw bytes; "a non-200 response indicates a failure" is all it says."""
        for file in self.files:
            if file.id == file_id and not file.is_complete:
                file.content = request.body
                return Answer(200, f"OK - {len(request.body)}")
        return Answer(404, "not found")

    def _complete_upload(self, arguments: Json) -> Json:
        """See https://docs.slack.dev/reference/methods/files.completeUploadExternal."""
        asked = _json_argument(arguments, "files", list, "invalid_arguments")
        if not asked:
            raise _SlackError("invalid_arguments")
        named = arguments.get("channel_id")
        channel = None if named is None else self._channel({"channel": named}, by_name=False)
        thread_ts = arguments.get("thread_ts")
        if channel is not None and thread_ts is not None:
            parent = self._message(channel, thread_ts, "thread_not_found")
            if parent.thread_ts is not None:
                # "Never use a reply's ts value; use its parent instead."
                raise _SlackError("thread_not_found")
        shared = []
        for entry in asked:
            known = (f for f in self.files if f.id == entry.get("id"))
            # "This method can only be called once."
            file = next((f for f in known if f.content and not f.is_complete), None)
            if file is None:
                raise _SlackError("file_not_found")
            shared.append((file, entry.get("title") or file.name))
        _wait_for(self._file_rate, "files.completeUploadExternal")
        for file, title in shared:
            file.title, file.is_complete = title, True
        files = [file for file, _ in shared]
        if channel is not None:
            comment = arguments.get("initial_comment") or ""
            content = Version(0.0, comment, [], [], {})
            self._store(channel, thread_ts, content, files=files)
        return {"files": [{"id": file.id, "title": file.title} for file in files]}

    def _block_actions(self, message: Message, action_id: str, user: str, *, stale: bool) -> Json:
        versions = message.versions if stale else message.versions[-1:]
        shown = [
            button
            for version in reversed(versions)
            for button in _buttons(version.blocks)
            if button.action_id == action_id
        ]
        if not shown:
            present = ", ".join(b.action_id for b in self.buttons(message)) or "no button"
            raise NoSuchButtonError(f"The message shows no {action_id!r}, but {present}.")
        button = shown[0]
        now = self.clock()
        key = f"{len(self._response_urls) + 1:08d}"
        self._response_urls[key] = _ResponseUrl(
            message.channel, user, message.ts, now + RESPONSE_URL_SECONDS
        )
        name = self.users.get(user, user)
        container: Json = {
            "type": "message",
            "message_ts": message.ts,
            "channel_id": message.channel,
            "is_ephemeral": False,
        }
        if message.thread_ts is not None:
            container["thread_ts"] = message.thread_ts
        action: Json = {
            "type": "button",
            "action_id": button.action_id,
            "block_id": button.block_id,
            "text": {"type": "plain_text", "text": button.text, "emoji": True},
            "action_ts": f"{now:.6f}",
        }
        if button.value is not None:
            action["value"] = button.value
        if button.style is not None:
            action["style"] = button.style
        return {
            "type": "block_actions",
            "user": {"id": user, "username": name, "name": name, "team_id": "T0WORKSPACE"},
            "api_app_id": "A0RUNBOOKS",
            "token": "deprecated-verification-token",
            "container": container,
            "trigger_id": f"{int(now * 1000)}.{key}.fake",
            "team": {"id": "T0WORKSPACE", "domain": "workspace"},
            "enterprise": None,
            "is_enterprise_install": False,
            "channel": {"id": message.channel, "name": self.channels[message.channel]},
            "message": self._as_json(message),
            "state": {"values": {}},
            "response_url": f"{self.origin}/actions/{key}",
            "actions": [action],
        }

    def _respond_to_interaction(self, key: str, request: Request) -> Answer:
        """Serve a response_url: five answers in thirty minutes, to the one who clicked."""
        target = self._response_urls.get(key)
        if target is None or self.clock() >= target.expires:
            return Answer(404, {"ok": False, "error": "expired_url"})
        if target.uses >= RESPONSE_URL_USES:
            return Answer(404, {"ok": False, "error": "used_url"})
        try:
            arguments = _arguments(request)
            content = _content(arguments)
        except _SlackError as refusal:
            return Answer(400, {"ok": False, "error": refusal.code})
        target.uses += 1
        thread_ts = arguments.get("thread_ts")
        if arguments.get("replace_original"):
            message = self._message(target.channel, target.message_ts, "message_not_found")
            self._edit(message, content, arguments)
        elif arguments.get("response_type") == "in_channel":
            self._store(target.channel, thread_ts, content)
        else:
            self.ephemerals.append(
                Ephemeral(target.channel, target.user, content.text, content.blocks, thread_ts)
            )
        return Answer(200, "ok")

    def _channel(self, arguments: Json, *, by_name: bool) -> str:
        given = str(arguments.get("channel") or "")
        if given in self.channels:
            return given
        if by_name:
            for identity, name in self.channels.items():
                if given.removeprefix("#") == name:
                    return identity
        raise _SlackError("channel_not_found")

    def _message(self, channel: str, ts: str | None, error: str) -> Message:
        for message in self.messages:
            if message.channel == channel and message.ts == ts:
                return message
        raise _SlackError(error)

    def _next_ts(self) -> str:
        """Return a ts that is unique and rising, since it is the id of a message."""
        self._last_ts = max(self._last_ts + 1, int(self.clock() * 1_000_000))
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"

    def _as_json(self, message: Message) -> Json:
        body: Json = {
            "type": "message",
            "user": message.user,
            "bot_id": "B0RUNBOOKS",
            "ts": message.ts,
            "text": message.text,
            "blocks": message.blocks,
        }
        if message.thread_ts is not None:
            body["thread_ts"] = message.thread_ts
        if message.attachments:
            body["attachments"] = message.attachments
        if message.metadata:
            body["metadata"] = message.metadata
        if message.edited is not None:
            body["edited"] = {"user": message.user, "ts": f"{message.edited:.6f}"}
        if message.reactions:
            body["reactions"] = [{"name": name, "count": 1} for name in message.reactions]
        if message.files:
            body["files"] = [
                {"id": f.id, "name": f.name, "title": f.title, "alt_txt": f.alt}
                for f in message.files
            ]
        return body


def _send_click(url: str, body: bytes, headers: Mapping[str, str], response_url: str) -> Click:
    request = urllib.request.Request(url, data=body, headers=dict(headers), method="POST")  # noqa: S310 -- a URL that the test gave
    status: int | None
    try:
        with urllib.request.urlopen(request, timeout=ACKNOWLEDGE_SECONDS) as reply:  # noqa: S310 -- as above
            status, answer = reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            status, answer = error.code, error.read().decode()
    except (TimeoutError, urllib.error.URLError) as error:
        status, answer = None, str(error)
    return Click(url, body, headers, response_url, status, answer)


def _arguments(request: Request) -> Json:
    """Read a call's arguments: JSON or a form in the body, or the query string."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind == "application/json":
        try:
            parsed = json.loads(request.body or b"{}")
        except ValueError as error:
            raise _SlackError("invalid_json") from error
        if not isinstance(parsed, dict):
            raise _SlackError("json_not_object")
        return {name: value for name, value in parsed.items() if value is not None}
    form = {name: values[-1] for name, values in parse_qs(request.body.decode()).items()}
    return dict(request.query) | form


def _json_argument(arguments: Json, name: str, kind: type, error: str) -> Any:
    """Read an argument that is JSON in a JSON body, and JSON in a string in a form."""
    value = arguments.get(name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as fault:
            raise _SlackError(error) from fault
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise _SlackError(error)
    return value


def _content(arguments: Json) -> Version:
    """Check text, blocks, attachments and metadata as Slack does before it stores a message."""
    text = arguments.get("text") or ""
    blocks = _json_argument(arguments, "blocks", list, "invalid_blocks_format")
    attachments = _json_argument(arguments, "attachments", list, "invalid_attachments")
    metadata = _json_argument(arguments, "metadata", dict, "invalid_metadata_format")
    if not (text or blocks or attachments):
        raise _SlackError("no_text")
    if len(attachments) > MAX_ATTACHMENTS:
        raise _SlackError("too_many_attachments")
    if metadata and not (
        isinstance(metadata.get("event_type"), str)
        and isinstance(metadata.get("event_payload"), dict)
    ):
        raise _SlackError("invalid_metadata_format")
    groups = [("/blocks", blocks)]
    for index, attachment in enumerate(attachments):
        if not isinstance(attachment, dict):
            raise _SlackError("invalid_attachments")
        groups.append((f"/attachments/{index}/blocks", attachment.get("blocks") or []))
    errors = [error for where, group in groups for error in block_errors(group, where)]
    if errors:
        raise _SlackError("invalid_blocks", errors)
    if sum(total_text(group) for _, group in groups) > MAX_BLOCK_TEXT:
        raise _SlackError("msg_blocks_too_long")
    return Version(0.0, str(text), blocks, attachments, metadata)


def _links_names(arguments: Json) -> bool:
    return bool(arguments.get("link_names")) or arguments.get("parse") == "full"


def _mentions(version: Version, *, link_names: bool) -> set[str]:
    """Whom this text notifies, by https://docs.slack.dev/messaging/formatting-message-text.

    Escaped (`&lt;!channel&gt;`) notifies nobody. A bare `@channel` does under link_names or
    parse=full, and may do in a mrkdwn object that is not `verbatim` ("certain mentions will be
    automatically parsed", text object reference), so it counts there.
    """
    marked = [(version.text, link_names)]
    for attachment in version.attachments:
        parts = [attachment.get(name) for name in ("pretext", "title", "text", "fallback")]
        parts += [part.get("value") for part in attachment.get("fields") or []]
        marked += [(str(part), link_names) for part in parts if part]
        marked += [(t["text"], not t.get("verbatim")) for t in texts_of(attachment.get("blocks"))]
    marked += [(t["text"], not t.get("verbatim")) for t in texts_of(version.blocks)]
    found = set()
    for text, bare in marked:
        found |= {match[1] for match in _ESCAPED_MENTION.finditer(text)}
        if bare:
            found |= {f"!{match[1]}" for match in _BARE_MENTION.finditer(text)}
    return found


def _buttons(blocks: Sequence[Json]) -> list[Button]:
    found = []
    for block in blocks:
        elements = block["elements"] if block["type"] == "actions" else [block.get("accessory")]
        for element in elements:
            if element and element["type"] == "button":
                optional = {name: element.get(name) for name in ("value", "style", "url")}
                found.append(
                    Button(
                        element["action_id"],
                        block["block_id"],
                        element["text"]["text"],
                        confirm=element.get("confirm"),
                        **optional,
                    )
                )
    return found


def _wait_for(limit: RateLimit, key: str) -> None:
    retry_after = limit.wait(key)
    if retry_after is not None:
        raise _RateLimitedError(retry_after)
