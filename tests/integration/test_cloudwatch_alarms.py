"""Alarms: evaluation, history, events, actions; and the Change Calendar beside them."""

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from local.aws import AwsAccount, EmbeddedAws
from local.aws.cloudwatch import CloudWatch, Settings, put_metric_history

REGION = "us-east-1"


@pytest.fixture(scope="module", autouse=True)
def cloudwatch(embedded_aws: EmbeddedAws) -> Iterator[CloudWatch]:
    running = CloudWatch(Settings(resolution_seconds=1))
    running.install(embedded_aws)
    yield running
    running.uninstall()


def eventually(check: Callable[[], bool], seconds: float = 6) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def put(aws: AwsAccount, value: float, dimension: str = "a", metric: str = "Depth") -> None:
    aws.client("cloudwatch").put_metric_data(
        Namespace="shop",
        MetricData=[
            {
                "MetricName": metric,
                "Dimensions": [{"Name": "Q", "Value": dimension}],
                "Value": value,
                "Unit": "Count",
            }
        ],
    )


def alarm(aws: AwsAccount, name: str = "deep", **changes: Any) -> None:
    settings: dict[str, Any] = {
        "AlarmName": name,
        "Namespace": "shop",
        "MetricName": "Depth",
        "Dimensions": [{"Name": "Q", "Value": "a"}],
        "Statistic": "Maximum",
        "Period": 1,
        "EvaluationPeriods": 1,
        "Threshold": 10.0,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "ignore",
    } | changes
    given = {key: value for key, value in settings.items() if value is not None}
    aws.client("cloudwatch").put_metric_alarm(**given)


