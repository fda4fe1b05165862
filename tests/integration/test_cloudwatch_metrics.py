"""The metrics that services publish about themselves, and the queries over them."""

import contextlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session

from local.aws import AwsAccount, EmbeddedAws
from local.aws.cloudwatch import CloudWatch, Settings, put_metric_history

REGION = "us-east-1"


@pytest.fixture(scope="module", autouse=True)
def cloudwatch(embedded_aws: EmbeddedAws) -> Iterator[CloudWatch]:
    running = CloudWatch(Settings(resolution_seconds=1))
    running.install(embedded_aws)
    yield running
    running.uninstall()


def total(aws: Any, namespace: str, metric: str, stat: str = "Sum", **dimensions: str) -> float:
    """The statistic over the last minute, 0 where there is no datapoint."""
    return sum(values(aws, namespace, metric, stat, 60, **dimensions))


def values(
    aws: Any, namespace: str, metric: str, stat: str, period: int, **dimensions: str
) -> list[float]:
    now = datetime.now(tz=UTC)
    found = aws.client("cloudwatch").get_metric_data(
        StartTime=now - timedelta(minutes=5),
        EndTime=now + timedelta(minutes=1),
        MetricDataQueries=[query(namespace, metric, stat, period, **dimensions)],
    )
    return list(found["MetricDataResults"][0]["Values"])


def query(namespace: str, metric: str, stat: str, period: int, **dimensions: str) -> Any:
    listed = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    described = {"Namespace": namespace, "MetricName": metric, "Dimensions": listed}
    return {"Id": "m1", "MetricStat": {"Metric": described, "Period": period, "Stat": stat}}


def eventually(check: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


def latest(aws: Any, metric: str, queue: str) -> float:
    found = values(aws, "AWS/SQS", metric, "Maximum", 1, QueueName=queue)
    return found[0] if found else -1.0


def test_a_queue_publishes_its_gauges_and_counts(aws: AwsAccount) -> None:
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="orders")["QueueUrl"]
    for number in range(5):
        sqs.send_message(QueueUrl=url, MessageBody=str(number))
    sqs.send_message(QueueUrl=url, MessageBody="later", DelaySeconds=60)
    first = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=2)["Messages"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=first[0]["ReceiptHandle"])
    eventually(lambda: latest(aws, "ApproximateNumberOfMessagesVisible", "orders") == 3)
    assert latest(aws, "ApproximateNumberOfMessagesNotVisible", "orders") == 1
    assert latest(aws, "ApproximateNumberOfMessagesDelayed", "orders") == 1
    eventually(lambda: latest(aws, "ApproximateAgeOfOldestMessage", "orders") >= 1)
    assert total(aws, "AWS/SQS", "NumberOfMessagesSent", QueueName="orders") == 6
    assert total(aws, "AWS/SQS", "NumberOfMessagesReceived", QueueName="orders") == 2
    assert total(aws, "AWS/SQS", "NumberOfMessagesDeleted", QueueName="orders") == 1
    assert total(aws, "AWS/SQS", "NumberOfEmptyReceives", QueueName="orders") == 0


def test_an_empty_receive_counts_once(aws: AwsAccount) -> None:
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="idle")["QueueUrl"]
    sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)
    eventually(lambda: total(aws, "AWS/SQS", "NumberOfEmptyReceives", QueueName="idle") == 1)


def test_what_a_rule_delivers_counts_as_sent(aws: AwsAccount) -> None:
    sqs, events = aws.client("sqs"), aws.client("events")
    url = sqs.create_queue(QueueName="told")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    events.put_rule(Name="all", EventPattern=json.dumps({"source": ["shop"]}))
    events.put_targets(Rule="all", Targets=[{"Id": "q", "Arn": arn["QueueArn"]}])
    events.put_events(Entries=[{"Source": "shop", "DetailType": "Sold", "Detail": "{}"}] * 2)
    eventually(lambda: total(aws, "AWS/SQS", "NumberOfMessagesSent", QueueName="told") == 2)


