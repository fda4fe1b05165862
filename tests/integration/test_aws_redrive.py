import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.aws import AwsAccount
from local.aws.bridges import sqs_redrive

type Deploy = Callable[..., dict[str, str]]
type Eventually = Callable[..., Any]

_CALL = """
    import boto3
    from botocore.exceptions import ClientError

    def handler(event, context):
        try:
            answer = getattr(boto3.client("sqs"), event["method"])(**event["arguments"])
        except ClientError as error:
            return {"error": error.response["Error"]["Code"]}
        answer.pop("ResponseMetadata")
        return answer
"""


class _Queues:
    """A dead-letter queue and the queues whose dead letters go to it."""

    def __init__(self, aws: AwsAccount, *names: str, fifo: bool = False) -> None:
        self.client = aws.client("sqs")
        self.suffix = ".fifo" if fifo else ""
        self.urls: dict[str, str] = {}
        self.create("dead")
        policy = json.dumps({"deadLetterTargetArn": self.arn("dead"), "maxReceiveCount": 1})
        for name in names:
            self.create(name, RedrivePolicy=policy)

    def create(self, name: str, **attributes: str) -> str:
        if self.suffix:
            attributes["FifoQueue"] = "true"
        self.urls[name] = self.client.create_queue(
            QueueName=name + self.suffix,
            Attributes=attributes,  # type: ignore[arg-type]  # names of attributes
        )["QueueUrl"]
        return self.arn(name)

    def arn(self, name: str) -> str:
        found = self.client.get_queue_attributes(
            QueueUrl=self.urls[name], AttributeNames=["QueueArn"]
        )
        return found["Attributes"]["QueueArn"]

    def depth(self, name: str) -> int:
        found = self.client.get_queue_attributes(
            QueueUrl=self.urls[name], AttributeNames=["ApproximateNumberOfMessages"]
        )
        return int(found["Attributes"]["ApproximateNumberOfMessages"])

    def receive(self, name: str, **more: Any) -> Any:
        return self.client.receive_message(
            QueueUrl=self.urls[name],
            MaxNumberOfMessages=10,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
            **more,
        ).get("Messages", [])

    def kill(self, name: str, *bodies: str) -> list[Any]:
        """Send messages and let them become dead letters; return them as they were received."""
        for body in bodies:
            more = {"MessageGroupId": "g", "MessageDeduplicationId": body} if self.suffix else {}
            self.client.send_message(QueueUrl=self.urls[name], MessageBody=body, **more)  # type: ignore[arg-type]  # plain strings
        seen: list[Any] = []
        while len(seen) < len(bodies):
            seen += self.receive(name, VisibilityTimeout=0)
        assert self.receive(name) == []  # this one moves them
        return seen

    def tasks(self, number: int = 10) -> Any:
        return self.client.list_message_move_tasks(SourceArn=self.arn("dead"), MaxResults=number)[
            "Results"
        ]

    def start(self, **more: Any) -> str:
        return self.client.start_message_move_task(SourceArn=self.arn("dead"), **more)["TaskHandle"]

    def ended(self) -> Any:
        """Wait for the newest task to end; return it."""
        while (task := self.tasks(1)[0])["Status"] in {"RUNNING", "CANCELLING"}:
            time.sleep(0.02)
        return task


def _error(call: Callable[..., Any], **arguments: Any) -> tuple[str, str, int]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    return answer["Error"]["Code"], answer["Error"]["Message"], status


def test_a_dead_letter_keeps_its_id_and_time_and_names_its_queue(aws: AwsAccount) -> None:
    queues = _Queues(aws, "orders")
    [before] = queues.kill("orders", "x")
    [after] = queues.receive("dead")
    assert after["MessageId"] == before["MessageId"]
    sent = [message["Attributes"]["SentTimestamp"] for message in (before, after)]
    assert sent[0] == sent[1]
    assert after["Attributes"]["DeadLetterQueueSourceArn"] == queues.arn("orders")
    assert after["Attributes"]["ApproximateReceiveCount"] == "2"  # across all queues