def described(aws: AwsAccount, name: str = "deep") -> Any:
    found = aws.client("cloudwatch").describe_alarms(
        AlarmNames=[name], AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    return (found["MetricAlarms"] + found["CompositeAlarms"])[0]


def state(aws: AwsAccount, name: str = "deep") -> str:
    return str(described(aws, name)["StateValue"])


def changes(aws: AwsAccount) -> list[str]:
    found = aws.client("cloudwatch").describe_alarm_history(
        AlarmName="deep", HistoryItemType="StateUpdate", ScanBy="TimestampAscending"
    )
    return [item["HistorySummary"] for item in found["AlarmHistoryItems"]]


def listen(aws: AwsAccount, pattern: dict[str, Any] | None = None) -> Callable[[], list[Any]]:
    """Send alarm events of the default bus to a queue; the result reads what has arrived."""
    sqs, events = aws.client("sqs"), aws.client("events")
    url = sqs.create_queue(QueueName="heard")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    wanted = pattern or {
        "source": ["aws.cloudwatch"],
        "detail-type": ["CloudWatch Alarm State Change"],
    }
    events.put_rule(Name="alarms", EventPattern=json.dumps(wanted))
    events.put_targets(Rule="alarms", Targets=[{"Id": "q", "Arn": arn["QueueArn"]}])
    heard: list[Any] = []

    def read() -> list[Any]:
        while found := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in found:
                heard.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return heard

    return read


# Evaluation


def test_only_the_alarms_own_dimensions_count(aws: AwsAccount) -> None:
    alarm(aws)
    put(aws, 99, dimension="other")
    put(aws, 1)
    eventually(lambda: state(aws) == "OK")
    put(aws, 99, dimension="other")
    time.sleep(2.2)
    assert changes(aws) == ["Alarm updated from INSUFFICIENT_DATA to OK"]
    put(aws, 99)
    eventually(lambda: state(aws) == "ALARM")


def test_m_out_of_n_needs_m_breaching_periods(aws: AwsAccount) -> None:
    now = int(time.time())
    alarm(aws, Period=60, EvaluationPeriods=3, DatapointsToAlarm=2, TreatMissingData="missing")
    seed(aws, [(now - 150, 99.0), (now - 90, 1.0), (now - 30, 1.0)])
    eventually(lambda: state(aws) == "OK")
    seed(aws, [(now - 90, 99.0)])
    eventually(lambda: state(aws) == "ALARM")
    reason = described(aws)["StateReason"]
    assert "2 out of the last 3 datapoints" in reason
    assert "(minimum 2 datapoints for OK -> ALARM transition)" in reason


def seed(aws: AwsAccount, points: Sequence[tuple[float, float]], metric: str = "Depth") -> None:
    put_metric_history(aws.account, REGION, "shop", metric, {"Q": "a"}, points)


def test_alarms_without_data_follow_their_treatment_without_any_request(aws: AwsAccount) -> None:
    alarm(aws, "missing", TreatMissingData="missing")
    alarm(aws, "calm", TreatMissingData="notBreaching")
    alarm(aws, "kept", TreatMissingData="ignore")
    alarm(aws, "breaching", TreatMissingData="breaching", Threshold=1000.0)
    put(aws, 99)
    eventually(lambda: state(aws, "breaching") == "OK")
    assert [state(aws, name) for name in ("missing", "calm", "kept")] == ["ALARM"] * 3
    eventually(lambda: state(aws, "missing") == "INSUFFICIENT_DATA")
    assert [state(aws, name) for name in ("calm", "kept", "breaching")] == ["OK", "ALARM", "ALARM"]


def test_only_data_of_the_alarms_unit_counts(aws: AwsAccount) -> None:
    alarm(aws, "same", Unit="Count", Period=60)
    alarm(aws, "other", Unit="Seconds", Period=60, TreatMissingData="notBreaching")
    put(aws, 99)
    eventually(lambda: state(aws, "same") == "ALARM")
    eventually(lambda: state(aws, "other") == "OK")


def test_a_percentile_alarm(aws: AwsAccount) -> None:
    alarm(aws, Statistic=None, ExtendedStatistic="p90", Period=60)
    for value in [1] * 7 + [50] * 3:
        put(aws, value)
    eventually(lambda: state(aws) == "ALARM")
    assert described(aws)["ExtendedStatistic"] == "p90"
    assert "Statistic" not in described(aws)


def test_set_alarm_state_holds_until_the_next_evaluation(aws: AwsAccount) -> None:
    alarm(aws, TreatMissingData="notBreaching")
    eventually(lambda: state(aws) == "OK")
    aws.client("cloudwatch").set_alarm_state(
        AlarmName="deep", StateValue="ALARM", StateReason="drill"
    )
    eventually(lambda: state(aws) == "OK", seconds=2)
    assert changes(aws) == [
        "Alarm updated from INSUFFICIENT_DATA to OK",
        "Alarm updated from OK to ALARM",
        "Alarm updated from ALARM to OK",
    ]


def test_reason_data_and_times_follow_the_transition(aws: AwsAccount) -> None:
    before = datetime.now(tz=UTC)
    alarm(aws, Period=10)
    put(aws, 42)
    eventually(lambda: state(aws) == "ALARM")
    now = described(aws)
    data = json.loads(now["StateReasonData"])
    assert data["statistic"] == "Maximum"
    assert data["period"] == 10
    assert data["threshold"] == 10.0
    assert data["recentDatapoints"] == [42.0]
    assert data["evaluatedDatapoints"][0]["sampleCount"] == 1.0
    assert before < now["StateTransitionedTimestamp"] <= datetime.now(tz=UTC)
    assert now["StateUpdatedTimestamp"] == now["StateTransitionedTimestamp"]
    alarm(aws, Period=10, Threshold=5.0)  # changing the alarm keeps its state
    assert described(aws)["StateTransitionedTimestamp"] == now["StateTransitionedTimestamp"]
    assert described(aws)["Threshold"] == 5.0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"DatapointsToAlarm": 4, "EvaluationPeriods": 3}, "DatapointsToAlarm"),
        ({"MetricName": None}, "MetricName"),
        ({"ExtendedStatistic": "p90"}, "Only one of"),
    ],
)
def test_alarms_that_contradict_themselves_are_refused(
    aws: AwsAccount, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ClientError, match=rf"ValidationError.*{why}"):
        alarm(aws, **changes)