def test_what_a_function_consumes_counts_as_received_and_deleted(aws: AwsAccount) -> None:
    function(aws, "consumer", "def handler(event, context):\n    print('ok')\n")
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="work")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    aws.client("lambda").create_event_source_mapping(
        FunctionName="consumer", EventSourceArn=arn["QueueArn"], BatchSize=1
    )
    for number in range(3):
        sqs.send_message(QueueUrl=url, MessageBody=str(number))
    eventually(lambda: total(aws, "AWS/SQS", "NumberOfMessagesDeleted", QueueName="work") == 3)
    assert total(aws, "AWS/SQS", "NumberOfMessagesReceived", QueueName="work") == 3
    assert total(aws, "AWS/Lambda", "Invocations", FunctionName="consumer") == 3


def test_a_duplicate_to_a_fifo_queue_is_not_counted_as_sent(aws: AwsAccount) -> None:
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="bills.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    for _ in range(3):
        sqs.send_message(
            QueueUrl=url, MessageBody="x", MessageGroupId="g", MessageDeduplicationId="same"
        )
    eventually(lambda: latest(aws, "ApproximateNumberOfMessagesVisible", "bills.fifo") == 1)
    assert total(aws, "AWS/SQS", "NumberOfMessagesSent", QueueName="bills.fifo") == 1


def test_poison_messages_do_not_age_the_queue_and_redrive_is_not_a_send(aws: AwsAccount) -> None:
    sqs = aws.client("sqs")
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]
    policy = {"deadLetterTargetArn": arn["QueueArn"], "maxReceiveCount": "4"}
    url = sqs.create_queue(
        QueueName="poison",
        Attributes={"RedrivePolicy": json.dumps(policy), "VisibilityTimeout": "0"},
    )["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="bad")
    eventually(lambda: latest(aws, "ApproximateAgeOfOldestMessage", "poison") >= 2)
    for _ in range(3):
        sqs.receive_message(QueueUrl=url)
    eventually(lambda: latest(aws, "ApproximateAgeOfOldestMessage", "poison") == 0)
    assert latest(aws, "ApproximateNumberOfMessagesVisible", "poison") == 1
    for _ in range(2):
        sqs.receive_message(QueueUrl=url)
    eventually(lambda: latest(aws, "ApproximateNumberOfMessagesVisible", "dead") == 1)
    # The dead-letter queue's age starts at the move, not at the send three seconds ago.
    assert latest(aws, "ApproximateAgeOfOldestMessage", "dead") <= 1
    assert total(aws, "AWS/SQS", "NumberOfMessagesSent", QueueName="dead") == 0


def queue_with_dead_letters(aws: AwsAccount, bodies: int) -> tuple[str, str, str]:
    """Make messages dead letters; return both queues' URLs and the dead-letter queue's ARN."""
    sqs = aws.client("sqs")
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]
    policy = json.dumps({"deadLetterTargetArn": arn["QueueArn"], "maxReceiveCount": 1})
    url = sqs.create_queue(QueueName="orders", Attributes={"RedrivePolicy": policy})["QueueUrl"]
    entries = [{"Id": str(n), "MessageBody": str(n)} for n in range(bodies)]
    sqs.send_message_batch(QueueUrl=url, Entries=entries)  # type: ignore[arg-type]  # plain entries
    sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
    sqs.receive_message(QueueUrl=url)
    return url, dead, arn["QueueArn"]


def test_a_dead_letter_queue_counts_what_is_done_with_its_letters(aws: AwsAccount) -> None:
    sqs = aws.client("sqs")
    url, dead, _ = queue_with_dead_letters(aws, 4)
    eventually(lambda: latest(aws, "ApproximateNumberOfMessagesVisible", "dead") == 4)
    letters = sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=3)["Messages"]
    sqs.send_message_batch(
        QueueUrl=url, Entries=[{"Id": m["MessageId"], "MessageBody": m["Body"]} for m in letters]
    )
    sqs.delete_message_batch(
        QueueUrl=dead,
        Entries=[{"Id": m["MessageId"], "ReceiptHandle": m["ReceiptHandle"]} for m in letters],
    )
    eventually(lambda: latest(aws, "ApproximateNumberOfMessagesVisible", "dead") == 1)

    def counted(name: str, queue: str) -> float:
        return total(aws, "AWS/SQS", f"NumberOfMessages{name}", QueueName=queue)

    assert [counted(name, "dead") for name in ("Sent", "Received", "Deleted")] == [0, 3, 3]
    assert [counted(name, "orders") for name in ("Sent", "Deleted")] == [4 + 3, 0]
    sqs.send_message(QueueUrl=dead, MessageBody="by hand")
    eventually(lambda: counted("Sent", "dead") == 1)


