import json
from collections.abc import Callable
from typing import Any

import pytest

from local.aws import AwsAccount
from local.aws.bridges import sns_deliveries

type Deploy = Callable[..., dict[str, str]]

_RESOURCES = """
    Topic: {Type: AWS::SNS::Topic}
    Dead: {Type: AWS::SQS::Queue}
    Failed: {Type: AWS::SQS::Queue}
    Orders: {Type: AWS::SQS::Queue}
    MayDeliver:
      Type: AWS::SQS::QueuePolicy
      Properties:
        Queues: [!Ref Dead]
        PolicyDocument:
          Version: "2012-10-17"
          Statement:
            - Effect: Allow
              Principal: {Service: sns.amazonaws.com}
              Action: sqs:SendMessage
              Resource: "*"
              Condition: {ArnEquals: {aws:SourceArn: !Ref Topic}}
    Work:
      Type: AWS::Serverless::Function
      Properties:
        DeadLetterQueue: {Type: SQS, TargetArn: !GetAtt Failed.Arn}
        EventInvokeConfig: {MaximumRetryAttempts: 0}
    ToOrders:
      Type: AWS::SNS::Subscription
      Properties:
        TopicArn: !Ref Topic
        Protocol: sqs
        Endpoint: !GetAtt Orders.Arn
        RawMessageDelivery: %s
        RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn}
        FilterPolicy: {for: [orders]}
    ToWork:
      Type: AWS::SNS::Subscription
      Properties:
        TopicArn: !Ref Topic
        Protocol: lambda
        Endpoint: !GetAtt Work.Arn
        RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn}
        FilterPolicy: {for: [work]}
    MayInvoke:
      Type: AWS::Lambda::Permission
      Properties:
        FunctionName: !Ref Work
        Action: lambda:InvokeFunction
        Principal: sns.amazonaws.com
        SourceArn: !Ref Topic
"""
_CODE = """
    def handler(event, context):
        raise ValueError(event["Records"][0]["Sns"]["Message"])
"""


def _publish(aws: AwsAccount, topic: str, to: str) -> str:
    attributes: Any = {
        "for": {"DataType": "String", "StringValue": to},
        "bytes": {"DataType": "Binary", "BinaryValue": b"\x02\x03"},
    }
    sent = aws.client("sns").publish(
        TopicArn=topic, Message="hello", Subject="greeting", MessageAttributes=attributes
    )
    return sent["MessageId"]


def _received(aws: AwsAccount, queue: str, seconds: int = 5) -> Any:
    return (
        aws.client("sqs")
        .receive_message(
            QueueUrl=queue,
            WaitTimeSeconds=seconds,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )
        .get("Messages", [None])[0]
    )


def test_what_a_closed_queue_cannot_take_is_its_notification(
    aws: AwsAccount, stack: Deploy
) -> None:
    names = stack(_RESOURCES % "false", _CODE)  # Orders lets nobody in
    sent = _publish(aws, names["Topic"], "orders")
    message = _received(aws, names["Dead"])
    body = json.loads(message["Body"])
    assert (body["Type"], body["MessageId"], body["Message"]) == ("Notification", sent, "hello")
    assert (body["TopicArn"], body["Subject"]) == (names["Topic"], "greeting")
    assert body["MessageAttributes"] == {
        "for": {"Type": "String", "Value": "orders"},
        "bytes": {"Type": "Binary", "Value": "AgM="},
    }
    assert "MessageAttributes" not in message  # nothing says why
    assert "DeadLetterQueueSourceArn" not in message["Attributes"]


def test_what_a_deleted_queue_cannot_take_raw_is_the_message_itself(
    aws: AwsAccount, stack: Deploy
) -> None:
    names = stack(_RESOURCES % "true", _CODE)
    aws.client("sqs").delete_queue(QueueUrl=names["Orders"])
    _publish(aws, names["Topic"], "orders")
    message = _received(aws, names["Dead"])
    assert message["Body"] == "hello"
    assert message["MessageAttributes"] == {
        "for": {"DataType": "String", "StringValue": "orders"},
        "bytes": {"DataType": "Binary", "BinaryValue": b"\x02\x03"},
    }


def test_a_deleted_function_leaves_the_notification_a_failing_one_its_event(
    aws: AwsAccount, stack: Deploy
) -> None:
    names = stack(_RESOURCES % "false", _CODE)
    _publish(aws, names["Topic"], "work")
    failed = _received(aws, names["Failed"])
    [record] = json.loads(failed["Body"])["Records"]
    assert (record["EventSource"], record["Sns"]["Message"]) == ("aws:sns", "hello")
    assert failed["MessageAttributes"]["ErrorMessage"]["StringValue"] == "hello"
    aws.client("lambda").delete_function(FunctionName=names["Work"])
    _publish(aws, names["Topic"], "work")
    body = json.loads(_received(aws, names["Dead"])["Body"])
    assert (body["Type"], body["Message"]) == ("Notification", "hello")


@pytest.mark.parametrize("to", ["orders", "work"])
def test_without_the_bridge_the_message_is_lost(aws: AwsAccount, stack: Deploy, to: str) -> None:
    with sns_deliveries.BRIDGE.off():
        names = stack(_RESOURCES % "false", _CODE)
        aws.client("lambda").delete_function(FunctionName=names["Work"])
        _publish(aws, names["Topic"], to)
        assert _received(aws, names["Dead"], 1) is None