# Metric math


def ratio(expression: str) -> list[dict[str, Any]]:
    def stat(query_id: str, metric: str) -> dict[str, Any]:
        named = {
            "Namespace": "shop",
            "MetricName": metric,
            "Dimensions": [{"Name": "Q", "Value": "a"}],
        }
        return {
            "Id": query_id,
            "MetricStat": {"Metric": named, "Period": 60, "Stat": "Sum"},
            "ReturnData": False,
        }

    return [
        {"Id": "e1", "Expression": expression, "Label": "Error rate", "ReturnData": True},
        stat("failed", "Failed"),
        stat("sent", "Sent"),
    ]


def math_alarm(aws: AwsAccount, expression: str, **changes: Any) -> None:
    plain = dict.fromkeys(("Namespace", "MetricName", "Dimensions", "Statistic", "Period"))
    alarm(aws, **(plain | {"Metrics": ratio(expression)} | changes))


def test_a_metric_math_alarm_compares_the_expression(aws: AwsAccount) -> None:
    read = listen(aws)
    math_alarm(aws, "100 * FILL(failed, 0) / sent")
    put(aws, 100, metric="Sent")
    put(aws, 5, metric="Failed")
    eventually(lambda: state(aws) == "OK")
    put(aws, 30, metric="Failed")
    eventually(lambda: state(aws) == "ALARM")
    assert "MetricName" not in described(aws)
    assert described(aws)["Metrics"][0]["Expression"] == "100 * FILL(failed, 0) / sent"
    eventually(lambda: len(read()) == 2)
    configuration = read()[-1]["detail"]["configuration"]
    assert configuration["metrics"][0] == {
        "id": "e1",
        "expression": "100 * FILL(failed, 0) / sent",
        "label": "Error rate",
        "returnData": True,
    }
    assert configuration["metrics"][1]["metricStat"]["metric"] == {
        "namespace": "shop",
        "name": "Failed",
        "dimensions": {"Q": "a"},
    }


def test_an_expression_that_is_not_understood_gives_insufficient_data(aws: AwsAccount) -> None:
    math_alarm(aws, "ANOMALY_DETECTION_BAND(sent, 2)", TreatMissingData="breaching")
    eventually(lambda: "ANOMALY_DETECTION_BAND is not supported" in described(aws)["StateReason"])
    assert state(aws) == "INSUFFICIENT_DATA"


def test_a_template_may_declare_a_metric_math_alarm_with_tags(aws: AwsAccount) -> None:
    template = {
        "Resources": {
            "Rate": {
                "Type": "AWS::CloudWatch::Alarm",
                "Properties": {
                    "AlarmName": "rate",
                    "Metrics": ratio("failed / sent"),
                    "EvaluationPeriods": 1,
                    "Threshold": 0.1,
                    "ComparisonOperator": "GreaterThanThreshold",
                    "Tags": [{"Key": "runbook", "Value": "function-throttling"}],
                },
            }
        }
    }
    cloudformation = aws.client("cloudformation")
    cloudformation.create_stack(StackName="s", TemplateBody=json.dumps(template))
    cloudformation.get_waiter("stack_create_complete").wait(
        StackName="s", WaiterConfig={"Delay": 1}
    )
    put(aws, 10, metric="Sent")
    put(aws, 2, metric="Failed")
    eventually(lambda: state(aws, "rate") == "ALARM")
    tags = aws.client("cloudwatch").list_tags_for_resource(
        ResourceARN=described(aws, "rate")["AlarmArn"]
    )["Tags"]
    assert {"Key": "runbook", "Value": "function-throttling"} in tags


