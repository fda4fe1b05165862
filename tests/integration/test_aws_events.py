import json
from collections.abc import Callable
from typing import Any

from local.aws import AwsAccount
from local.aws.bridges import eventbridge_targets

type Deploy = Callable[..., dict[str, str]]

_RESOURCES = """
    Dead: {Type: AWS::SQS::Queue}
    Failed: {Type: AWS::SQS::Queue}
    Work:
      Type: AWS::Serverless::Function
      Properties:
        DeadLetterQueue: {Type: SQS, TargetArn: !GetAtt Failed.Arn}
        EventInvokeConfig: {MaximumRetryAttempts: 1}
        Events:
          Fire:
            Type: EventBridgeRule
            Properties:
              Pattern: {source: [pilot]}
              RetryPolicy: {MaximumRetryAttempts: 4, MaximumEventAgeInSeconds: 600}
              DeadLetterConfig: {Arn: !GetAtt Dead.Arn}
          Tick:
            Type: Schedule
            Properties: {Schedule: rate(5 minutes)}
"""
_CODE = """
    def handler(event, context):
        raise ValueError(event["detail"]["n"])
"""


def _put(aws: AwsAccount) -> None:
    entry = {"Source": "pilot", "DetailType": "Fired", "Detail": '{"n": 1}'}
    aws.client("events").put_events(Entries=[entry])  # type: ignore[list-item]  # a plain entry


def _received(aws: AwsAccount, queue: str, seconds: int = 5) -> Any:
    return (
        aws.client("sqs")
        .receive_message(QueueUrl=queue, WaitTimeSeconds=seconds, MessageAttributeNames=["All"])
        .get("Messages", [None])[0]
    )


def test_an_event_whose_target_is_gone_goes_to_the_targets_queue(
    aws: AwsAccount, stack: Deploy
) -> None:
    names = stack(_RESOURCES, _CODE)
    aws.client("lambda").delete_function(FunctionName=names["Work"])
    _put(aws)
    message = _received(aws, names["Dead"])
    attributes = {name: a["StringValue"] for name, a in message["MessageAttributes"].items()}
    assert json.loads(message["Body"])["detail"] == {"n": 1}
    assert attributes["ERROR_CODE"] == "NO_RESOURCE"
    assert attributes["ERROR_MESSAGE"].endswith("does not exist.")
    assert attributes["RETRY_ATTEMPTS"] == "0"
    assert "EXHAUSTED_RETRY_CONDITION" not in attributes  # nothing was retried
    assert json.loads(message["Body"]).keys() == {
        "version", "id", "detail-type", "source", "account", "time", "region", "resources",
        "detail",
    }  # fmt: skip
    assert attributes["RULE_ARN"].endswith(names["WorkFire"])
    assert attributes["TARGET_ARN"].endswith(names["Work"])


def test_an_event_that_may_not_invoke_its_function_goes_there_as_well(
    aws: AwsAccount, stack: Deploy
) -> None:
    names = stack(_RESOURCES, _CODE)
    client = aws.client("lambda")
    policy = json.loads(client.get_policy(FunctionName=names["Work"])["Policy"])
    for statement in policy["Statement"]:
        client.remove_permission(FunctionName=names["Work"], StatementId=statement["Sid"])
    _put(aws)
    message = _received(aws, names["Dead"])
    assert message["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "NO_PERMISSIONS"


def test_a_function_that_fails_is_retried_by_lambda_and_uses_lambdas_queue(
    aws: AwsAccount, stack: Deploy
) -> None:
    names = stack(_RESOURCES, _CODE)
    _put(aws)
    message = _received(aws, names["Failed"], 8)
    assert json.loads(message["Body"])["detail"] == {"n": 1}
    attributes = message["MessageAttributes"]
    assert attributes.keys() == {"RequestID", "ErrorCode", "ErrorMessage"}
    assert attributes["ErrorCode"] == {"DataType": "Number", "StringValue": "200"}
    assert attributes["ErrorMessage"] == {"DataType": "String", "StringValue": "1"}
    assert _received(aws, names["Dead"], 0) is None


def test_rules_keep_their_retry_policies_and_schedules(aws: AwsAccount, stack: Deploy) -> None:
    names = stack(_RESOURCES, _CODE)
    events = aws.client("events")
    target = events.list_targets_by_rule(Rule=names["WorkFire"])["Targets"][0]
    assert target["RetryPolicy"] == {"MaximumRetryAttempts": 4, "MaximumEventAgeInSeconds": 600}
    assert events.describe_rule(Name=names["WorkTick"])["ScheduleExpression"] == "rate(5 minutes)"


def test_without_the_bridge_the_event_is_lost(aws: AwsAccount, stack: Deploy) -> None:
    with eventbridge_targets.BRIDGE.off():
        names = stack(_RESOURCES, _CODE)
        aws.client("lambda").delete_function(FunctionName=names["Work"])
        _put(aws)
        assert _received(aws, names["Dead"], 1) is None
