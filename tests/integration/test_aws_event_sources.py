import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from local.aws import AwsAccount
from local.aws.bridges import event_sources

type Deploy = Callable[..., dict[str, str]]
type Eventually = Callable[..., Any]

_TABLE = """
    Table:
      Type: AWS::DynamoDB::Table
      Properties:
        BillingMode: PAY_PER_REQUEST
        AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]
        KeySchema: [{AttributeName: pk, KeyType: HASH}]
        StreamSpecification: {StreamViewType: NEW_IMAGE}
    Dead: {Type: AWS::SQS::Queue}
    Seen: {Type: AWS::SQS::Queue}
    Work:
      Type: AWS::Serverless::Function
      Properties:
        Environment: {Variables: {SEEN: !Ref Seen}}
        Policies:
          - SQSSendMessagePolicy: {QueueName: !GetAtt Seen.QueueName}
          - SQSSendMessagePolicy: {QueueName: !GetAtt Dead.QueueName}
        Events:
          Stream:
            Type: DynamoDB
            Properties:
              Stream: !GetAtt Table.StreamArn
              StartingPosition: TRIM_HORIZON
              DestinationConfig: {OnFailure: {Type: SQS, Destination: !GetAtt Dead.Arn}}
              %s
"""
_STREAM_CODE = """
    import json, os
    import boto3

    sqs = boto3.client("sqs")

    def handler(event, context):
        keys = [record["dynamodb"]["Keys"]["pk"]["S"] for record in event["Records"]]
        sqs.send_message(QueueUrl=os.environ["SEEN"], MessageBody=json.dumps(keys))
        bad = [r for r in event["Records"] if r["dynamodb"]["Keys"]["pk"]["S"].startswith("bad")]
        if bad and os.environ.get("PARTIAL"):
            number = bad[0]["dynamodb"]["SequenceNumber"]
            return {"batchItemFailures": [{"itemIdentifier": number}]}
        if bad:
            raise ValueError("bad record")
"""
_QUEUE = """
    Orders:
      Type: AWS::SQS::Queue
      Properties: {VisibilityTimeout: 20}
    Work:
      Type: AWS::Serverless::Function
      Properties:
        Policies: [{SQSPollerPolicy: {QueueName: !GetAtt Orders.QueueName}}]
        Events:
          Orders:
            Type: SQS
            Properties:
              Queue: !GetAtt Orders.Arn
              BatchSize: 1
              ScalingConfig: {MaximumConcurrency: 2}
"""
_SLOW_CODE = """
    import time

    def handler(event, context):
        time.sleep(0.2)
"""


def _write(aws: AwsAccount, table: str, *keys: str) -> None:
    for key in keys:
        aws.client("dynamodb").put_item(TableName=table, Item={"pk": {"S": key}})


def _receive(aws: AwsAccount, queue: str, seconds: int = 1) -> list[Any]:
    found = []
    while (
        received := aws.client("sqs")
        .receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=seconds)
        .get("Messages")
    ):
        found += [json.loads(message["Body"]) for message in received]
        for message in received:
            aws.client("sqs").delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return found


