"""Four SQS calls for moving millions of messages, at a fifth of boto3's CPU time a call.

Amazon SQS Developer Guide, "Making Query API requests using AWS JSON protocol" (AWS JSON 1.0, one
POST a call); API Reference: ReceiveMessage, SendMessageBatch, DeleteMessageBatch,
ChangeMessageVisibilityBatch and their errors. Requests are signed as boto3's are; tests prove it.

What this leaves to boto3: every other call. What it leaves out on purpose: retries, as only the
caller knows what may be repeated; HTTP proxies; checks of parameters and of MD5 sums.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import select
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from botocore.exceptions import NoCredentialsError
from botocore.httpsession import get_cert_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from boto3.session import Session
    from botocore.credentials import ReadOnlyCredentials

CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0
"""How long an answer may stay silent, over and above the time that the call asks SQS to wait."""

type Message = dict[str, Any]
"""A message as SQS answers it: ``MessageId``, ``ReceiptHandle``, ``Body``, ``MD5OfBody``,
``Attributes`` (system attributes, all text) and ``MessageAttributes`` in the shape in which
SendMessageBatch takes them: ``{name: {DataType, StringValue | BinaryValue}}``, binary as base64."""
type Entry = Mapping[str, Any]
"""A SendMessageBatchRequestEntry: ``Id``, ``MessageBody`` and what else the API names."""


class Unreachable(Exception):  # noqa: N818 -- says what SQS is, as oncall.errors does
    """No answer, or none that says what was done: the call may have worked or not."""


class Throttled(Exception):  # noqa: N818 -- as above
    """SQS or KMS wants fewer calls, or is briefly unavailable; nothing was done."""


class Refused(Exception):  # noqa: N818 -- as above
    """SQS refuses the call and did nothing; ``code`` is the one that boto3 gives too."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one entry of a batch was not taken; ``sender_fault``: sending it again cannot help."""

    code: str
    sender_fault: bool
    message: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a batch. An entry that is in neither mapping has no known fate."""

    successful: Mapping[str, tuple[str, str]]
    """By ``Id``: the new ``MessageId`` and ``MD5OfMessageBody``."""
    failed: Mapping[str, Failure]


class Queue:
    """One queue. Threads may share it; each call in progress has a connection of its own.

    Every call raises ``Unreachable``, ``Throttled`` or ``Refused``, and botocore's own errors when
    credentials cannot be refreshed. Endpoint and credentials are the session's, so
    ``AWS_ENDPOINT_URL_SQS`` and profiles work; ``AWS_CA_BUNDLE`` names other certificates.
    """

    def __init__(self, session: Session, url: str, region: str) -> None:
        """Open no connection yet. Raises botocore's ``NoCredentialsError``."""
        credentials = session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        self.url = url
        self._credentials = credentials
        endpoint = session.client("sqs", region_name=region).meta.endpoint_url
        self._endpoint = _Endpoint(endpoint, region)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections, as its end does. The queue stays usable."""
        self._endpoint.close()

    def receive(
        self, max_messages: int, visibility_seconds: int, wait_seconds: int
    ) -> list[Message]:
        """Return up to ten messages with all their attributes, waiting up to 20 s for the first.

        Some may be left although the list is empty (ReceiveMessage, "short poll"). On a broken idle
        connection the call is made once more, which may hide a batch for ``visibility_seconds``.
        """
        answer = self._call(
            "ReceiveMessage",
            {
                "MaxNumberOfMessages": max_messages,
                "VisibilityTimeout": visibility_seconds,
                "WaitTimeSeconds": wait_seconds,
                "MessageAttributeNames": ["All"],
                "MessageSystemAttributeNames": ["All"],
            },
            wait_seconds,
        )
        messages: list[Message] = answer.get("Messages") or []
        return messages

    def send(self, entries: Sequence[Entry]) -> Sent:
        """Send up to ten messages of 1 MiB in all. Never made twice: see ``Unreachable``."""
        answer = self._call("SendMessageBatch", {"Entries": entries}, repeat=False)
        return Sent(
            {
                one["Id"]: (one["MessageId"], one["MD5OfMessageBody"])
                for one in answer.get("Successful") or ()
            },
            {
                one["Id"]: Failure(one["Code"], one["SenderFault"], one.get("Message", ""))
                for one in answer.get("Failed") or ()
            },
        )

    def delete(self, handles: Mapping[str, str]) -> set[str]:
        """Delete up to ten messages, ``{MessageId: ReceiptHandle}``; return ids that failed."""
        return self._batch(
            "DeleteMessageBatch",
            [{"Id": key, "ReceiptHandle": handle} for key, handle in handles.items()],
        )

    def hide(self, handles: Mapping[str, str], seconds: int) -> set[str]:
        """Make up to ten messages visible in so many seconds; return ids that failed."""
        return self._batch(
            "ChangeMessageVisibilityBatch",
            [
                {"Id": key, "ReceiptHandle": handle, "VisibilityTimeout": seconds}
                for key, handle in handles.items()
            ],
        )

    def _batch(self, action: str, entries: list[dict[str, Any]]) -> set[str]:
        answer = self._call(action, {"Entries": entries})
        return {one["Id"] for one in answer.get("Failed") or ()}

    def _call(
        self, action: str, parameters: dict[str, Any], wait: float = 0, *, repeat: bool = True
    ) -> dict[str, Any]:
        body = json.dumps({"QueueUrl": self.url, **parameters}).encode()
        request = self._endpoint.request(action, body, self._credentials.get_frozen_credentials())
        answer = self._endpoint.exchange(request, READ_SECONDS + wait, repeat=repeat)
        try:
            document = json.loads(answer.body or b"{}")
        except ValueError:
            document = None
        if answer.status != 200 or not isinstance(document, dict):  # noqa: PLR2004 -- HTTP's OK
            raise _error(action, answer, document)
        return document


class _Endpoint:
    """The service in one region: how requests to it look, and connections to it."""

    def __init__(self, url: str, region: str) -> None:
        # Last in, first out: what is idle for longest is not used until all others are busy.
        self._idle: deque[_Connection] = deque()
        parts = urlsplit(url)
        self.region = region
        self.host = parts.hostname or ""
        usual = 443 if parts.scheme == "https" else 80
        self.port = parts.port or usual
        self.path = parts.path or "/"
        self.context = None
        if parts.scheme == "https":
            bundle = os.environ.get("AWS_CA_BUNDLE") or get_cert_path(verify=True)
            self.context = ssl.create_default_context(cafile=bundle)
        self._host_header = self.host if self.port == usual else f"{self.host}:{self.port}"
        self._key: tuple[tuple[str, str], bytes] = (("", ""), b"")

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def request(self, action: str, body: bytes, credentials: ReadOnlyCredentials) -> bytes:
        """Return a signed request (IAM User Guide, "Create a signed AWS API request").

        botocore's own signer gives the same in 50 µs a call, this one in 10.
        """
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        token = credentials.token
        headers = (
            f"content-type:application/x-amz-json-1.0\nhost:{self._host_header}\n"
            f"x-amz-date:{stamp}\n"
            f"{f'x-amz-security-token:{token}\n' if token else ''}"
            f"x-amz-target:AmazonSQS.{action}\nx-amzn-query-mode:true\n"
        )
        names = (
            "content-type;host;x-amz-date;"
            f"{'x-amz-security-token;' if token else ''}x-amz-target;x-amzn-query-mode"
        )
        digest = hashlib.sha256(body).hexdigest()
        canonical = f"POST\n{self.path}\n\n{headers}\n{names}\n{digest}"
        scope = f"{stamp[:8]}/{self.region}/sqs/aws4_request"
        to_sign = (
            f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        )
        key = self._signing_key(credentials.secret_key or "", stamp[:8])
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        return (
            f"POST {self.path} HTTP/1.1\r\n{headers.replace('\n', '\r\n')}"
            f"authorization:AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}\r\n"
            f"user-agent:runbooks\r\ncontent-length:{len(body)}\r\n\r\n"
        ).encode() + body

    def _signing_key(self, secret: str, day: str) -> bytes:
        made_for, key = self._key
        if made_for != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self.region, "sqs", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            # One assignment, so that no thread sees a key with another's date.
            self._key = ((secret, day), key)
        return key

    def exchange(self, request: bytes, seconds: float, *, repeat: bool) -> _Answer:
        """Send a request, return the answer. Raises ``Unreachable``."""
        try:
            connection = self._take()
            try:
                answer = connection.exchange(request, seconds)
            except _ClosedError:
                connection.close()
                if not (connection.used and repeat):
                    raise
                # SQS closes idle connections when it likes, and the request crossed that.
                connection = _Connection(self)
                answer = connection.exchange(request, seconds)
        except OSError as error:
            raise Unreachable(f"{self.host}: {str(error) or type(error).__name__}") from error
        if answer.last:
            connection.close()
        else:
            self._idle.append(connection)
        return answer

    def _take(self) -> _Connection:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if connection.alive():
                return connection
            connection.close()
        return _Connection(self)


class _ClosedError(ConnectionError):
    """The connection ended before a byte of the answer."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    query_error: str
    """``code;fault`` as in the Query protocol, whose error codes boto3 shows."""
    last: bool
    """The server will close the connection."""