def test_a_fifo_dead_letter_has_its_own_id_for_deduplication(aws: AwsAccount) -> None:
    queues = _Queues(aws, "orders", fifo=True)
    [before] = queues.kill("orders", "x")
    [after] = queues.receive("dead")
    assert before["Attributes"]["MessageDeduplicationId"] == "x"
    assert after["Attributes"]["MessageDeduplicationId"] == before["MessageId"]
    assert after["Attributes"]["MessageGroupId"] == "g"
    with sqs_redrive.BRIDGE.off():
        queues.kill("orders", "y")
        [after] = queues.receive("dead", VisibilityTimeout=0) or [None]
        queues.client.purge_queue(QueueUrl=queues.urls["dead"])
    assert after is None or after["Attributes"]["MessageDeduplicationId"] == "y"


def test_the_sources_of_a_dead_letter_queue_come_in_pages(aws: AwsAccount) -> None:
    queues = _Queues(aws, "a", "b", "c")
    queues.create("other")
    url = queues.urls["dead"]
    found = queues.client.list_dead_letter_source_queues(QueueUrl=url)
    assert sorted(found["queueUrls"]) == sorted(queues.urls[name] for name in "abc")
    assert "NextToken" not in found
    pages = queues.client.get_paginator("list_dead_letter_source_queues").paginate(
        QueueUrl=url, PaginationConfig={"PageSize": 2}
    )
    assert [len(page["queueUrls"]) for page in pages] == [2, 1]
    other = queues.client.list_dead_letter_source_queues(QueueUrl=queues.urls["other"])
    assert other["queueUrls"] == []


def test_letters_go_back_to_where_they_came_from_as_new_messages(aws: AwsAccount) -> None:
    queues = _Queues(aws, "orders", "refunds")
    before = {m["Body"]: m for name in ("orders", "refunds") for m in queues.kill(name, name)}
    time.sleep(0.01)
    queues.start()
    task = queues.ended()
    assert task["Status"] == "COMPLETED"
    assert (
        task["ApproximateNumberOfMessagesMoved"],
        task["ApproximateNumberOfMessagesToMove"],
    ) == (2, 2)
    assert task.keys().isdisjoint(
        {"TaskHandle", "DestinationArn", "MaxNumberOfMessagesPerSecond", "FailureReason"}
    )
    assert abs(task["StartedTimestamp"] / 1000 - time.time()) < 10
    for name in ("orders", "refunds"):
        [after] = queues.receive(name)
        assert after["MessageId"] != before[name]["MessageId"]
        assert int(after["Attributes"]["SentTimestamp"]) > int(
            before[name]["Attributes"]["SentTimestamp"]
        )
        assert after["Attributes"]["ApproximateReceiveCount"] == "1"
        assert "DeadLetterQueueSourceArn" not in after["Attributes"]
    assert queues.depth("dead") == 0


def test_a_moved_message_keeps_attributes_and_trace(aws: AwsAccount) -> None:
    queues = _Queues(aws, "orders")
    target = queues.create("target")
    attributes: Any = {"b": {"DataType": "Binary", "BinaryValue": b"\x00"}}
    trace: Any = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5-6"}}
    queues.client.send_message(
        QueueUrl=queues.urls["dead"],
        MessageBody="x",
        MessageAttributes=attributes,
        MessageSystemAttributes=trace,
    )
    queues.start(DestinationArn=target)
    assert queues.ended()["DestinationArn"] == target
    [message] = queues.receive("target")
    assert message["MessageAttributes"] == attributes
    assert message["Attributes"]["AWSTraceHeader"] == "Root=1-5-6"


