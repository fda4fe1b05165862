import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError

from local.aws import AwsAccount, EmbeddedAws, StackError
from local.aws.server import ServerError

type Deploy = Callable[..., dict[str, str]]

_CODE = """
    import os
    import boto3

    def handler(event, context):
        boto3.client("sqs").send_message(QueueUrl=os.environ["QUEUE"], MessageBody="written")
        return "done"
"""
_RESOURCES = """
    Orders: {Type: AWS::SQS::Queue}
    Work:
      Type: AWS::Serverless::Function
      Properties:
        Environment: {Variables: {QUEUE: !Ref Orders}}
        Policies: [{SQSSendMessagePolicy: {QueueName: !GetAtt Orders.QueueName}}]
"""
_ONCE = Config(retries={"total_max_attempts": 1}, read_timeout=1)


def _invoke(aws: AwsAccount, function: str) -> Any:
    answer = aws.client("lambda").invoke(FunctionName=function)
    return json.loads(answer["Payload"].read())


def _depth(aws: AwsAccount, queue: str) -> int:
    attributes = aws.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])
    return int(attributes["Attributes"]["ApproximateNumberOfMessages"])


def test_calls_are_recorded_with_role_action_resource_and_result(
    aws: AwsAccount, stack: Deploy
) -> None:
    names = stack(_RESOURCES, _CODE)
    aws.calls.clear()
    assert _invoke(aws, names["Work"]) == "done"
    with pytest.raises(ClientError):
        aws.client("sqs").get_queue_url(QueueName="nowhere")
    role = names["WorkRole"]
    sent = aws.calls.by_role()[role]
    arn = f"arn:aws:sqs:{aws.region}:{aws.account}:{names['Orders'].rpartition('/')[2]}"
    assert [(call.action, call.resource, call.status, call.error) for call in sent] == [
        ("sqs:SendMessage", arn, 200, "")
    ]
    assert sent[0].principal.endswith(f"assumed-role/{role}/{names['Work']}")
    root = [call for call in aws.calls if not call.role]
    assert [call.action for call in root] == ["lambda:InvokeFunction", "sqs:GetQueueUrl"]
    assert root[1].error.endswith("NonExistentQueue") or root[1].error == "QueueDoesNotExist"


def test_a_denied_call_is_recorded_as_denied(aws: AwsAccount, stack: Deploy) -> None:
    denied = _RESOURCES.replace("Policies: [{SQSSendMessagePolicy: ", "Description: ").replace(
        "{QueueName: !GetAtt Orders.QueueName}}]", "no policy"
    )
    names = stack(denied, _CODE)
    assert "AccessDenied" in _invoke(aws, names["Work"])["errorMessage"]
    assert {call.error for call in aws.calls.by_role()[names["WorkRole"]]} == {
        "AccessDeniedException"
    }


@pytest.mark.parametrize(
    ("service", "operation", "client", "method", "arguments", "code"),
    [
        ("sqs", "ListQueues", "sqs", "list_queues", {}, "ThrottlingException"),
        ("lambda", "ListFunctions", "lambda", "list_functions", {}, "TooManyRequestsException"),
        ("cloudwatch", "ListMetrics", "cloudwatch", "list_metrics", {}, "ThrottlingException"),
        ("dynamodb", "ListTables", "dynamodb", "list_tables", {}, "ThrottlingException"),
        ("states", "ListStateMachines", "stepfunctions", "list_state_machines", {},
         "ThrottlingException"),
        ("s3", "ListAllMyBuckets", "s3", "list_buckets", {}, "SlowDown"),
        ("sns", "ListTopics", "sns", "list_topics", {}, "ThrottlingException"),
    ],
)  # fmt: skip
def test_a_throttle_is_what_the_services_client_understands(  # noqa: PLR0917 -- a table
    aws: AwsAccount, service: str, operation: str, client: str, method: str,
    arguments: dict[str, Any], code: str,
) -> None:  # fmt: skip
    fault = aws.faults.add(service, operation, "throttle", times=1)
    once = aws.session().client(client, config=_ONCE)  # type: ignore[call-overload]  # any service
    with pytest.raises(ClientError) as throttled:
        getattr(once, method)(**arguments)
    assert throttled.value.response["Error"]["Code"] == code
    assert fault.hits == 1
    getattr(once, method)(**arguments)


