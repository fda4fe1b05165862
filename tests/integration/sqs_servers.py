"""What the tests of sqs_wire share: its twin on boto3, and a local SQS that checks and fails."""

from __future__ import annotations

import asyncio
import base64
import functools
import itertools
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import boto3
import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from oncall.sqs_wire import Failure, Refused, Sent, Throttled, Unreachable
from tests.benchmark.fast_sqs import Called, Connection, Sqs, SqsError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

REGION = "eu-west-1"
type Fault = Callable[[Connection], None]
"""What a server does instead of its work."""


def session_with(credentials: Credentials) -> boto3.session.Session:
    """Return a session that has these credentials and asks nobody for others."""
    core = botocore.session.Session()
    core._credentials = credentials  # type: ignore[attr-defined]  # where botocore keeps them
    return boto3.session.Session(botocore_session=core, region_name=REGION)


def _translated[**P, T](call: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(call)
    def made(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return call(*arguments, **named)
        except ClientError as error:
            said = error.response["Error"]
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status in {429, 503} or "Throttl" in said["Code"]:
                raise Throttled(said["Code"]) from error
            if status >= 500:
                raise Unreachable(said["Code"]) from error
            raise Refused(said["Code"], said["Message"]) from error
        except (ConnectionClosedError, ReadTimeoutError) as error:
            raise Unreachable(str(error)) from error

    return made


class BotoQueue:
    """What `oncall.sqs_wire.Queue` does, by boto3."""

    def __init__(self, session: boto3.session.Session, url: str, region: str) -> None:
        config = Config(retries={"total_max_attempts": 1, "mode": "standard"})
        self._client = session.client("sqs", region_name=region, config=config)
        self.url = url

    def close(self) -> None:
        self._client.close()

    @_translated
    def receive(
        self, max_messages: int, visibility_seconds: int, wait_seconds: int
    ) -> list[dict[str, Any]]:
        answer = self._client.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=max_messages,
            VisibilityTimeout=visibility_seconds,
            WaitTimeSeconds=wait_seconds,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )
        return [_as_sent(message) for message in answer.get("Messages", [])]

    @_translated
    def send(self, entries: Sequence[Mapping[str, Any]]) -> Sent:
        wanted: list[Any] = [
            {**entry, "MessageAttributes": _with_bytes(entry["MessageAttributes"])}
            if "MessageAttributes" in entry
            else entry
            for entry in entries
        ]
        answer = self._client.send_message_batch(QueueUrl=self.url, Entries=wanted)
        return Sent(
            {
                one["Id"]: (one["MessageId"], one["MD5OfMessageBody"])
                for one in answer.get("Successful", [])
            },
            {
                one["Id"]: Failure(one["Code"], one["SenderFault"], one.get("Message", ""))
                for one in answer.get("Failed", [])
            },
        )

    @_translated
    def delete(self, handles: Mapping[str, str]) -> set[str]:
        answer = self._client.delete_message_batch(
            QueueUrl=self.url,
            Entries=[{"Id": key, "ReceiptHandle": handle} for key, handle in handles.items()],
        )
        return {one["Id"] for one in answer.get("Failed", [])}

    @_translated
    def hide(self, handles: Mapping[str, str], seconds: int) -> set[str]:
        answer = self._client.change_message_visibility_batch(
            QueueUrl=self.url,
            Entries=[
                {"Id": key, "ReceiptHandle": handle, "VisibilityTimeout": seconds}
                for key, handle in handles.items()
            ],
        )
        return {one["Id"] for one in answer.get("Failed", [])}


def _as_sent(message: Any) -> dict[str, Any]:
    wire: dict[str, Any] = dict(message)
    if "MessageAttributes" in wire:
        wire["MessageAttributes"] = {
            name: {
                **value,
                **(
                    {"BinaryValue": base64.b64encode(value["BinaryValue"]).decode()}
                    if "BinaryValue" in value
                    else {}
                ),
            }
            for name, value in wire["MessageAttributes"].items()
        }
    return wire


def _with_bytes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {**value, "BinaryValue": base64.b64decode(value["BinaryValue"])}
        if "BinaryValue" in value
        else value
        for name, value in attributes.items()
    }