def test_a_fifo_letter_goes_back_into_its_group_and_again(aws: AwsAccount) -> None:
    queues = _Queues(aws, "orders", fifo=True)
    queues.kill("orders", "1", "2", "3")
    queues.start()
    assert queues.ended()["ApproximateNumberOfMessagesMoved"] == 3
    messages = queues.receive("orders", VisibilityTimeout=0)
    assert [message["Body"] for message in messages] == ["1", "2", "3"]
    queues.receive("orders")
    queues.start()  # within five minutes: nothing is taken for a repetition
    assert queues.ended()["Status"] == "COMPLETED"
    assert queues.depth("orders") == 3


def test_a_rate_takes_the_time_it_says(aws: AwsAccount) -> None:
    queues = _Queues(aws, "orders")
    queues.kill("orders", *(str(n) for n in range(10)))
    begun = time.monotonic()
    handle = queues.start(MaxNumberOfMessagesPerSecond=10)
    time.sleep(0.55)
    [running] = queues.tasks(1)
    assert (running["Status"], running["TaskHandle"]) == ("RUNNING", handle)
    assert running["MaxNumberOfMessagesPerSecond"] == 10
    assert 3 <= running["ApproximateNumberOfMessagesMoved"] <= 6
    assert queues.ended()["ApproximateNumberOfMessagesMoved"] == 10
    assert 0.95 < time.monotonic() - begun < 3


def test_one_task_a_queue_which_can_be_cancelled_once(aws: AwsAccount) -> None:
    queues = _Queues(aws, "orders")
    queues.kill("orders", "1", "2", "3")
    handle = queues.start(MaxNumberOfMessagesPerSecond=1)
    code, text, _ = _error(queues.start)
    assert code == "InvalidParameterValue"
    assert text == (
        "There is already a task running. Only one active task is allowed for a source queue arn "
        "at a given time."
    )
    answer = queues.client.cancel_message_move_task(TaskHandle=handle)
    assert answer["ApproximateNumberOfMessagesMoved"] == 0
    assert queues.ended()["Status"] == "CANCELLED"
    assert queues.depth("dead") == 3
    code, _, _ = _error(queues.client.cancel_message_move_task, TaskHandle=handle)
    assert code == "InvalidParameterValue"
    queues.start()
    queues.ended()
    assert [task["Status"] for task in queues.tasks()] == ["COMPLETED", "CANCELLED"]
    assert len(queues.client.list_message_move_tasks(SourceArn=queues.arn("dead"))["Results"]) == 1


def test_what_is_in_flight_stays(aws: AwsAccount) -> None:
    queues = _Queues(aws, "orders")
    queues.kill("orders", "1", "2")
    queues.client.receive_message(QueueUrl=queues.urls["dead"], MaxNumberOfMessages=1)
    queues.start()
    assert queues.ended()["ApproximateNumberOfMessagesToMove"] == 1
    assert queues.depth("orders") == 1


def test_a_letter_that_dies_again_is_not_moved_again(aws: AwsAccount) -> None:
    queues = _Queues(aws, "orders")
    queues.kill("orders", "1", "2", "3")
    queues.start(MaxNumberOfMessagesPerSecond=5)
    while queues.tasks(1)[0]["Status"] == "RUNNING":
        queues.receive("orders", VisibilityTimeout=0)
    assert queues.ended()["ApproximateNumberOfMessagesMoved"] == 3


def test_why_tasks_fail(aws: AwsAccount) -> None:
    queues = _Queues(aws, "orders")
    queues.client.send_message(QueueUrl=queues.urls["dead"], MessageBody="by hand")
    queues.start()
    task = queues.ended()
    assert (task["Status"], task["FailureReason"]) == ("FAILED", "CouldNotDetermineMessageSource")
    assert queues.depth("dead") == 1
    queues.create("gone")
    queues.start(DestinationArn=queues.arn("gone"), MaxNumberOfMessagesPerSecond=2)
    queues.client.delete_queue(QueueUrl=queues.urls["gone"])
    assert queues.ended()["FailureReason"] == "AWS.SimpleQueueService.NonExistentQueue"
    assert queues.depth("dead") == 1