# Events and actions


def test_a_transition_sends_the_documented_event(aws: AwsAccount) -> None:
    read = listen(aws)
    alarm(aws, AlarmDescription="Too deep")
    put(aws, 1)
    eventually(lambda: state(aws) == "OK")
    put(aws, 99)
    eventually(lambda: len(read()) == 2)
    first, second = read()
    arn = f"arn:aws:cloudwatch:{REGION}:{aws.account}:alarm:deep"
    assert second["resources"] == [arn]
    assert (second["account"], second["region"]) == (aws.account, REGION)
    assert second["source"] == "aws.cloudwatch"
    assert datetime.fromisoformat(second["time"]) <= datetime.now(tz=UTC)
    detail = second["detail"]
    assert detail["alarmName"] == "deep"
    assert detail["state"]["value"] == "ALARM"
    assert detail["previousState"] == first["detail"]["state"]
    assert first["detail"]["previousState"]["value"] == "INSUFFICIENT_DATA"
    assert first["detail"]["previousState"]["reason"] == "Unchecked: Initial alarm creation"
    assert json.loads(detail["state"]["reasonData"])["recentDatapoints"] == [99.0]
    moment = datetime.strptime(detail["state"]["timestamp"], "%Y-%m-%dT%H:%M:%S.%f%z")
    assert timedelta(0) <= datetime.now(tz=UTC) - moment < timedelta(seconds=10)
    configuration = detail["configuration"]
    assert configuration["description"] == "Too deep"
    (metric,) = configuration["metrics"]
    assert metric["returnData"] is True
    assert metric["metricStat"] == {
        "metric": {"namespace": "shop", "name": "Depth", "dimensions": {"Q": "a"}},
        "period": 1,
        "stat": "Maximum",
    }


def test_set_alarm_state_sends_an_event_too(aws: AwsAccount) -> None:
    read = listen(aws, {"detail": {"state": {"value": ["ALARM"]}}})
    alarm(aws)
    put(aws, 1)
    eventually(lambda: "StateReasonData" in described(aws))
    aws.client("cloudwatch").set_alarm_state(
        AlarmName="deep", StateValue="ALARM", StateReason="drill"
    )
    (event,) = read()
    assert event["detail"]["state"]["reason"] == "drill"
    assert "reasonData" not in event["detail"]["state"]


def test_no_event_without_a_transition_and_none_to_other_accounts(
    aws: AwsAccount, embedded_aws: EmbeddedAws
) -> None:
    read = listen(aws)
    elsewhere = listen(embedded_aws.for_account(aws.account, "us-west-2"))
    alarm(aws)
    for _ in range(3):
        put(aws, 99)
        time.sleep(0.7)
    eventually(lambda: state(aws) == "ALARM")
    assert [event["detail"]["state"]["value"] for event in read()] == ["ALARM"]
    assert elsewhere() == []


def test_a_composite_alarm_follows_its_children(aws: AwsAccount) -> None:
    read = listen(aws, {"detail": {"alarmName": ["both"]}})
    alarm(aws, "one")
    alarm(aws, "two", Threshold=50.0)
    aws.client("cloudwatch").put_composite_alarm(
        AlarmName="both", AlarmRule="ALARM(one) AND NOT OK(two)", AlarmDescription="Both"
    )
    assert state(aws, "both") == "OK"
    put(aws, 20)
    eventually(lambda: state(aws, "two") == "OK")
    assert state(aws, "one") == "ALARM"
    assert state(aws, "both") == "OK"
    put(aws, 99)
    eventually(lambda: state(aws, "both") == "ALARM")
    eventually(lambda: bool(read()) and read()[-1]["detail"]["state"]["value"] == "ALARM")
    event = read()[-1]
    assert event["detail"]["configuration"] == {
        "description": "Both",
        "alarmRule": "ALARM(one) AND NOT OK(two)",
    }
    triggering = json.loads(event["detail"]["state"]["reasonData"])["triggeringAlarms"]
    assert described(aws, "two")["AlarmArn"] in [each["arn"] for each in triggering]