def test_a_move_counts_as_what_it_does(aws: AwsAccount) -> None:
    _, _, arn = queue_with_dead_letters(aws, 4)
    aws.client("sqs").start_message_move_task(SourceArn=arn)
    eventually(lambda: latest(aws, "ApproximateNumberOfMessagesVisible", "orders") == 4)
    assert latest(aws, "ApproximateNumberOfMessagesVisible", "dead") == 0
    assert total(aws, "AWS/SQS", "NumberOfMessagesSent", QueueName="orders") == 8
    assert total(aws, "AWS/SQS", "NumberOfMessagesReceived", QueueName="dead") == 4
    assert total(aws, "AWS/SQS", "NumberOfMessagesDeleted", QueueName="dead") == 4


def test_what_another_service_gives_up_counts_as_sent(aws: AwsAccount) -> None:
    sqs, events = aws.client("sqs"), aws.client("events")
    url = sqs.create_queue(QueueName="undelivered")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    gone = f"arn:aws:sqs:{REGION}:{aws.account}:gone"
    events.put_rule(Name="all", EventPattern=json.dumps({"source": ["shop"]}))
    target: Any = {"Id": "q", "Arn": gone, "DeadLetterConfig": {"Arn": arn["QueueArn"]}}
    events.put_targets(Rule="all", Targets=[target])
    events.put_events(Entries=[{"Source": "shop", "DetailType": "Sold", "Detail": "{}"}] * 2)
    eventually(lambda: total(aws, "AWS/SQS", "NumberOfMessagesSent", QueueName="undelivered") == 2)


def test_accounts_and_regions_do_not_meet(aws: AwsAccount) -> None:
    aws.client("sqs").create_queue(QueueName="same-name")
    other = aws.for_account("210987654321", "us-west-2")
    url = other.client("sqs").create_queue(QueueName="same-name")["QueueUrl"]
    other.client("sqs").send_message(QueueUrl=url, MessageBody="x")
    eventually(lambda: latest(other, "ApproximateNumberOfMessagesVisible", "same-name") == 1)
    eventually(lambda: latest(aws, "ApproximateNumberOfMessagesVisible", "same-name") == 0)


def test_a_queue_left_alone_keeps_its_seeded_history(
    aws: AwsAccount, cloudwatch: CloudWatch
) -> None:
    arn = f"arn:aws:sqs:{REGION}:{aws.account}:seeded"
    cloudwatch.leave_alone(arn)
    aws.client("sqs").create_queue(QueueName="seeded")
    now = int(time.time()) // 60 * 60
    put_metric_history(
        aws.account, REGION, "AWS/SQS", "ApproximateAgeOfOldestMessage",
        {"QueueName": "seeded"}, [(now - 120, 900.0), (now - 60, 960.0)], unit="Seconds",
    )  # fmt: skip
    time.sleep(1.5)
    found = values(
        aws, "AWS/SQS", "ApproximateAgeOfOldestMessage", "Maximum", 60, QueueName="seeded"
    )
    assert found == [960.0, 900.0]
    cloudwatch.resume(arn)
    eventually(lambda: latest(aws, "ApproximateNumberOfMessagesVisible", "seeded") == 0)


# Lambda


