import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local.aws import AwsAccount, EmbeddedAws
from local.aws.bridges import (
    account_concurrency,
    function_url,
    lambda_async,
    lambda_errors,
    lambda_reads,
    provisioned_concurrency,
)

type Deploy = Callable[..., dict[str, str]]
type Eventually = Callable[..., Any]

_CODE = """
    import os, sys, time
    import boto3

    CALLS = []

    class QueueIsGoneError(Exception):
        pass

    def handler(event, context):
        CALLS.append(event)
        match event:
            case {"raise": text}:
                raise QueueIsGoneError(text)
            case {"exit": code}:
                sys.exit(code)
            case {"sleep": seconds}:
                time.sleep(seconds)
            case {"return": "set"}:
                return {1}
            case {"return": value}:
                return value
            case {"requestContext": _}:
                return {"statusCode": 200, "body": event["body"] + event["rawPath"]}
            case {"print": text}:
                print(text)
        return {"calls": len(CALLS), "host": os.environ.get("SECRET_OF_THE_HOST")}
"""
_FUNCTION = """
    Work:
      Type: AWS::Serverless::Function
      Properties: {}
"""
_ALIAS = """
    Work:
      Type: AWS::Serverless::Function
      Properties: {AutoPublishAlias: live}
"""
_MACHINE = """
    Machine:
      Type: AWS::Serverless::StateMachine
      Properties:
        Policies: [{LambdaInvokePolicy: {FunctionName: !Ref Work}}]
        Definition:
          QueryLanguage: JSONata
          StartAt: Work
          States:
            Work:
              Type: Task
              Resource: arn:aws:states:::lambda:invoke
              Arguments: {FunctionName: !GetAtt Work.Arn, Payload: "{% $states.input %}"}
              Output: "{% $states.result.Payload %}"
              TimeoutSeconds: 20
              Catch:
                - ErrorEquals: [QueueIsGoneError]
                  Output: caught by name
                  Next: Done
              Next: Done
            Done: {Type: Pass, End: true}
"""


def _invoke(aws: AwsAccount, function: str, event: Any) -> tuple[str | None, Any]:
    answer = aws.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event))
    return answer.get("FunctionError"), json.loads(answer["Payload"].read())


def _run(aws: AwsAccount, machine: str, event: Any, eventually: Eventually) -> Any:
    sfn = aws.client("stepfunctions")
    arn = sfn.start_execution(stateMachineArn=machine, input=json.dumps(event))["executionArn"]

    def ended() -> Any:
        execution = sfn.describe_execution(executionArn=arn)
        return execution if execution["status"] != "RUNNING" else None

    return eventually(ended)


def test_an_exception_keeps_its_class_message_and_trace(aws: AwsAccount, stack: Deploy) -> None:
    function = stack(_FUNCTION, _CODE)["Work"]
    kind, error = _invoke(aws, function, {"raise": "orders"})
    assert kind == "Unhandled"
    assert (error["errorType"], error["errorMessage"]) == ("QueueIsGoneError", "orders")
    assert 'File "/var/task/app.py"' in error["stackTrace"][0]
    assert "raise QueueIsGoneError(text)" in error["stackTrace"][0]
    assert _invoke(aws, function, {})[1]["calls"] == 2  # the environment stayed warm


def test_other_failures_have_the_names_that_aws_gives_them(aws: AwsAccount, stack: Deploy) -> None:
    names = stack(
        """
        Work: {Type: AWS::Serverless::Function, Properties: {Timeout: 1}}
        NoModule: {Type: AWS::Serverless::Function, Properties: {Handler: gone.handler}}
        NoHandler: {Type: AWS::Serverless::Function, Properties: {Handler: app.gone}}
        """,
        _CODE,
    )
    cases: list[tuple[str, Any, str, str]] = [
        ("Work", {"exit": 3}, "Runtime.ExitError", "Runtime exited"),
        ("Work", {"sleep": 5}, "Sandbox.Timedout", "Task timed out after 1.00 seconds"),
        ("Work", {"return": "set"}, "Runtime.MarshalError", "Unable to marshal response"),
        ("NoModule", {}, "Runtime.ImportModuleError", "Unable to import module 'gone'"),
        ("NoHandler", {}, "Runtime.HandlerNotFound", "Handler 'gone' missing on module 'app'"),
    ]
    for name, event, kind, message in cases:
        failed, error = _invoke(aws, names[name], event)
        assert (failed, error["errorType"]) == ("Unhandled", kind)
        assert message in error["errorMessage"]