def topic_with_queue(aws: AwsAccount) -> tuple[str, Callable[[], list[Any]]]:
    sqs, sns = aws.client("sqs"), aws.client("sns")
    topic = sns.create_topic(Name="pager")["TopicArn"]
    arn = f"arn:aws:sqs:{REGION}:{aws.account}:paged"
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    url = sqs.create_queue(
        QueueName="paged",
        Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [statement]})},
    )["QueueUrl"]
    sns.subscribe(
        TopicArn=topic,
        Protocol="sqs",
        Endpoint=arn,
        Attributes={"RawMessageDelivery": "true"},
    )

    def read() -> list[Any]:
        found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(message["Body"]) for message in found]

    return topic, read


def test_sns_actions_run_for_their_state_only_while_enabled(aws: AwsAccount) -> None:
    topic, read = topic_with_queue(aws)
    alarm(aws, AlarmActions=[topic], Dimensions=[{"Name": "Q", "Value": "a"}])
    put(aws, 1)
    eventually(lambda: state(aws) == "OK")
    assert read() == []
    put(aws, 99)
    eventually(lambda: state(aws) == "ALARM")
    (message,) = read()
    assert message["AlarmName"] == "deep"
    assert message["OldStateValue"] == "OK"
    assert message["NewStateValue"] == "ALARM"
    assert message["Trigger"]["Dimensions"] == [{"name": "Q", "value": "a"}]
    aws.client("cloudwatch").disable_alarm_actions(AlarmNames=["deep"])
    put(aws, 1)
    eventually(lambda: state(aws) == "OK")
    put(aws, 99)
    eventually(lambda: state(aws) == "ALARM")
    assert read() == []


def test_a_lambda_action_gets_the_documented_payload(aws: AwsAccount) -> None:
    name = create_function(aws)
    alarm(aws, AlarmActions=[f"arn:aws:lambda:{REGION}:{aws.account}:function:{name}"])
    put(aws, 99)
    logs = aws.client("logs")

    def printed() -> list[Any]:
        try:
            found = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        except logs.exceptions.ResourceNotFoundException:
            return []
        return [json.loads(event["message"]) for event in found if event["message"][:1] == "{"]

    eventually(lambda: bool(printed()))
    (event,) = printed()
    assert event["source"] == "aws.cloudwatch"
    assert event["accountId"] == aws.account
    assert event["alarmArn"].endswith(":alarm:deep")
    assert event["alarmData"]["state"]["value"] == "ALARM"
    assert event["alarmData"]["configuration"]["metrics"][0]["metricStat"]["period"] == 1


def create_function(aws: AwsAccount) -> str:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr(
            "index.py",
            "import json\ndef handler(event, context):\n    print(json.dumps(event))\n",
        )
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "lambda.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = aws.client("iam").create_role(RoleName="runner", AssumeRolePolicyDocument=document)
    client = aws.client("lambda")
    client.create_function(
        FunctionName="told",
        Role=role["Role"]["Arn"],
        Runtime="python3.13",
        Handler="index.handler",
        Code={"ZipFile": written.getvalue()},
    )
    client.get_waiter("function_active_v2").wait(FunctionName="told")
    return "told"


# Reading alarms


def test_alarms_are_found_by_prefix_and_state_and_in_pages(aws: AwsAccount) -> None:
    for name in ("orders-age", "orders-dlq", "billing-age"):
        alarm(aws, name, TreatMissingData="notBreaching")
    client = aws.client("cloudwatch")
    eventually(lambda: state(aws, "billing-age") == "OK")
    names = [
        each["AlarmName"]
        for page in client.get_paginator("describe_alarms").paginate(
            AlarmNamePrefix="orders", StateValue="OK", PaginationConfig={"PageSize": 1}
        )
        for each in page["MetricAlarms"]
    ]
    assert names == ["orders-age", "orders-dlq"]
    assert client.describe_alarms(StateValue="ALARM")["MetricAlarms"] == []