def test_an_error_a_timeout_and_a_lost_reply(aws: AwsAccount) -> None:
    sqs = aws.session().client("sqs", config=_ONCE)
    queue = sqs.create_queue(QueueName="orders")["QueueUrl"]
    aws.faults.add("sqs", "SendMessage", "error", code="InternalError", status=500)
    with pytest.raises(ClientError, match="InternalError"):
        sqs.send_message(QueueUrl=queue, MessageBody="x")
    aws.faults.add("sqs", "SendMessage", "timeout", seconds=2)
    with pytest.raises(ReadTimeoutError):
        sqs.send_message(QueueUrl=queue, MessageBody="x")
    assert _depth(aws, queue) == 0
    aws.faults.add("sqs", "SendMessage", "lost_reply")
    with pytest.raises(ClientError):
        sqs.send_message(QueueUrl=queue, MessageBody="x")
    assert _depth(aws, queue) == 1
    aws.faults.add("sqs", "SendMessage", "lost_reply", times=9)
    aws.faults.clear()
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    assert _depth(aws, queue) == 2


@pytest.mark.parametrize(("when", "written"), [("before", 0), ("after", 1)])
def test_a_worker_crashes_around_its_write(
    aws: AwsAccount, stack: Deploy, when: Any, written: int
) -> None:
    names = stack(_RESOURCES, _CODE)
    aws.faults.crash_lambda("Work", when, operation="SendMessage")
    assert _invoke(aws, names["Work"])["errorType"] == "Runtime.ExitError"
    assert _depth(aws, names["Orders"]) == written
    assert _invoke(aws, names["Work"]) == "done"
    assert _depth(aws, names["Orders"]) == written + 1


def test_a_transaction_is_recorded_as_the_actions_it_needs(aws: AwsAccount) -> None:
    dynamodb = aws.client("dynamodb")
    dynamodb.create_table(
        TableName="locks",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )
    aws.calls.clear()
    dynamodb.transact_write_items(
        TransactItems=[
            {"Put": {"TableName": "locks", "Item": {"pk": {"S": "a"}}}},
            {"Delete": {"TableName": "locks", "Key": {"pk": {"S": "b"}}}},
        ]
    )
    assert [(call.operation, call.action) for call in aws.calls] == [
        ("TransactWriteItems", "dynamodb:PutItem"),
        ("TransactWriteItems", "dynamodb:DeleteItem"),
    ]
    assert {call.resource.rpartition(":")[2] for call in aws.calls} == {"table/locks"}


def test_faults_and_calls_stay_in_their_account(embedded_aws: EmbeddedAws, aws: AwsAccount) -> None:
    other = embedded_aws.for_account("999999999999")
    aws.faults.add("sqs", "*", "error", code="Broken", times=99)
    assert other.client("sqs").create_queue(QueueName="orders")["QueueUrl"]
    assert len(aws.calls) == 0
    with pytest.raises(ClientError, match="Broken"):
        aws.client("sqs").list_queues()


def test_a_failed_stack_names_the_resource_and_why(aws: AwsAccount, stack: Deploy) -> None:
    with pytest.raises(StackError, match=r"Alarm \(AWS::CloudWatch::Alarm\): "):
        stack("Alarm: {Type: AWS::CloudWatch::Alarm, Properties: {Threshold: 1}}")
    names = stack("Orders: {Type: AWS::SQS::Queue}")  # a failed creation is no obstacle
    aws.delete_stack("stack")
    with pytest.raises(ClientError):
        aws.client("sqs").get_queue_attributes(QueueUrl=names["Orders"])