def function(aws: Any, name: str, source: str) -> Any:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("index.py", source)
    role = "arn:aws:iam::" + aws.account + ":role/runner"
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "lambda.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    iam = aws.client("iam")
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_role(RoleName="runner", AssumeRolePolicyDocument=json.dumps(trust))
    once = Config(retries={"total_max_attempts": 1})
    client = aws.client("lambda", config=once)
    client.create_function(
        FunctionName=name,
        Role=role,
        Runtime="python3.13",
        Handler="index.handler",
        Code={"ZipFile": written.getvalue()},
    )
    client.get_waiter("function_active_v2").wait(FunctionName=name)
    return client


def test_invocations_errors_and_throttles_are_told_apart(aws: AwsAccount) -> None:
    client = function(
        aws,
        "flaky",
        "def handler(event, context):\n"
        "    print('ran')\n"
        "    if event.get('fail'):\n        raise ValueError('no')\n",
    )
    client.invoke(FunctionName="flaky", Payload=b"{}")
    client.invoke(FunctionName="flaky", Payload=b"{}")
    client.invoke(FunctionName="flaky", Payload=b'{"fail": true}')
    client.put_function_concurrency(FunctionName="flaky", ReservedConcurrentExecutions=0)
    with pytest.raises(client.exceptions.TooManyRequestsException):
        client.invoke(FunctionName="flaky", Payload=b"{}")
    name = {"FunctionName": "flaky"}
    assert total(aws, "AWS/Lambda", "Invocations", **name) == 3
    assert total(aws, "AWS/Lambda", "Errors", **name) == 1
    # botocore retries a throttled call: as many throttles as requests.
    assert total(aws, "AWS/Lambda", "Throttles", **name) == 1
    assert total(aws, "AWS/Lambda", "Duration", "SampleCount", **name) == 3
    assert max(values(aws, "AWS/Lambda", "Duration", "p99", 60, **name)) > 1
    eventually(lambda: total(aws, "AWS/Lambda", "ConcurrentExecutions", "Maximum", **name) == 1)
    assert total(aws, "AWS/Lambda", "UnreservedConcurrentExecutions", "Maximum") >= 1


_SLEEPER = "import time\ndef handler(event, context):\n    time.sleep(event.get('sleep', 0))\n"


def test_the_account_has_metrics_of_its_own_without_dimensions(aws: AwsAccount) -> None:
    client = function(aws, "first", _SLEEPER)
    function(aws, "second", "def handler(event, context):\n    raise ValueError('no')\n")
    for name in ("first", "first", "second"):
        client.invoke(FunctionName=name, Payload=b"{}")
    client.put_function_concurrency(FunctionName="second", ReservedConcurrentExecutions=0)
    with pytest.raises(client.exceptions.TooManyRequestsException):
        client.invoke(FunctionName="second", Payload=b"{}")
    for metric_name, number in (("Invocations", 3), ("Errors", 1), ("Throttles", 1)):
        assert total(aws, "AWS/Lambda", metric_name) == number

    client.put_function_concurrency(FunctionName="first", ReservedConcurrentExecutions=2)
    client.delete_function_concurrency(FunctionName="second")
    version = client.publish_version(FunctionName="first")["Version"]
    sleeps = b'{"sleep": 1.5}'
    for qualifier in ("$LATEST", version):
        client.invoke(
            FunctionName="first", Qualifier=qualifier, InvocationType="Event", Payload=sleeps
        )
    eventually(lambda: total(aws, "AWS/Lambda", "ConcurrentExecutions", "Maximum") == 2)
    # What is reserved does not count as unreserved, whichever version runs.
    assert total(aws, "AWS/Lambda", "UnreservedConcurrentExecutions", "Maximum") == 1


def test_the_duration_has_percentiles(aws: AwsAccount) -> None:
    client = function(aws, "timed", _SLEEPER)
    for seconds in (0, 0, 0, 0, 0.4):
        payload = json.dumps({"sleep": seconds})
        client.invoke(FunctionName="timed", Payload=payload.encode())
    (median,) = values(aws, "AWS/Lambda", "Duration", "p50", 3600, FunctionName="timed")
    (slowest,) = values(aws, "AWS/Lambda", "Duration", "p99", 3600, FunctionName="timed")
    assert median < 300 < slowest