def test_alarm_tags_can_be_set_and_read(aws: AwsAccount) -> None:
    alarm(aws, Tags=[{"Key": "runbook", "Value": "dlq-replay"}])
    client = aws.client("cloudwatch")
    arn = described(aws)["AlarmArn"]
    client.tag_resource(ResourceARN=arn, Tags=[{"Key": "team", "Value": "shop"}])
    client.untag_resource(ResourceARN=arn, TagKeys=["runbook"])
    assert client.list_tags_for_resource(ResourceARN=arn)["Tags"] == [
        {"Key": "team", "Value": "shop"}
    ]


def test_a_queues_own_metric_raises_the_alarm_within_two_seconds(aws: AwsAccount) -> None:
    alarm(
        aws,
        "depth",
        Namespace="AWS/SQS",
        MetricName="ApproximateNumberOfMessagesVisible",
        Dimensions=[{"Name": "QueueName", "Value": "orders"}],
        Threshold=3.0,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
    )
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="orders")["QueueUrl"]
    eventually(lambda: state(aws, "depth") == "OK")
    for number in range(3):
        sqs.send_message(QueueUrl=url, MessageBody=str(number))
    eventually(lambda: state(aws, "depth") == "ALARM", seconds=2)
    sqs.purge_queue(QueueUrl=url)
    eventually(lambda: state(aws, "depth") == "OK", seconds=2)


# Change Calendar

FREEZE = """BEGIN:VCALENDAR
PRODID:-//AWS//Change Calendar 1.0//EN
VERSION:2.0
X-CALENDAR-TYPE:{kind}
BEGIN:VEVENT
DTSTAMP:20260101T000000Z
UID:1
SUMMARY:Quarter
  end
DTSTART:20260330T080000Z
DTEND:20260401T080000Z
END:VEVENT
BEGIN:VEVENT
UID:2
SUMMARY:Every weekend
DTSTART;TZID=Europe/Berlin:20260103T000000
DTEND;TZID=Europe/Berlin:20260105T000000
RRULE:FREQ=WEEKLY;BYDAY=SA
END:VEVENT
END:VCALENDAR
"""


def test_dead_letters_raise_an_alarm_until_they_are_moved(aws: AwsAccount) -> None:
    sqs = aws.client("sqs")
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]
    policy = json.dumps({"deadLetterTargetArn": arn["QueueArn"], "maxReceiveCount": 1})
    url = sqs.create_queue(QueueName="orders", Attributes={"RedrivePolicy": policy})["QueueUrl"]
    alarm(
        aws,
        Namespace="AWS/SQS",
        MetricName="ApproximateNumberOfMessagesVisible",
        Dimensions=[{"Name": "QueueName", "Value": "dead"}],
        Threshold=0.0,
    )
    eventually(lambda: state(aws) == "OK")
    sqs.send_message(QueueUrl=url, MessageBody="x")
    sqs.receive_message(QueueUrl=url, VisibilityTimeout=0)
    sqs.receive_message(QueueUrl=url)
    eventually(lambda: state(aws) == "ALARM")
    sqs.start_message_move_task(SourceArn=arn["QueueArn"])
    eventually(lambda: state(aws) == "OK")


def calendar(aws: AwsAccount, name: str, kind: str) -> None:
    aws.client("ssm").create_document(
        Name=name,
        DocumentType="ChangeCalendar",
        DocumentFormat="TEXT",
        Content=FREEZE.format(kind=kind),
    )


