import json
from collections.abc import Callable

import pytest

from local.aws import AwsAccount, StackError
from local.aws.bridges import alarm_tags, ssm_documents

type Deploy = Callable[..., dict[str, str]]

_FORM = """
    Form:
      Type: AWS::SSM::Document
      Properties:
        Name: drain
        DocumentType: Automation
        UpdateMethod: NewVersion
        Content:
          schemaVersion: "0.3"
          description: %s
          parameters:
            queue: {type: String, description: Which}
            mode: {type: String, default: ask, allowedValues: [observe, ask]}
          mainSteps:
            - name: Run
              action: aws:executeStateMachine
              inputs: {stateMachineArn: arn, input: '{"queue": "{{ queue }}"}'}
"""


def test_a_document_is_made_shown_and_updated(aws: AwsAccount, stack: Deploy) -> None:
    ssm = aws.client("ssm")
    assert stack(_FORM % "First")["Form"] == "drain"
    assert json.loads(ssm.get_document(Name="drain")["Content"])["description"] == "First"
    described = ssm.describe_document(Name="drain")["Document"]
    assert (described["DocumentType"], described["DefaultVersion"]) == ("Automation", "1")
    assert described["Parameters"] == [
        {"Name": "queue", "Type": "String", "Description": "Which"},
        {"Name": "mode", "Type": "String", "Description": "", "DefaultValue": "ask"},
    ]
    stack(_FORM % "Second")
    assert ssm.describe_document(Name="drain")["Document"]["DefaultVersion"] == "2"
    with pytest.raises(ssm.exceptions.InvalidDocument):
        ssm.get_document(Name="fill")


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ('"0.3"', '"2.2"', "schemaVersion"),
        ("{{ queue }}", "{{ que }}", "is nothing"),
        ("default: ask", "default: auto", "is not allowed"),
        ("type: String, description", "type: Text, description", "has the type Text"),
        ("action:", "onFailure:", "an action"),
    ],
)
def test_what_is_no_document_is_refused(stack: Deploy, right: str, wrong: str, says: str) -> None:
    with pytest.raises(StackError, match=says):
        stack((_FORM % "x").replace(right, wrong))


def test_without_the_bridge_there_are_no_documents(stack: Deploy) -> None:
    with ssm_documents.BRIDGE.off(), pytest.raises(StackError, match="AWS::SSM::Document"):
        stack(_FORM % "x")


def test_alarms_are_found_by_their_tags(aws: AwsAccount) -> None:
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName="deep",
        Namespace="AWS/SQS",
        MetricName="ApproximateNumberOfMessagesVisible",
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
        Tags=[{"Key": "runbook", "Value": "queue-saturation"}],
    )
    tagging = aws.client("resourcegroupstaggingapi")

    def found() -> list[str]:
        answer = tagging.get_resources(
            ResourceTypeFilters=["cloudwatch:alarm"], TagFilters=[{"Key": "runbook"}]
        )
        return [one["ResourceARN"].rpartition(":")[2] for one in answer["ResourceTagMappingList"]]

    assert found() == ["deep"]
    with alarm_tags.BRIDGE.off():
        assert found() == []
