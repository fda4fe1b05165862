"""Deliver letters to a Lambda function: those that Lambda, EventBridge or SNS could not."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from oncall.sqs_wire import Failure, Sent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mypy_boto3_lambda.client import LambdaClient

    from oncall.letters import Entry

MOST_BYTES = 1_048_576
"""Of an asynchronous event (Lambda Developer Guide, "Lambda quotas")."""
_LATER = frozenset({"TooManyRequestsException", "ServiceException", "EC2ThrottledException"})


class FunctionSink:
    """A function as ``mover.Sink``: each letter is one asynchronous call (Lambda ``Invoke``).

    Lambda takes such an event once it has answered 202, and then tries it as it tries any other;
    one that fails again comes back to the dead-letter queue, without a mark, as events have none.
    """

    def __init__(self, client: LambdaClient, function: str, kind: str) -> None:
        self._client = client
        self._function = function
        self._kind = kind

    def send(self, entries: Sequence[Entry]) -> Sent:
        """Invoke the function for each letter; one without an answer is in neither mapping."""
        taken: dict[str, tuple[str, str]] = {}
        failed: dict[str, Failure] = {}
        for entry in entries:
            body = str(entry["MessageBody"])
            try:
                answer = self._client.invoke(
                    FunctionName=self._function,
                    InvocationType="Event",
                    Payload=event_of(self._kind, body).encode(),
                )
            except ClientError as error:
                code = error.response["Error"]["Code"]
                failed[entry["Id"]] = Failure(code, code not in _LATER, str(error))
            except BotoCoreError:
                continue
            else:
                # Lambda gives no sum of what it got; the whole of it was answered by 202.
                digest = hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
                taken[entry["Id"]] = (answer["ResponseMetadata"]["RequestId"], digest)
        return Sent(taken, failed)


def event_of(kind: str, body: str) -> str:
    """Return the event that the function was to get, as JSON.

    Lambda's and EventBridge's dead letters are the event itself; SNS's is what the topic sends,
    which a subscribed function gets inside ``Records`` (Lambda Developer Guide, "Invoking Lambda
    functions with Amazon SNS notifications").
    """
    if kind != "topic":
        return body
    sent: Mapping[str, Any] = json.loads(body)
    record = {
        "EventSource": "aws:sns",
        "EventVersion": "1.0",
        "EventSubscriptionArn": "",
        # Functions get these two under other names than queues do.
        "Sns": {
            **{key: value for key, value in sent.items() if not key.endswith("URL")},
            "Subject": sent.get("Subject"),
            "SigningCertUrl": sent.get("SigningCertURL", ""),
            "UnsubscribeUrl": sent.get("UnsubscribeURL", ""),
            "MessageAttributes": sent.get("MessageAttributes", {}),
        },
    }
    return json.dumps({"Records": [record]})
