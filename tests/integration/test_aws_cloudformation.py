import json
from collections.abc import Callable
from pathlib import Path

import pytest

from local.aws import AwsAccount, StackError
from local.aws.bridges import cloudformation, definition_yaml

type Deploy = Callable[..., dict[str, str]]

_CODE = "def handler(event, context): return event\n"
_RESOURCES = """
    Dead: {Type: AWS::SQS::Queue}
    Orders: {Type: AWS::SQS::Queue}
    Table:
      Type: AWS::DynamoDB::Table
      Properties:
        BillingMode: PAY_PER_REQUEST
        AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]
        KeySchema: [{AttributeName: pk, KeyType: HASH}]
        StreamSpecification: {StreamViewType: NEW_IMAGE}
        TimeToLiveSpecification: {AttributeName: expires, Enabled: true}
        PointInTimeRecoverySpecification: {PointInTimeRecoveryEnabled: true}
    Work:
      Type: AWS::Serverless::Function
      Properties:
        ReservedConcurrentExecutions: %d
        DeadLetterQueue: {Type: SQS, TargetArn: !GetAtt Dead.Arn}
        Policies: [{SQSPollerPolicy: {QueueName: !GetAtt Orders.QueueName}}]
        Events:
          Stream:
            Type: DynamoDB
            Properties: {Stream: !GetAtt Table.StreamArn, StartingPosition: LATEST}
    Mapping:
      Type: AWS::Lambda::EventSourceMapping
      Properties:
        FunctionName: !Ref Work
        EventSourceArn: !GetAtt Orders.Arn
        Enabled: false
        Tags: [{Key: runbook-automation, Value: enabled}]
        FilterCriteria: {Filters: [{Pattern: '{"body": {"kind": ["order"]}}'}]}
        ScalingConfig: {MaximumConcurrency: 2}
"""
_ALARMS = """
    Deep:
      Type: AWS::CloudWatch::Alarm
      Properties:
        AlarmName: deep
        Namespace: AWS/SQS
        MetricName: ApproximateNumberOfMessagesVisible
        Statistic: Maximum
        Period: 60
        EvaluationPeriods: 1
        Threshold: 1
        ComparisonOperator: GreaterThanThreshold
    Either:
      Type: AWS::CloudWatch::CompositeAlarm
      DependsOn: Deep
      Properties: {AlarmName: either, AlarmRule: ALARM(deep)}
"""
# One of each kind that the templates use, with the properties that they set.
_OTHERS = """
    Key:
      Type: AWS::KMS::Key
      Properties:
        EnableKeyRotation: true
        KeyPolicy:
          Version: "2012-10-17"
          Statement:
            - Effect: Allow
              Principal: {AWS: !Sub "arn:aws:iam::${AWS::AccountId}:root"}
              Action: kms:*
              Resource: "*"
    Topic: {Type: AWS::SNS::Topic, Properties: {KmsMasterKeyId: !Ref Key}}
    TopicPolicy:
      Type: AWS::SNS::TopicPolicy
      Properties:
        Topics: [!Ref Topic]
        PolicyDocument:
          Version: "2012-10-17"
          Statement:
            - Effect: Allow
              Principal: {Service: cloudwatch.amazonaws.com}
              Action: sns:Publish
              Resource: !Ref Topic
    Table:
      Type: AWS::DynamoDB::Table
      Properties:
        BillingMode: PAY_PER_REQUEST
        AttributeDefinitions:
          - {AttributeName: pk, AttributeType: S}
          - {AttributeName: status, AttributeType: S}
        KeySchema: [{AttributeName: pk, KeyType: HASH}]
        GlobalSecondaryIndexes:
          - IndexName: by-status
            KeySchema: [{AttributeName: status, KeyType: HASH}]
            Projection: {ProjectionType: ALL}
        SSESpecification: {SSEEnabled: true, SSEType: KMS, KMSMasterKeyId: !Ref Key}
    Reports:
      Type: AWS::S3::Bucket
      Properties:
        BucketEncryption:
          ServerSideEncryptionConfiguration:
            - ServerSideEncryptionByDefault: {SSEAlgorithm: aws:kms, KMSMasterKeyID: !Ref Key}
        LifecycleConfiguration: {Rules: [{Status: Enabled, ExpirationInDays: 400}]}
    Secret: {Type: AWS::SecretsManager::Secret, Properties: {KmsKeyId: !Ref Key}}
    Logs:
      Type: AWS::Logs::LogGroup
      Properties: {LogGroupName: /aws/states/x, RetentionInDays: 30, KmsKeyId: !GetAtt Key.Arn}
    Machine:
      Type: AWS::Serverless::StateMachine
      Properties:
        Definition: {StartAt: Done, States: {Done: {Type: Succeed}}}
        Tracing: {Enabled: true}
        Logging:
          Level: ERROR
          Destinations: [{CloudWatchLogsLogGroup: {LogGroupArn: !GetAtt Logs.Arn}}]
"""