def test_a_function_sees_nothing_of_the_host(
    aws: AwsAccount, stack: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "dummy")
    assert _invoke(aws, stack(_FUNCTION, _CODE)["Work"], {})[1]["host"] is None


def test_a_silent_function_answers_at_once_and_a_loud_one_is_logged(
    aws: AwsAccount, stack: Deploy, eventually: Eventually
) -> None:
    function = stack(_FUNCTION, _CODE)["Work"]
    _invoke(aws, function, {})
    begun = time.monotonic()
    for _ in range(5):
        _invoke(aws, function, {})
    assert time.monotonic() - begun < 5 * 0.045
    _invoke(aws, function, {"print": "a line of log"})
    logs = aws.client("logs")

    def logged() -> bool:
        events = logs.filter_log_events(logGroupName=f"/aws/lambda/{function}")["events"]
        return any("a line of log" in event["message"] for event in events)

    assert eventually(logged)


def test_state_machines_catch_exceptions_by_class(
    aws: AwsAccount, stack: Deploy, eventually: Eventually
) -> None:
    machine = stack(_FUNCTION + _MACHINE, _CODE)["Machine"]
    assert _run(aws, machine, {"raise": "x"}, eventually)["output"] == '"caught by name"'
    assert _run(aws, machine, {"return": "123"}, eventually)["output"] == '"123"'


def test_a_throttled_function_has_its_own_error_in_state_machines(
    aws: AwsAccount, stack: Deploy, eventually: Eventually
) -> None:
    names = stack(_FUNCTION + _MACHINE, _CODE)
    client = aws.client("lambda")
    client.put_function_concurrency(FunctionName=names["Work"], ReservedConcurrentExecutions=0)
    ended = _run(aws, names["Machine"], {}, eventually)
    assert (ended["status"], ended["error"]) == ("FAILED", "Lambda.TooManyRequestsException")
    with pytest.raises(client.exceptions.TooManyRequestsException):
        _invoke(aws, names["Work"], {})


def test_reservations_come_out_of_the_accounts_limit(aws: AwsAccount, stack: Deploy) -> None:
    function = stack(_FUNCTION, _CODE)["Work"]
    client = aws.client("lambda")
    aws.set_account_concurrency(300)
    client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=200)
    limit = client.get_account_settings()["AccountLimit"]
    assert limit["ConcurrentExecutions"] == 300
    assert limit["UnreservedConcurrentExecutions"] == 100
    with pytest.raises(ClientError, match=r"below its minimum value of \[100\]"):
        client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=201)
    aws.set_account_concurrency(0)
    client.delete_function_concurrency(FunctionName=function)
    with pytest.raises(client.exceptions.TooManyRequestsException):
        _invoke(aws, function, {})


def _provision(aws: AwsAccount, function: str, qualifier: str, number: int) -> Any:
    answer = aws.client("lambda").put_provisioned_concurrency_config(
        FunctionName=function, Qualifier=qualifier, ProvisionedConcurrentExecutions=number
    )
    return _numbers(answer)


def _numbers(config: Any) -> tuple[str, int, int, int]:
    kinds = ("Requested", "Allocated", "Available")
    numbers = [config[f"{kind}ProvisionedConcurrentExecutions"] for kind in kinds]
    return config["Status"], numbers[0], numbers[1], numbers[2]


def _ended(aws: AwsAccount, function: str, qualifier: str = "live") -> Any:
    config = aws.client("lambda").get_provisioned_concurrency_config(
        FunctionName=function, Qualifier=qualifier
    )
    return config if config["Status"] != "IN_PROGRESS" else None