def test_throttles_are_published_however_a_function_is_invoked(aws: AwsAccount) -> None:
    for name in ("called", "told", "polling"):
        client = function(aws, name, _SLEEPER)
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)

    def throttles(name: str) -> float:
        return total(aws, "AWS/Lambda", "Throttles", FunctionName=name)

    with pytest.raises(client.exceptions.TooManyRequestsException):
        client.invoke(FunctionName="called", Payload=b"{}")
    assert throttles("called") == 1
    client.invoke(FunctionName="told", InvocationType="Event", Payload=b"{}")
    eventually(lambda: throttles("told") >= 1)

    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="polled", Attributes={"VisibilityTimeout": "3"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    client.create_event_source_mapping(
        FunctionName="polling", EventSourceArn=arn["QueueArn"], BatchSize=1
    )
    sqs.send_message(QueueUrl=url, MessageBody="x")
    eventually(lambda: throttles("polling") == 1)
    begun = time.monotonic()
    eventually(lambda: throttles("polling") == 2, 10)
    # A throttled message is tried again after its visibility timeout.
    assert 2 < time.monotonic() - begun < 6
    assert total(aws, "AWS/Lambda", "Invocations") == 0
    assert throttles("told") < 10


def test_embedded_metric_format_becomes_metrics(aws: AwsAccount) -> None:
    line = {
        "_aws": {
            "Timestamp": int(time.time() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": "shop",
                    "Dimensions": [["service"], []],
                    "Metrics": [{"Name": "Orders", "Unit": "Count"}, {"Name": "Latency"}],
                }
            ],
        },
        "service": "checkout",
        "Orders": 3,
        "Latency": [1.5, 2.5],
    }
    client = function(
        aws, "emf", f"def handler(event, context):\n    print('''{json.dumps(line)}''')\n"
    )
    client.invoke(FunctionName="emf", Payload=b"{}")
    assert total(aws, "shop", "Orders", service="checkout") == 3
    assert total(aws, "shop", "Orders") == 3
    assert total(aws, "shop", "Latency", "Average", service="checkout") == 2


def test_executions_are_counted_by_outcome(aws: AwsAccount) -> None:
    states = aws.client("stepfunctions")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "states.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    role = aws.client("iam").create_role(
        RoleName="states", AssumeRolePolicyDocument=json.dumps(trust)
    )["Role"]["Arn"]
    arns = {}
    for name, state in {
        "good": {"Type": "Succeed"},
        "bad": {"Type": "Fail", "Error": "No", "Cause": "planted"},
        "slow": {"Type": "Wait", "Seconds": 60, "End": True},
    }.items():
        arns[name] = states.create_state_machine(
            name=name,
            roleArn=role,
            definition=json.dumps({"StartAt": "S", "States": {"S": state}}),
        )["stateMachineArn"]
        run = states.start_execution(stateMachineArn=arns[name])["executionArn"]
    states.stop_execution(executionArn=run)
    outcomes = {
        "good": "ExecutionsSucceeded",
        "bad": "ExecutionsFailed",
        "slow": "ExecutionsAborted",
    }
    for name, metric in outcomes.items():
        eventually(
            lambda metric=metric, arn=arns[name]: (  # type: ignore[misc]  # bound defaults
                total(aws, "AWS/States", metric, StateMachineArn=arn) == 1
            )
        )
        assert total(aws, "AWS/States", "ExecutionsStarted", StateMachineArn=arns[name]) == 1
    assert total(aws, "AWS/States", "ExecutionsFailed", StateMachineArn=arns["good"]) == 0


# Queries


@pytest.fixture
def history(aws: AwsAccount) -> tuple[AwsAccount, datetime]:
    now = datetime.now(tz=UTC).replace(second=0, microsecond=0)
    base = now - timedelta(hours=1)
    put_metric_history(
        aws.account, REGION, "shop", "Sent", {"Q": "a"},
        [(base, 10.0), (base + timedelta(minutes=1), 20.0), (base + timedelta(minutes=3), 40.0)],
    )  # fmt: skip
    put_metric_history(
        aws.account, REGION, "shop", "Failed", {"Q": "a"},
        [(base, 1.0), (base + timedelta(minutes=1), 5.0)],
    )  # fmt: skip
    put_metric_history(aws.account, REGION, "shop", "Sent", {"Q": "b"}, [(base, 999.0)])
    return aws, base