class _Connection:
    """One keep-alive connection. Every error is an ``OSError`` and leaves it closed."""

    def __init__(self, endpoint: _Endpoint) -> None:
        self.used = False
        self._socket: socket.socket = socket.create_connection(
            (endpoint.host, endpoint.port), timeout=CONNECT_SECONDS
        )
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if endpoint.context is not None:
            self._socket = endpoint.context.wrap_socket(self._socket, server_hostname=endpoint.host)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def alive(self) -> bool:
        """Return whether the idle connection is still open: a closed one has its end to read."""
        return not self._poll.poll(0)

    def close(self) -> None:
        self._socket.close()

    def exchange(self, request: bytes, seconds: float) -> _Answer:
        try:
            self._socket.settimeout(seconds)
            answer = self._read(self._first(request))
        except BaseException:
            self.close()
            raise
        self.used = True
        return answer

    def _first(self, request: bytes) -> bytes:
        try:
            self._socket.sendall(request)
            data = self._socket.recv(65536)
        except (ConnectionError, ssl.SSLEOFError) as error:
            raise _ClosedError(str(error)) from error
        if not data:
            raise _ClosedError("closed without an answer")
        return data

    def _read(self, data: bytes) -> _Answer:
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        head = data[: end + 2]
        lower = head.lower()
        length = _header(head, lower, b"\r\ncontent-length:")
        if not (lower.startswith(b"http/1.") and head[9:12].isdigit() and length.isdigit()):
            raise ConnectionError("not an answer of SQS: no HTTP/1.1 or no Content-Length")
        body = data[end + 4 :]
        missing = int(length) - len(body)
        if missing > 0:
            parts = [body]
            while missing > 0:
                parts.append(self._more())
                missing -= len(parts[-1])
            body = b"".join(parts)
        return _Answer(
            status=int(head[9:12]),
            body=body,
            query_error=_header(head, lower, b"\r\nx-amzn-query-error:"),
            last=missing < 0
            or lower.startswith(b"http/1.0")
            or _header(head, lower, b"\r\nconnection:").lower() == "close",
        )

    def _more(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("closed in the middle of an answer")
        return data


def _header(head: bytes, lower: bytes, name: bytes) -> str:
    start = lower.find(name)
    if start < 0:
        return ""
    start += len(name)
    return head[start : head.find(b"\r\n", start)].decode("latin-1").strip()


# SQS API Reference, "Common error types" and the actions' own; botocore/retries/standard.py.
_THROTTLED = {
    "KMS.ThrottlingException",
    "KmsThrottled",
    "RequestThrottled",
    "RequestThrottledException",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_TOO_MANY_REQUESTS = 429
_UNAVAILABLE = 503
_SERVER_ERROR = 500


def _error(action: str, answer: _Answer, document: Any) -> Exception:
    found = document if isinstance(document, dict) else {}
    code = answer.query_error.split(";")[0] or str(found.get("__type", "")).rsplit("#", 1)[-1]
    message = str(found.get("message") or found.get("Message") or "")
    if code in _THROTTLED or answer.status in {_TOO_MANY_REQUESTS, _UNAVAILABLE}:
        return Throttled(f"{action}: {code or answer.status} {message}".rstrip())
    if answer.status >= _SERVER_ERROR or answer.status < 400:  # noqa: PLR2004 -- HTTP's classes
        return Unreachable(f"{action}: HTTP {answer.status} {code} {message}".rstrip())
    return Refused(code or str(answer.status), message)