def test_provisioned_concurrency_is_ready_after_a_while(
    aws: AwsAccount, stack: Deploy, eventually: Eventually
) -> None:
    function = stack(_ALIAS, _CODE)["Work"]
    client = aws.client("lambda")
    missing = client.exceptions.ProvisionedConcurrencyConfigNotFoundException
    with pytest.raises(missing, match="No Provisioned Concurrency Config found"):
        _ended(aws, function)
    assert client.list_provisioned_concurrency_configs(FunctionName=function)[
        "ProvisionedConcurrencyConfigs"
    ] == []  # fmt: skip

    assert _provision(aws, function, "live", 2) == ("IN_PROGRESS", 2, 0, 0)
    assert not _ended(aws, function)
    assert _numbers(eventually(lambda: _ended(aws, function))) == ("READY", 2, 2, 2)
    assert _provision(aws, function, "live", 3) == ("IN_PROGRESS", 3, 2, 2)
    (listed,) = client.list_provisioned_concurrency_configs(FunctionName=function)[
        "ProvisionedConcurrencyConfigs"
    ]
    assert listed["FunctionArn"].endswith(f":function:{function}:live")
    assert _numbers(listed) == ("IN_PROGRESS", 3, 2, 2)
    eventually(lambda: _ended(aws, function))

    aws.set_provisioning_seconds(0.1)
    aws.fail_next_provisioning()
    _provision(aws, function, "live", 4)
    failed = eventually(lambda: _ended(aws, function))
    assert _numbers(failed) == ("FAILED", 4, 3, 3)
    assert failed["StatusReason"] == "FUNCTION_ERROR_INIT_FAILURE"
    _provision(aws, function, "live", 4)
    assert _numbers(eventually(lambda: _ended(aws, function))) == ("READY", 4, 4, 4)

    for _ in range(2):
        client.delete_provisioned_concurrency_config(FunctionName=function, Qualifier="live")
    with pytest.raises(missing):
        _ended(aws, function)


def test_provisioned_concurrency_is_listed_in_pages(aws: AwsAccount, stack: Deploy) -> None:
    function = stack(_ALIAS, _CODE)["Work"]
    client = aws.client("lambda")
    client.update_function_configuration(FunctionName=function, Timeout=11)
    second = client.publish_version(FunctionName=function)["Version"]
    _provision(aws, function, "live", 1)
    _provision(aws, function, second, 2)
    pages = client.get_paginator("list_provisioned_concurrency_configs").paginate(
        FunctionName=function, PaginationConfig={"PageSize": 1}
    )
    found = [page["ProvisionedConcurrencyConfigs"] for page in pages]
    arns = [config["FunctionArn"].rpartition(":")[2] for (config,) in found]
    assert arns == ["live", second]


def test_provisioned_concurrency_needs_a_published_version_without_weights(
    aws: AwsAccount, stack: Deploy, eventually: Eventually
) -> None:
    function = stack(_ALIAS, _CODE)["Work"]
    client = aws.client("lambda")
    refused = client.exceptions.InvalidParameterValueException
    with pytest.raises(refused, match="cannot be applied to unpublished"):
        _provision(aws, function, "$LATEST", 1)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        _provision(aws, function, "gone", 1)
    client.update_function_configuration(FunctionName=function, Timeout=11)
    second = client.publish_version(FunctionName=function)["Version"]
    weights: Any = {"AdditionalVersionWeights": {second: 0.1}}
    client.update_alias(FunctionName=function, Name="live", RoutingConfig=weights)
    with pytest.raises(refused, match="Alias with weights can not be used with Provisioned"):
        _provision(aws, function, "live", 1)
    client.update_alias(
        FunctionName=function, Name="live", RoutingConfig={"AdditionalVersionWeights": {}}
    )
    _provision(aws, function, "live", 1)
    with pytest.raises(client.exceptions.ResourceConflictException, match="Version is pointed by"):
        _provision(aws, function, "1", 1)
    eventually(lambda: _ended(aws, function))

    client.update_alias(FunctionName=function, Name="live", FunctionVersion=second)
    assert not _ended(aws, function)  # allocated anew on the version that it points to
    assert _numbers(eventually(lambda: _ended(aws, function))) == ("READY", 1, 1, 1)
    _provision(aws, function, "1", 1)
    client.delete_alias(FunctionName=function, Name="live")
    client.create_alias(FunctionName=function, Name="live", FunctionVersion=second)
    (left,) = client.list_provisioned_concurrency_configs(FunctionName=function)[
        "ProvisionedConcurrencyConfigs"
    ]
    assert left["FunctionArn"].endswith(":1")