def test_properties_of_functions_mappings_and_tables_take_effect(
    aws: AwsAccount, stack: Deploy
) -> None:
    names = stack(_RESOURCES % 5, _CODE)
    client = aws.client("lambda")
    function = client.get_function(FunctionName=names["Work"])
    assert function["Concurrency"]["ReservedConcurrentExecutions"] == 5
    assert function["Configuration"]["DeadLetterConfig"]["TargetArn"].endswith(
        names["Dead"].rpartition("/")[2]
    )
    mapping = client.get_event_source_mapping(UUID=names["Mapping"])
    assert (mapping["State"], mapping["ScalingConfig"]) == ("Disabled", {"MaximumConcurrency": 2})
    assert mapping["FilterCriteria"]["Filters"][0]["Pattern"] == '{"body": {"kind": ["order"]}}'
    tags = client.list_tags(Resource=mapping["EventSourceMappingArn"])["Tags"]
    assert tags["runbook-automation"] == "enabled"
    assert client.get_event_source_mapping(UUID=names["WorkStream"])["BatchSize"] == 100
    table = aws.client("dynamodb")
    expiry = table.describe_time_to_live(TableName=names["Table"])["TimeToLiveDescription"]
    assert (expiry["TimeToLiveStatus"], expiry["AttributeName"]) == ("ENABLED", "expires")
    backups = table.describe_continuous_backups(TableName=names["Table"])
    recovery = backups["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
    assert recovery["PointInTimeRecoveryStatus"] == "ENABLED"


def test_an_update_changes_them(aws: AwsAccount, stack: Deploy) -> None:
    stack(_RESOURCES % 5, _CODE)
    changed = (_RESOURCES % 7).replace("Enabled: false", "Enabled: true")
    names = stack(changed, _CODE)
    client = aws.client("lambda")
    concurrency = client.get_function_concurrency(FunctionName=names["Work"])
    assert concurrency["ReservedConcurrentExecutions"] == 7
    assert client.get_event_source_mapping(UUID=names["Mapping"])["State"] == "Enabled"


def test_a_reservation_that_leaves_too_little_fails_the_stack(
    aws: AwsAccount, stack: Deploy
) -> None:
    aws.set_account_concurrency(10)
    with pytest.raises(StackError, match=r"Work .*below its minimum value"):
        stack(_RESOURCES % 5, _CODE)


def test_a_composite_alarm_is_a_resource(aws: AwsAccount, stack: Deploy) -> None:
    assert stack(_ALARMS)["Either"] == "either"
    cloudwatch = aws.client("cloudwatch")

    def rules() -> list[str]:
        found = cloudwatch.describe_alarms(AlarmTypes=["CompositeAlarm"])["CompositeAlarms"]
        return [alarm["AlarmRule"] for alarm in found]

    assert rules() == ["ALARM(deep)"]
    stack(_ALARMS.replace("ALARM(deep)", "OK(deep)"))
    assert rules() == ["OK(deep)"]
    aws.delete_stack("stack")
    assert rules() == []


def test_every_type_that_the_templates_use_is_created(aws: AwsAccount, stack: Deploy) -> None:
    names = stack(_OTHERS)
    machine = aws.client("stepfunctions").describe_state_machine(stateMachineArn=names["Machine"])
    assert machine["loggingConfiguration"]["level"] == "ERROR"
    group = aws.client("logs").describe_log_groups(logGroupNamePrefix="/aws/states/x")
    assert group["logGroups"][0]["retentionInDays"] == 30
    assert "kmsKeyId" in group["logGroups"][0]


def test_without_the_bridges_the_gaps_are_still_there(aws: AwsAccount, stack: Deploy) -> None:
    with cloudformation.BRIDGE.off(), definition_yaml.BRIDGE.off():
        with pytest.raises(StackError, match="Unrecognized resource types"):
            stack(_ALARMS)
        names = stack(_RESOURCES % 5, _CODE)
        assert "Concurrency" not in aws.client("lambda").get_function(FunctionName=names["Work"])
        mapping = aws.client("lambda").get_event_source_mapping(UUID=names["Mapping"])
        assert mapping["State"] == "Enabled"
        yaml = """
            Machine:
              Type: AWS::StepFunctions::StateMachine
              Properties:
                RoleArn: !Sub arn:aws:iam::${AWS::AccountId}:role/machine
                DefinitionString: "StartAt: Done"
        """
        machine = stack(yaml, name="machine")["Machine"]
    described = aws.client("stepfunctions").describe_state_machine(stateMachineArn=machine)
    assert described["definition"] == "StartAt: Done"


def _roles(aws: AwsAccount, folder: Path) -> list[str]:
    """Deploy a role by one template in two Regions; return its names."""
    (folder / "template.json").write_text(
        json.dumps(
            {
                "Resources": {
                    "Own": {
                        "Type": "AWS::IAM::Role",
                        "Properties": {"AssumeRolePolicyDocument": {"Statement": []}},
                    }
                },
                "Outputs": {"Role": {"Value": {"Ref": "Own"}}},
            }
        )
    )
    regions = (aws.for_account(aws.account, one) for one in ("us-east-1", "eu-west-1"))
    return [one.deploy("twice", folder / "template.json")["Role"] for one in regions]


def test_a_role_of_a_stack_in_two_regions_is_two_roles(aws: AwsAccount, tmp_path: Path) -> None:
    here, there = _roles(aws, tmp_path)
    assert here != there
    assert here.startswith("twice-Own-")
    assert _roles(aws, tmp_path) == [here, there]


def test_without_the_bridge_the_second_region_takes_the_firsts_role(
    aws: AwsAccount, tmp_path: Path
) -> None:
    with cloudformation.BRIDGE.off():
        here, there = _roles(aws, tmp_path)
    assert here == there