def ask(aws: Any, base: datetime, *queries: Any, **options: Any) -> list[Any]:
    found = aws.client("cloudwatch").get_metric_data(
        StartTime=base,
        EndTime=base + timedelta(minutes=4),
        MetricDataQueries=list(queries),
        **options,
    )
    return list(found["MetricDataResults"])


def metric(name: str, query_id: str, *, shown: bool = True) -> Any:
    made = query("shop", name, "Maximum", 60, Q="a")
    return made | {"Id": query_id, "ReturnData": shown}


def test_a_query_leaves_out_periods_without_data(history: tuple[AwsAccount, datetime]) -> None:
    aws, base = history
    (newest_first,) = ask(aws, base, metric("Sent", "m1"))
    assert newest_first["Values"] == [40.0, 20.0, 10.0]
    (oldest_first,) = ask(aws, base, metric("Sent", "m1"), ScanBy="TimestampAscending")
    assert oldest_first["Values"] == [10.0, 20.0, 40.0]
    minutes = [0, 1, 3]
    assert oldest_first["Timestamps"] == [base + timedelta(minutes=m) for m in minutes]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("m1 - m2", [9.0, 15.0]),
        ("100 * m2 / m1", [10.0, 25.0]),
        ("-m2 + 2 * (m1 - 1)", [17.0, 33.0]),
        ("FILL(m2, 0)", [1.0, 5.0, 0.0, 0.0]),
        ("FILL(m2, REPEAT)", [1.0, 5.0, 5.0, 5.0]),
        ("SUM([m1, m2])", [11.0, 25.0, 40.0]),
        ("SUM(METRICS())", [11.0, 25.0, 40.0]),
        ("MAX([m1, m2, 15])", [15.0, 20.0, 15.0, 40.0]),
        ("MIN(METRICS())", [1.0, 5.0, 40.0]),
        ("IF(m1 > 15, m1, 0)", [0.0, 20.0, 40.0]),
        ("IF(m1 > 15 AND m2 > 2, 1, 0)", [0.0, 1.0]),
        ("RATE(m1) * 60", [10.0, 10.0]),
        ("m1 / (m1 - 10)", [2.0, 4.0 / 3.0]),
    ],
)
def test_metric_math(
    history: tuple[AwsAccount, datetime], expression: str, expected: list[float]
) -> None:
    aws, base = history
    found = ask(
        aws,
        base,
        metric("Sent", "m1", shown=False),
        metric("Failed", "m2", shown=False),
        {"Id": "e1", "Expression": expression},
        ScanBy="TimestampAscending",
    )
    assert [each["Id"] for each in found] == ["e1"]
    assert found[0]["Values"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "expression", ["SEARCH('{AWS/SQS} age', 'Sum')", "m1 +", "m9", "e1 + 1", "__import__('os')"]
)
def test_an_expression_that_is_not_understood_is_refused(
    history: tuple[AwsAccount, datetime], expression: str
) -> None:
    aws, base = history
    with pytest.raises(ClientError, match=r"ValidationError.*e1"):
        ask(aws, base, metric("Sent", "m1"), {"Id": "e1", "Expression": expression})


@pytest.fixture
def throttled(aws: AwsAccount) -> tuple[AwsAccount, datetime]:
    now = datetime.now(tz=UTC).replace(second=0, microsecond=0)
    base = now - timedelta(hours=1)
    for name, numbers in {"a": [1.0, 2.0], "b": [9.0, 0.0], "c": [4.0]}.items():
        put_metric_history(
            aws.account, REGION, "AWS/Lambda", "Throttles", {"FunctionName": name},
            [(base + timedelta(minutes=i), number) for i, number in enumerate(numbers)],
        )  # fmt: skip
    alias = {"FunctionName": "a", "Resource": "a:live"}
    for dimensions, number in ((alias, 100.0), ({}, 15.0)):
        put_metric_history(
            aws.account, REGION, "AWS/Lambda", "Throttles", dimensions, [(base, number)]
        )
    return aws, base