def test_provisioned_concurrency_is_part_of_the_reservation(
    aws: AwsAccount, stack: Deploy, eventually: Eventually
) -> None:
    function = stack(_ALIAS, _CODE)["Work"]
    client = aws.client("lambda")
    refused = client.exceptions.InvalidParameterValueException
    aws.set_provisioning_seconds(0)
    _provision(aws, function, "live", 2)
    for number in (0, 1):
        with pytest.raises(refused, match=r"not be lower than .* provisioned concurrency \[2\]"):
            client.put_function_concurrency(
                FunctionName=function, ReservedConcurrentExecutions=number
            )
    client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=3)
    eventually(lambda: _ended(aws, function))
    assert _invoke(aws, function, {})[1]["calls"] == 1

    client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=2)
    once = aws.client("lambda", config=Config(retries={"total_max_attempts": 1}))
    with pytest.raises(once.exceptions.TooManyRequestsException):
        once.invoke(FunctionName=function)
    assert _invoke(aws, f"{function}:live", {})[1]["calls"] == 1
    client.update_function_configuration(FunctionName=function, Timeout=11)
    second = client.publish_version(FunctionName=function)["Version"]
    with pytest.raises(once.exceptions.TooManyRequestsException):
        once.invoke(FunctionName=function, Qualifier=second)
    for qualifier, number in ((second, 1), ("live", 3)):
        with pytest.raises(refused, match="should not be greater than the reserved"):
            _provision(aws, function, qualifier, number)


def test_provisioned_concurrency_without_a_reservation_comes_out_of_the_accounts_limit(
    aws: AwsAccount, stack: Deploy
) -> None:
    function = stack(_ALIAS, _CODE)["Work"]
    client = aws.client("lambda")
    aws.set_account_concurrency(300)

    def unreserved() -> int:
        return client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]

    _provision(aws, function, "live", 150)
    assert unreserved() == 150
    with pytest.raises(ClientError, match=r"below its minimum value of \[100\]"):
        _provision(aws, function, "live", 201)
    _provision(aws, function, "live", 200)
    assert unreserved() == 100
    # A reservation takes the place of what is provisioned within it.
    client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=200)
    assert unreserved() == 100


def test_what_lambda_tells_about_a_function(aws: AwsAccount, stack: Deploy) -> None:
    function = stack(_ALIAS, _CODE)["Work"]
    client = aws.client("lambda")
    missing = client.exceptions.ResourceNotFoundException
    with pytest.raises(missing, match="does not exist"):
        client.get_policy(FunctionName=function)
    grant: Any = {"Action": "lambda:InvokeFunction", "Principal": "events.amazonaws.com"}
    client.add_permission(FunctionName=function, Qualifier="live", StatementId="alias", **grant)
    with pytest.raises(missing):
        client.get_policy(FunctionName=function)
    client.add_permission(FunctionName=function, StatementId="function", **grant)
    for qualifier, sid in (({}, "function"), ({"Qualifier": "live"}, "alias")):
        policy = json.loads(client.get_policy(FunctionName=function, **qualifier)["Policy"])
        assert [statement["Sid"] for statement in policy["Statement"]] == [sid]

    client.create_alias(FunctionName=function, Name="next", FunctionVersion="$LATEST")
    aliases = client.list_aliases(FunctionName=function)["Aliases"]
    assert [alias["Name"] for alias in aliases] == ["live", "next"]
    of_version = client.list_aliases(FunctionName=function, FunctionVersion="1")["Aliases"]
    assert [alias["Name"] for alias in of_version] == ["live"]

    listed = client.list_function_url_configs(FunctionName=function)
    assert listed["FunctionUrlConfigs"] == []
    client.create_function_url_config(FunctionName=function, Qualifier="live", AuthType="NONE")
    (url,) = client.list_function_url_configs(FunctionName=function)["FunctionUrlConfigs"]
    assert url["FunctionArn"].endswith(f":{function}:live")
    assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(
        FunctionName=function
    )
    for method in (
        "get_policy",
        "list_aliases",
        "list_function_url_configs",
        "list_versions_by_function",
        "list_provisioned_concurrency_configs",
        "get_function_concurrency",
    ):
        with pytest.raises(missing):
            getattr(client, method)(FunctionName="gone")


def test_a_function_url_is_reachable(aws: AwsAccount, stack: Deploy) -> None:
    resources = _FUNCTION.replace("{}", "{FunctionUrlConfig: {AuthType: NONE}}")
    url = aws.function_url(stack(resources, _CODE)["Work"])
    request = urllib.request.Request(f"{url}decisions/1", b"hello ", {"Content-Type": "text/plain"})  # noqa: S310 -- our own URL
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 -- as above
        assert answer.read() == b"hello /decisions/1"