def test_a_batch_that_keeps_failing_is_given_up_and_the_shard_moves_on(
    aws: AwsAccount, stack: Deploy
) -> None:
    names = stack(_TABLE % "MaximumRetryAttempts: 2", _STREAM_CODE)
    _write(aws, names["Table"], "bad")
    record = _receive(aws, names["Dead"], 8)[0]
    _write(aws, names["Table"], "good")
    assert _receive(aws, names["Seen"], 2) == [["bad"], ["bad"], ["bad"], ["good"]]
    assert record["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert record["DDBStreamBatchInfo"]["batchSize"] == 1


def test_a_failing_batch_is_halved_until_the_bad_record_is_alone(
    aws: AwsAccount, stack: Deploy
) -> None:
    options = (
        "MaximumRetryAttempts: 0\n              BisectBatchOnFunctionError: true\n"
        "              MaximumBatchingWindowInSeconds: 1"
    )
    names = stack(_TABLE % options, _STREAM_CODE)
    _write(aws, names["Table"], "a", "b", "bad", "d")
    assert _receive(aws, names["Dead"], 8)[0]["DDBStreamBatchInfo"]["batchSize"] == 1
    assert _receive(aws, names["Seen"], 2) == [
        ["a", "b", "bad", "d"], ["a", "b"], ["bad", "d"], ["bad"], ["d"]
    ]  # fmt: skip


def test_what_precedes_a_reported_failure_is_not_read_again(aws: AwsAccount, stack: Deploy) -> None:
    options = (
        "MaximumRetryAttempts: 1\n              FunctionResponseTypes: [ReportBatchItemFailures]\n"
        "              MaximumBatchingWindowInSeconds: 1"
    )
    code = _STREAM_CODE.replace('os.environ.get("PARTIAL")', "True")
    names = stack(_TABLE % options, code)
    _write(aws, names["Table"], "a", "bad", "c")
    given_up = _receive(aws, names["Dead"], 8)
    assert len(given_up) == 1
    assert _receive(aws, names["Seen"], 2)[:2] == [["a", "bad", "c"], ["bad", "c"]]


def test_a_batch_waits_for_its_window_but_not_when_it_is_full(
    aws: AwsAccount, stack: Deploy, eventually: Eventually
) -> None:
    options = "BatchSize: 3\n              MaximumBatchingWindowInSeconds: 4"
    names = stack(_TABLE % options, _STREAM_CODE)
    begun = time.monotonic()
    _write(aws, names["Table"], "a", "b", "c", "d")
    seen: list[Any] = []

    def more() -> int:
        seen.extend(_receive(aws, names["Seen"], 0))
        return len(seen)

    eventually(lambda: more() == 1)
    assert time.monotonic() - begun < 3.9
    eventually(lambda: more() == 2)
    assert time.monotonic() - begun > 3.9
    assert seen == [["a", "b", "c"], ["d"]]


def test_more_concurrency_drains_a_queue_faster_at_once(
    aws: AwsAccount, stack: Deploy, eventually: Eventually
) -> None:
    names = stack(_QUEUE, _SLOW_CODE)
    sqs, mappings = aws.client("sqs"), aws.client("lambda")

    def drain(count: int) -> float:
        for start in range(0, count, 10):
            entries = [{"Id": str(n), "MessageBody": "x"} for n in range(start, start + 10)]
            sqs.send_message_batch(QueueUrl=names["Orders"], Entries=entries)  # type: ignore[arg-type]  # built above
        begun = time.monotonic()

        def empty() -> bool:
            counts = sqs.get_queue_attributes(QueueUrl=names["Orders"], AttributeNames=["All"])
            visible = counts["Attributes"]["ApproximateNumberOfMessages"]
            return visible == counts["Attributes"]["ApproximateNumberOfMessagesNotVisible"] == "0"

        eventually(empty, 30)
        return time.monotonic() - begun

    drain(10)  # starts the first workers
    slow = drain(20)
    updated = mappings.update_event_source_mapping(
        UUID=names["WorkOrders"], ScalingConfig={"MaximumConcurrency": 10}
    )
    assert updated["State"] == "Updating"
    assert mappings.get_event_source_mapping(UUID=names["WorkOrders"])["State"] == "Enabled"
    drain(20)  # starts the rest
    assert drain(20) < slow / 2


def test_a_disabled_mapping_delivers_nothing_until_it_is_enabled(
    aws: AwsAccount, stack: Deploy, eventually: Eventually
) -> None:
    names = stack(_QUEUE, _SLOW_CODE)
    sqs, mappings = aws.client("sqs"), aws.client("lambda")
    disabling = mappings.update_event_source_mapping(UUID=names["WorkOrders"], Enabled=False)
    assert disabling["State"] == "Disabling"
    assert mappings.get_event_source_mapping(UUID=names["WorkOrders"])["State"] == "Disabled"
    sqs.send_message(QueueUrl=names["Orders"], MessageBody="x")

    def waiting() -> str:
        attributes = sqs.get_queue_attributes(QueueUrl=names["Orders"], AttributeNames=["All"])
        return attributes["Attributes"]["ApproximateNumberOfMessages"]

    time.sleep(0.5)
    assert waiting() == "1"
    enabling = mappings.update_event_source_mapping(UUID=names["WorkOrders"], Enabled=True)
    assert enabling["State"] == "Enabling"
    eventually(lambda: waiting() == "0")


def test_pollers_ignore_reserved_concurrency_and_throttled_messages_burn_receives(
    aws: AwsAccount, stack: Deploy, eventually: Eventually
) -> None:
    names = stack(_QUEUE.replace("VisibilityTimeout: 20", "VisibilityTimeout: 1"), _SLOW_CODE)
    client = aws.client("lambda")
    client.put_function_concurrency(FunctionName=names["Work"], ReservedConcurrentExecutions=0)
    sqs = aws.client("sqs")
    sqs.send_message(QueueUrl=names["Orders"], MessageBody="x")
    time.sleep(2)
    client.update_event_source_mapping(UUID=names["WorkOrders"], Enabled=False)

    def received() -> Any:
        return sqs.receive_message(
            QueueUrl=names["Orders"], MessageSystemAttributeNames=["ApproximateReceiveCount"]
        ).get("Messages")

    message = eventually(received)[0]
    assert int(message["Attributes"]["ApproximateReceiveCount"]) > 2


def test_without_the_bridge_the_gaps_are_still_there(aws: AwsAccount, stack: Deploy) -> None:
    with event_sources.BRIDGE.off():
        names = stack(_TABLE % "MaximumRetryAttempts: 0", _STREAM_CODE)
        _write(aws, names["Table"], "bad")
        assert _receive(aws, names["Dead"], 3) == []
        updated = aws.client("lambda").update_event_source_mapping(
            UUID=names["WorkStream"], Enabled=False
        )
        assert updated["State"] == "Disabled"
    with pytest.raises(KeyError):
        aws.client("sqs").receive_message(QueueUrl=names["Dead"])["Messages"]