@pytest.mark.parametrize(
    ("at", "default_open", "following"),
    [
        ("2026-03-30T07:59:59Z", "OPEN", "2026-03-30T08:00:00Z"),
        ("2026-03-30T08:00:00Z", "CLOSED", "2026-04-01T08:00:00Z"),
        ("2026-04-01T08:00:00Z", "OPEN", "2026-04-03T22:00:00Z"),
        ("2026-04-04T12:00:00Z", "CLOSED", "2026-04-05T22:00:00Z"),
        ("2026-02-07T12:00:00Z", "CLOSED", "2026-02-08T23:00:00Z"),
    ],
)
def test_calendar_state_at_a_time(
    aws: AwsAccount, at: str, default_open: str, following: str
) -> None:
    ssm = aws.client("ssm")
    calendar(aws, "freeze", "DEFAULT_OPEN")
    calendar(aws, "window", "DEFAULT_CLOSED")
    found = ssm.get_calendar_state(CalendarNames=["freeze"], AtTime=at)
    assert (found["State"], found["AtTime"]) == (default_open, at)
    assert found["NextTransitionTime"] == following
    reverse = {"OPEN": "CLOSED", "CLOSED": "OPEN"}[default_open]
    assert ssm.get_calendar_state(CalendarNames=["window"], AtTime=at)["State"] == reverse
    arn = f"arn:aws:ssm:{REGION}:{aws.account}:document/freeze"
    both = ssm.get_calendar_state(CalendarNames=[arn, "window"], AtTime=at)
    assert both["State"] == "CLOSED"


def test_calendars_are_checked_and_can_be_changed(aws: AwsAccount) -> None:
    ssm = aws.client("ssm")
    with pytest.raises(ssm.exceptions.InvalidDocument):
        ssm.get_calendar_state(CalendarNames=["freeze"])
    with pytest.raises(ClientError, match="InvalidDocumentContent"):
        ssm.create_document(Name="x", DocumentType="ChangeCalendar", Content="{}")
    calendar(aws, "freeze", "DEFAULT_CLOSED")
    now = datetime.now(tz=UTC)
    content = "\n".join([
        "BEGIN:VCALENDAR", "X-CALENDAR-TYPE:DEFAULT_OPEN", "BEGIN:VEVENT",
        f"DTSTART:{now - timedelta(hours=1):%Y%m%dT%H%M%SZ}",
        f"DTEND:{now + timedelta(hours=1):%Y%m%dT%H%M%SZ}", "END:VEVENT", "END:VCALENDAR",
    ])  # fmt: skip
    ssm.update_document(Name="freeze", Content=content, DocumentVersion="$LATEST")
    assert ssm.get_calendar_state(CalendarNames=["freeze"])["State"] == "CLOSED"
    assert ssm.get_document(Name="freeze")["Content"] == content
    ssm.delete_document(Name="freeze")
    with pytest.raises(ssm.exceptions.InvalidDocument):
        ssm.get_calendar_state(CalendarNames=["freeze"])


@pytest.mark.parametrize(("document", "allowed"), [("freeze", True), ("another", False)])
def test_reading_a_calendar_needs_permission_on_that_document(
    aws: AwsAccount, document: str, *, allowed: bool
) -> None:
    calendar(aws, "freeze", "DEFAULT_OPEN")
    iam = aws.client("iam")
    iam.create_user(UserName="reader")
    statement = {
        "Effect": "Allow",
        "Action": "ssm:GetCalendarState",
        "Resource": f"arn:aws:ssm:{REGION}:{aws.account}:document/{document}",
    }
    iam.put_user_policy(
        UserName="reader",
        PolicyName="calendar",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    ssm = boto3.client(
        "ssm",
        endpoint_url=aws.endpoint_url,
        region_name=REGION,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    if allowed:
        assert ssm.get_calendar_state(CalendarNames=["freeze"])["State"] in ("OPEN", "CLOSED")
    else:
        with pytest.raises(ClientError, match="AccessDenied"):
            ssm.get_calendar_state(CalendarNames=["freeze"])