def test_a_failed_event_goes_to_the_dead_letter_queue_as_it_came(
    aws: AwsAccount, stack: Deploy
) -> None:
    names = stack(
        """
        Dead: {Type: AWS::SQS::Queue}
        Work:
          Type: AWS::Serverless::Function
          Properties:
            DeadLetterQueue: {Type: SQS, TargetArn: !GetAtt Dead.Arn}
            EventInvokeConfig: {MaximumRetryAttempts: 0}
        """,
        _CODE,
    )
    aws.client("lambda").invoke(
        FunctionName=names["Work"], InvocationType="Event", Payload='{"raise": "x"}'
    )
    received = aws.client("sqs").receive_message(
        QueueUrl=names["Dead"], WaitTimeSeconds=5, MessageAttributeNames=["All"]
    )["Messages"][0]
    assert json.loads(received["Body"]) == {"raise": "x"}
    assert received["MessageAttributes"]["ErrorMessage"]["StringValue"] == "x"


def test_a_throttled_event_is_not_lost(
    aws: AwsAccount, stack: Deploy, eventually: Eventually
) -> None:
    function = stack(_FUNCTION, _CODE)["Work"]
    client = aws.client("lambda")
    client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
    client.invoke(FunctionName=function, InvocationType="Event", Payload="{}")
    time.sleep(0.3)
    client.delete_function_concurrency(FunctionName=function)
    groups = aws.client("logs")

    def ran() -> bool:
        found = groups.describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{function}")
        return bool(found["logGroups"])

    assert eventually(ran)


def test_without_the_bridges_the_gaps_are_still_there(
    embedded_aws: EmbeddedAws, aws: AwsAccount, stack: Deploy
) -> None:
    with (
        lambda_errors.BRIDGE.off(),
        function_url.BRIDGE.off(),
        account_concurrency.BRIDGE.off(),
        lambda_async.BRIDGE.off(),
        lambda_reads.BRIDGE.off(),
        provisioned_concurrency.BRIDGE.off(),
    ):
        silent = _ALIAS.replace("Work", "Silent")
        loud = _FUNCTION.replace("{}", "{FunctionUrlConfig: {AuthType: NONE}}")
        names = stack(loud + silent, _CODE)
        _, error = _invoke(aws, names["Work"], {"raise": "x"})
        assert error["errorType"] == "Runtime.HandlerError"
        assert aws.function_url(names["Work"]).endswith(".on.aws/")
        aws.set_account_concurrency(10)
        limit = aws.client("lambda").get_account_settings()["AccountLimit"]
        assert limit["ConcurrentExecutions"] != 10
        client = aws.client("lambda")
        assert (
            json.loads(client.get_policy(FunctionName=names["Silent"])["Policy"])["Statement"] == []
        )
        assert client.list_function_url_configs(FunctionName="gone")["FunctionUrlConfigs"] == []
        assert _provision(aws, names["Silent"], "$LATEST", 5000)[0] == "READY"
        listed: Any = client.list_provisioned_concurrency_configs(FunctionName=names["Silent"])
        assert "ProvisionedConcurrencyConfigs" not in listed
    assert embedded_aws.account != aws.account


def test_no_variable_leads_a_function_to_another_aws(aws: AwsAccount, stack: Deploy) -> None:
    names = stack(
        """
        Work:
          Type: AWS::Serverless::Function
          Properties: {Environment: {Variables: {AWS_ENDPOINT_URL: "", OTHER: "kept"}}}
        """,
        """
        import os
        import boto3

        def handler(event, context):
            address = boto3.client("sqs").meta.endpoint_url
            return [address, os.environ["AWS_ENDPOINT_URL"], os.environ["OTHER"]]
        """,
    )
    answer = aws.client("lambda").invoke(FunctionName=names["Work"])["Payload"].read()
    assert json.loads(answer) == [aws.endpoint_url, aws.endpoint_url, "kept"]


def test_a_function_may_be_named_after_provisioned_concurrency(
    aws: AwsAccount, stack: Deploy
) -> None:
    name = "set-provisioned-concurrency"
    stack(
        f"Work: {{Type: AWS::Serverless::Function, Properties: {{FunctionName: {name}}}}}",
        "def handler(event, context): return 1",
    )
    client = aws.client("lambda")
    assert client.get_function_configuration(FunctionName=name)["FunctionName"] == name
    with provisioned_concurrency.BRIDGE.off(), pytest.raises(ClientError, match="not found"):
        client.get_function_configuration(FunctionName=name)