def test_a_missing_folder_is_told(aws: AwsAccount, tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text(
        "Transform: AWS::Serverless-2016-10-31\n"
        "Resources: {Work: {Type: 'AWS::Serverless::Function',"
        " Properties: {CodeUri: gone, Handler: app.handler, Runtime: python3.13}}}\n"
    )
    with pytest.raises(StackError, match="'gone'"):
        aws.deploy("stack", template)


def test_code_is_deployed_from_what_was_built_and_through_links(
    aws: AwsAccount, tmp_path: Path
) -> None:
    source, built, linked = tmp_path / "src", tmp_path / "build" / "Work", tmp_path / "linked"
    for folder, text in ((source, "source"), (built, "built"), (linked, "linked")):
        folder.mkdir(parents=True)
        (folder / "app.py").write_text(f"def handler(event, context):\n    return {text!r}\n")
    (source / "library").symlink_to(linked)
    body = (
        "Transform: AWS::Serverless-2016-10-31\n"
        "Resources: {Work: {Type: 'AWS::Serverless::Function',"
        " Properties: {CodeUri: %s, Handler: %s, Runtime: python3.13}}}\n"
        "Outputs: {Name: {Value: !Ref Work}}\n"
    )
    (tmp_path / "template.yaml").write_text(body % ("src", "app.handler"))
    (tmp_path / "build" / "template.yaml").write_text(body % ("Work", "app.handler"))
    plain = aws.deploy("stack", tmp_path / "template.yaml")["Name"]
    assert _invoke(aws, plain) == "source"
    aws.deploy("stack", tmp_path / "template.yaml", build_dir=tmp_path / "build")
    assert _invoke(aws, plain) == "built"
    (tmp_path / "template.yaml").write_text(body % ("src", "library.app.handler"))
    aws.deploy("stack", tmp_path / "template.yaml")
    assert _invoke(aws, plain) == "linked"


def test_two_do_not_run_in_one_process(embedded_aws: EmbeddedAws) -> None:
    with pytest.raises(ServerError, match="for_account"):
        EmbeddedAws().start()
    assert os.environ["AWS_ENDPOINT_URL"] == embedded_aws.endpoint_url


def test_it_stops_without_leaving_a_worker_or_a_variable(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text(
        "import os\ndef handler(event, context):\n    return os.getpid()\n"
    )
    (tmp_path / "template.yaml").write_text(
        "Transform: AWS::Serverless-2016-10-31\n"
        "Resources: {Work: {Type: 'AWS::Serverless::Function',"
        " Properties: {CodeUri: code, Handler: app.handler, Runtime: python3.13}}}\n"
        "Outputs: {Name: {Value: !Ref Work}}\n"
    )
    program.write_text(
        "import json, os, pathlib, sys\n"
        "from local.aws import EmbeddedAws\n"
        "os.environ['AWS_PROFILE'] = 'mine'\n"
        "pids = []\n"
        "for _ in range(2):\n"
        "    with EmbeddedAws() as aws:\n"
        f"        name = aws.deploy('s', {str(tmp_path / 'template.yaml')!r})['Name']\n"
        "        answer = aws.client('lambda').invoke(FunctionName=name)['Payload'].read()\n"
        "        pids.append(int(answer))\n"
        "        assert pathlib.Path(f'/proc/{pids[-1]}').exists()\n"
        "        assert 'AWS_PROFILE' not in os.environ\n"
        "assert not any(pathlib.Path(f'/proc/{pid}').exists() for pid in pids)\n"
        "assert os.environ['AWS_PROFILE'] == 'mine' and 'AWS_ENDPOINT_URL' not in os.environ\n"
        "print('clean')\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(  # noqa: S603 -- our own program
        [sys.executable, program], env={"PYTHONPATH": str(root)}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "clean\n", done.stderr