def select(aws: AwsAccount, base: datetime, expression: str, **more: Any) -> list[Any]:
    query = {"Id": "q1", "Expression": expression, "Period": 60, **more}
    found = ask(aws, base, query, ScanBy="TimestampAscending")
    assert {each["Id"] for each in found} <= {"q1"}
    return [(each["Label"], each["Values"]) for each in found]


_BY_NAME = 'SELECT SUM(Throttles) FROM SCHEMA("AWS/Lambda", FunctionName)'


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (f"{_BY_NAME} GROUP BY FunctionName", [("a", [1, 2]), ("b", [9, 0]), ("c", [4])]),
        (
            f"{_BY_NAME} GROUP BY FunctionName ORDER BY MAX() DESC LIMIT 2",
            [("b", [9, 0]), ("c", [4])],
        ),
        (f"{_BY_NAME} GROUP BY FunctionName ORDER BY SUM() LIMIT 1", [("a", [1, 2])]),
        (f"{_BY_NAME} WHERE FunctionName = 'b' GROUP BY FunctionName", [("b", [9, 0])]),
        (
            f"{_BY_NAME} WHERE FunctionName != 'b' AND FunctionName != 'c' GROUP BY FunctionName",
            [("a", [1, 2])],
        ),
        (f"{_BY_NAME} WHERE FunctionName = 'd' GROUP BY FunctionName", []),
        (_BY_NAME, [("q1", [14, 2])]),
        (_BY_NAME.replace("SUM", "AVG"), [("q1", [14 / 3, 1])]),
        (_BY_NAME.replace("SUM", "MIN"), [("q1", [1, 0])]),
        (_BY_NAME.replace("SUM", "COUNT"), [("q1", [3, 2])]),
        ('SELECT MAX(Throttles) FROM SCHEMA("AWS/Lambda")', [("q1", [15])]),
        ('select max("Throttles")\nfrom "AWS/Lambda"', [("q1", [100, 2])]),
        (
            'SELECT MAX(Throttles) FROM "AWS/Lambda" GROUP BY Resource',
            [("Other", [15, 2]), ("a:live", [100])],
        ),
        ('SELECT MAX(Throttles) FROM SCHEMA("AWS/Lambda", Resource)', [("q1", [])]),
    ],
)
def test_metrics_insights(
    throttled: tuple[AwsAccount, datetime], expression: str, expected: list[Any]
) -> None:
    aws, base = throttled
    found = select(aws, base, expression)
    assert found == [(label, pytest.approx(numbers)) for label, numbers in expected]


@pytest.mark.parametrize(
    "expression",
    [
        'SELECT Throttles FROM SCHEMA("AWS/Lambda")',
        'SELECT p99(Duration) FROM "AWS/Lambda"',
        "SELECT SUM(Throttles) FROM AWS/Lambda",
        f"{_BY_NAME} WHERE FunctionName LIKE 'a'",
        f"{_BY_NAME} WHERE FunctionName = a",
        f"{_BY_NAME} ORDER BY Throttles",
        f"{_BY_NAME} LIMIT 501",
        f"{_BY_NAME} GROUP BY FunctionName; DROP",
    ],
)
def test_a_query_of_metrics_insights_that_is_not_understood_is_refused(
    throttled: tuple[AwsAccount, datetime], expression: str
) -> None:
    aws, base = throttled
    with pytest.raises(ClientError, match=r"ValidationError.*q1"):
        select(aws, base, expression)


def test_metrics_insights_needs_a_period_and_stands_alone(
    throttled: tuple[AwsAccount, datetime],
) -> None:
    aws, base = throttled
    query: Any = {"Id": "q1", "Expression": f"{_BY_NAME} GROUP BY FunctionName"}
    with pytest.raises(ClientError, match="needs a Period"):
        ask(aws, base, query)
    query["Period"] = 300
    with pytest.raises(ClientError, match="Only one Metrics Insights query"):
        ask(aws, base, query, {**query, "Id": "q2"})
    (summed,) = ask(
        aws, base, {**query, "ReturnData": False}, {"Id": "e1", "Expression": "SUM(q1)"}
    )
    assert sum(summed["Values"]) == 16