def test_what_sqs_refuses(aws: AwsAccount) -> None:
    queues = _Queues(aws, "orders")
    client, dead, orders = queues.client, queues.arn("dead"), queues.arn("orders")
    fifo = _Queues(aws, fifo=True).arn("dead")
    start, cancel = client.start_message_move_task, client.cancel_message_move_task
    assert _error(start, SourceArn=orders)[:2] == (
        "InvalidParameterValue",
        "Source queue must be configured as a Dead Letter Queue.",
    )
    assert _error(start, SourceArn=dead, DestinationArn=dead + "-not") == (
        "ResourceNotFoundException",
        "The resource that you specified for the DestinationArn parameter doesn't exist.",
        404,
    )
    assert _error(start, SourceArn=dead, DestinationArn=fifo)[0] == "InvalidParameterValue"
    for rate in (0, 501):
        code, _, _ = _error(start, SourceArn=dead, MaxNumberOfMessagesPerSecond=rate)
        assert code == "InvalidParameterValue"
    assert _error(cancel, TaskHandle="nonsense")[:2] == (
        "InvalidParameterValue",
        "Value for parameter TaskHandle is invalid.",
    )
    handle = queues.start()
    queues.ended()
    queues.client.delete_queue(QueueUrl=queues.urls["dead"])
    assert _error(cancel, TaskHandle=handle)[2] == 404
    listed = client.list_message_move_tasks
    assert _error(listed, SourceArn=orders, MaxResults=11)[0] == "InvalidParameterValue"


_STACK = """
    Source:
      Type: AWS::SQS::Queue
      Properties:
        RedrivePolicy: {deadLetterTargetArn: !GetAtt Tagged.Arn, maxReceiveCount: 1}
    Other:
      Type: AWS::SQS::Queue
      Properties:
        RedrivePolicy: {deadLetterTargetArn: !GetAtt Untagged.Arn, maxReceiveCount: 1}
    Tagged: {Type: AWS::SQS::Queue, Properties: {Tags: [{Key: runbook-automation, Value: enabled}]}}
    Untagged: {Type: AWS::SQS::Queue}
    Caller:
      Type: AWS::Serverless::Function
      Properties:
        Policies: [{Version: "2012-10-17", Statement: [%s]}]
"""
_ON_TAGGED = (
    '{Effect: Allow, Resource: "*", Action: [%s],'
    ' Condition: {StringEquals: {"aws:ResourceTag/runbook-automation": enabled}}}'
)
_TASKS = '"sqs:StartMessageMoveTask", "sqs:ListMessageMoveTasks", "sqs:CancelMessageMoveTask"'
_SERVED = '"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"'
_SEND = '{Effect: Allow, Resource: !GetAtt Source.Arn, Action: "sqs:SendMessage"}'


def _invoke(aws: AwsAccount, function: str, method: str, **arguments: Any) -> Any:
    event = json.dumps({"method": method, "arguments": arguments})
    answer = aws.client("lambda").invoke(FunctionName=function, Payload=event)
    return json.loads(answer["Payload"].read())


def _arn(aws: AwsAccount, url: str) -> str:
    return f"arn:aws:sqs:{aws.region}:{aws.account}:{url.rpartition('/')[2]}"


def _die(aws: AwsAccount, url: str) -> None:
    client = aws.client("sqs")
    client.send_message(QueueUrl=url, MessageBody="x")
    client.receive_message(QueueUrl=url, VisibilityTimeout=0)
    client.receive_message(QueueUrl=url)