@dataclass
class LocalSqs:
    """The benchmark's server on a thread: it checks signatures, and fails as it is told."""

    secrets: dict[str, tuple[str, str | None]] = field(
        default_factory=lambda: {"AKIDEXAMPLE": ("wJalrXUtnFEMI", None)}
    )
    """Secret and session token by access key."""
    faults: deque[Fault | None] = field(default_factory=deque)
    """What to do with the next requests; None is what they ask for."""
    called: list[str] = field(default_factory=list)
    """The actions of all requests, as they arrived."""
    connections: list[_Checked] = field(default_factory=list)
    """All connections that were ever made."""
    context: ssl.SSLContext | None = None
    port: int = 0
    _names: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    def queue(self, suffix: str = "") -> str:
        """Make a queue, return its URL."""
        name = f"queue-{next(self._names)}{suffix}"
        self.sqs.call("CreateQueue", {"QueueName": name}, "")
        return f"{self.url}/000000000000/{name}"

    def session(self) -> boto3.session.Session:
        key, (secret, token) = next(iter(self.secrets.items()))
        return session_with(Credentials(key, secret, token))

    def close_all(self) -> None:
        """Close every connection, as SQS does with those that idle; return when it is done."""
        done = threading.Event()

        def close() -> None:
            for one in self.connections:
                if one.transport is not None:
                    one.transport.close()
            # A closed transport closes its socket in the next round of the loop.
            self._loop.call_later(0.05, done.set)

        self._loop.call_soon_threadsafe(close)
        assert done.wait(5)

    def __enter__(self) -> Self:
        self.sqs = Sqs()
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self._thread.start()
        assert ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        server = await self._loop.create_server(
            lambda: _Checked(self), "127.0.0.1", 0, ssl=self.context, backlog=512
        )
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._end.wait()
        server.close()
        for one in self.connections:
            if one.transport is not None:
                one.transport.abort()
        await asyncio.sleep(0.02)


class _Checked(Connection):
    def __init__(self, server: LocalSqs) -> None:
        super().__init__(server.sqs)
        self.server = server
        server.connections.append(self)

    def answer(self, called: Called) -> None:
        action = called.headers["x-amz-target"].removeprefix("AmazonSQS.")
        self.server.called.append(action)
        try:
            self._check(called)
        except SqsError as error:
            self.refuse(error, query=False)
            return
        fault = self.server.faults.popleft() if self.server.faults else None
        if fault is not None:
            fault(self)
        else:
            super().answer(called)

    def _check(self, called: Called) -> None:
        """Sign what has arrived by botocore and compare."""
        said = called.headers["authorization"]
        access_key = said.split("Credential=")[1].split("/")[0]
        token = called.headers.get("x-amz-security-token")
        if access_key not in self.server.secrets:
            raise SqsError("ExpiredToken", "The security token is expired", status=403)
        secret, expected = self.server.secrets[access_key]
        signed = said.split("SignedHeaders=")[1].split(",")[0].split(";")
        request = AWSRequest(
            "POST",
            f"{self.server.url}{called.path}",
            headers={name: called.headers[name] for name in signed if name != "x-amz-date"},
            data=called.body,
        )
        request.context["timestamp"] = called.headers["x-amz-date"]
        request.headers["X-Amz-Date"] = called.headers["x-amz-date"]
        signer = SigV4Auth(Credentials(access_key, secret, token), "sqs", REGION)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        right = signer.signature(text, request)
        if token != expected or not said.endswith(f"Signature={right}"):
            raise SqsError("SignatureDoesNotMatch", "The signature does not match", status=403)


def close(connection: Connection) -> None:
    """End the connection without an answer."""
    assert connection.transport is not None
    connection.transport.abort()


def written(data: bytes, *, then_close: bool = False) -> Fault:
    """Answer just these bytes."""

    def write(connection: Connection) -> None:
        connection.write(data)
        if then_close and connection.transport is not None:
            connection.transport.close()

    return write


def error(status: int, code: str) -> Fault:
    """Answer an error."""
    return lambda connection: connection.refuse(
        SqsError(code, "so be it", status=status), query=False
    )


def silence(_connection: Connection) -> None:
    """Never answer."""