def test_pages_hold_max_datapoints(history: tuple[AwsAccount, datetime]) -> None:
    aws, base = history
    request: dict[str, Any] = {
        "StartTime": base,
        "EndTime": base + timedelta(minutes=4),
        "MetricDataQueries": [metric("Sent", "m1"), metric("Failed", "m2")],
        "MaxDatapoints": 2,
    }
    sizes, seen = [], []
    while True:
        page = aws.client("cloudwatch").get_metric_data(**request)
        found = [value for each in page["MetricDataResults"] for value in each["Values"]]
        sizes.append(len(found))
        seen += found
        if "NextToken" not in page:
            break
        request["NextToken"] = page["NextToken"]
    assert sizes == [2, 2, 1]
    assert sorted(seen) == [1.0, 5.0, 10.0, 20.0, 40.0]


def test_statistics_match_dimensions_exactly(history: tuple[AwsAccount, datetime]) -> None:
    aws, base = history
    client = aws.client("cloudwatch")
    found = client.get_metric_statistics(
        Namespace="shop",
        MetricName="Sent",
        Dimensions=[{"Name": "Q", "Value": "a"}],
        StartTime=base,
        EndTime=base + timedelta(minutes=4),
        Period=300,
        Statistics=["Sum", "SampleCount"],
        ExtendedStatistics=["p50"],
    )["Datapoints"]
    assert sum(point["Sum"] for point in found) == 70
    assert sum(point["SampleCount"] for point in found) == 3
    none = client.get_metric_statistics(
        Namespace="shop",
        MetricName="Sent",
        StartTime=base,
        EndTime=base + timedelta(minutes=4),
        Period=60,
        Statistics=["Sum"],
    )["Datapoints"]
    assert none == []


def post(aws: AwsAccount, form: dict[str, str]) -> str:
    """Call CloudWatch in the Query protocol, as AWS CLI version 1 and older SDKs do."""
    request = AWSRequest("POST", aws.endpoint_url + "/", data=form)
    credentials = Credentials(aws.account, "test")
    SigV4Auth(credentials, "monitoring", REGION).add_auth(request)
    reply = URLLib3Session().send(request.prepare())
    assert reply.status_code == 200, reply.text
    return str(reply.text)


def test_the_query_protocol_answers_the_same(history: tuple[AwsAccount, datetime]) -> None:
    aws, base = history
    stat = "MetricDataQueries.member.1.MetricStat"
    answer = post(
        aws,
        {
            "Action": "GetMetricData",
            "StartTime": base.isoformat(),
            "EndTime": (base + timedelta(minutes=4)).isoformat(),
            "MetricDataQueries.member.1.Id": "m1",
            f"{stat}.Metric.Namespace": "shop",
            f"{stat}.Metric.MetricName": "Sent",
            f"{stat}.Metric.Dimensions.member.1.Name": "Q",
            f"{stat}.Metric.Dimensions.member.1.Value": "a",
            f"{stat}.Period": "60",
            f"{stat}.Stat": "Sum",
        },
    )
    expected = "".join(f"<member>{value}</member>" for value in (40.0, 20.0, 10.0))
    assert f"<Values>{expected}</Values>" in answer
    post(
        aws,
        {
            "Action": "PutMetricAlarm",
            "AlarmName": "deep",
            "Namespace": "shop",
            "MetricName": "Sent",
            "Dimensions.member.1.Name": "Q",
            "Dimensions.member.1.Value": "a",
            "Statistic": "Sum",
            "Period": "300",
            "EvaluationPeriods": "2",
            "Threshold": "5",
            "ComparisonOperator": "GreaterThanThreshold",
        },
    )
    described = post(aws, {"Action": "DescribeAlarms", "AlarmNames.member.1": "deep"})
    assert "<Period>300</Period>" in described
    assert "<Dimensions><member><Name>Q</Name><Value>a</Value></member></Dimensions>" in described