def test_a_move_needs_the_callers_rights_and_is_recorded(
    aws: AwsAccount, stack: Deploy, eventually: Eventually
) -> None:
    statements = ",".join((_ON_TAGGED % f"{_TASKS}, {_SERVED}", _SEND))
    names = stack(_STACK % statements, _CALL)
    _die(aws, names["Source"])
    tagged, untagged = _arn(aws, names["Tagged"]), _arn(aws, names["Untagged"])
    caller = names["Caller"]
    started = _invoke(aws, caller, "start_message_move_task", SourceArn=tagged)
    assert "TaskHandle" in started
    listed = {"SourceArn": tagged}
    eventually(
        lambda: (
            _invoke(aws, caller, "list_message_move_tasks", **listed)["Results"][0]["Status"]
            == "COMPLETED"
        )
    )
    for method in ("start_message_move_task", "list_message_move_tasks"):
        answer = _invoke(aws, caller, method, SourceArn=untagged)
        assert answer["error"].startswith("AccessDenied"), method
    cancelled = _invoke(aws, caller, "cancel_message_move_task", **started)
    assert cancelled == {"error": "InvalidParameterValue"}  # it may, but the task has ended
    calls = {
        (call.action, call.resource)
        for call in aws.calls.by_role()[names["CallerRole"]]
        if call.status == 200
    }
    source = _arn(aws, names["Source"])
    assert calls == {
        ("sqs:StartMessageMoveTask", tagged),
        ("sqs:ListMessageMoveTasks", tagged),
        ("sqs:ReceiveMessage", tagged),
        ("sqs:DeleteMessage", tagged),
        ("sqs:GetQueueAttributes", tagged),
        ("sqs:SendMessage", source),
    }


@pytest.mark.parametrize("missing", ["sqs:ReceiveMessage", "sqs:DeleteMessage"])
def test_a_move_is_not_begun_without_the_rights_on_its_source(
    aws: AwsAccount, stack: Deploy, missing: str
) -> None:
    served = _SERVED.replace(missing, "sqs:PurgeQueue")
    names = stack(_STACK % ",".join((_ON_TAGGED % f"{_TASKS}, {served}", _SEND)), _CALL)
    answer = _invoke(
        aws, names["Caller"], "start_message_move_task", SourceArn=_arn(aws, names["Tagged"])
    )
    assert answer["error"].startswith("AccessDenied")


def test_a_move_fails_without_the_right_to_send(
    aws: AwsAccount, stack: Deploy, eventually: Eventually
) -> None:
    names = stack(_STACK % (_ON_TAGGED % f"{_TASKS}, {_SERVED}"), _CALL)
    _die(aws, names["Source"])
    tagged = _arn(aws, names["Tagged"])
    _invoke(aws, names["Caller"], "start_message_move_task", SourceArn=tagged)

    def task() -> Any:
        [found] = aws.client("sqs").list_message_move_tasks(SourceArn=tagged)["Results"]
        return found if found["Status"] != "RUNNING" else None

    ended = eventually(task)
    assert (ended["Status"], ended["FailureReason"]) == ("FAILED", "AccessDenied")
    answer = _invoke(
        aws, names["Caller"], "start_message_move_task",
        SourceArn=tagged, DestinationArn=_arn(aws, names["Source"]),
    )  # fmt: skip
    assert answer["error"].startswith("AccessDenied")


def test_the_list_of_sources_has_an_action_of_its_own(aws: AwsAccount, stack: Deploy) -> None:
    names = stack(_STACK % (_ON_TAGGED % '"sqs:ListDeadLetterSourceQueues"'), _CALL)
    caller, method = names["Caller"], "list_dead_letter_source_queues"
    assert _invoke(aws, caller, method, QueueUrl=names["Tagged"]) == {
        "queueUrls": [names["Source"]]
    }
    denied = _invoke(aws, caller, method, QueueUrl=names["Untagged"])
    assert denied["error"].startswith("AccessDenied")


def test_without_the_bridge_there_are_no_move_tasks(aws: AwsAccount) -> None:
    queues = _Queues(aws, "orders")
    with sqs_redrive.BRIDGE.off():
        code, _, _ = _error(queues.start)
        listed, _, _ = _error(
            queues.client.list_dead_letter_source_queues, QueueUrl=queues.urls["dead"]
        )
    assert (code, listed) == ("InvalidAction", "InvalidAction")
