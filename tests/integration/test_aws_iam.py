import json
from collections.abc import Callable
from typing import Any

import pytest

from local.aws import AwsAccount
from local.aws.bridges import iam, iam_simulation

type Deploy = Callable[..., dict[str, str]]

_CODE = """
    import boto3
    from botocore.exceptions import ClientError

    def handler(event, context):
        client = boto3.client(event["service"])
        try:
            getattr(client, event["method"])(**event["arguments"])
        except ClientError as error:
            return error.response["Error"]["Code"]
        return "allowed"
"""
_RESOURCES = """
    Tagged: {Type: AWS::SQS::Queue, Properties: {Tags: [{Key: runbook-automation, Value: enabled}]}}
    Untagged: {Type: AWS::SQS::Queue}
    TaggedParameter:
      Type: AWS::SSM::Parameter
      Properties: {Type: String, Value: x, Tags: {runbook-automation: enabled}}
    UntaggedParameter: {Type: AWS::SSM::Parameter, Properties: {Type: String, Value: x}}
    TaggedFunction:
      Type: AWS::Serverless::Function
      Properties: {Tags: {runbook-automation: enabled}, Policies: [AWSLambdaSQSQueueExecutionRole]}
    UntaggedFunction:
      Type: AWS::Serverless::Function
      Properties: {Policies: [AWSLambdaSQSQueueExecutionRole]}
    TaggedMapping:
      Type: AWS::Lambda::EventSourceMapping
      Properties:
        FunctionName: !Ref TaggedFunction
        EventSourceArn: !GetAtt Tagged.Arn
        Tags: [{Key: runbook-automation, Value: enabled}]
    UntaggedMapping:
      Type: AWS::Lambda::EventSourceMapping
      Properties: {FunctionName: !Ref UntaggedFunction, EventSourceArn: !GetAtt Untagged.Arn}
    Caller:
      Type: AWS::Serverless::Function
      Properties:
        Policies: [{Version: "2012-10-17", Statement: [%s]}]
"""
_IF_TAGGED = (
    '{Effect: Allow, Resource: "*", Action: ["sqs:SetQueueAttributes", "ssm:PutParameter",'
    ' "lambda:PutFunctionConcurrency", "lambda:UpdateEventSourceMapping"],'
    ' Condition: {StringEquals: {"aws:ResourceTag/runbook-automation": enabled}}}'
)


def _call(aws: AwsAccount, function: str, service: str, method: str, /, **arguments: Any) -> str:
    event = {"service": service, "method": method, "arguments": arguments}
    answer = aws.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event))
    return str(json.loads(answer["Payload"].read()))


def _denied(code: str) -> bool:
    return code.startswith("AccessDenied")


def test_a_tag_condition_allows_the_tagged_and_denies_the_untagged(
    aws: AwsAccount, stack: Deploy
) -> None:
    names = stack(_RESOURCES % _IF_TAGGED, _CODE)
    calls: list[tuple[str, str, str, str, dict[str, Any]]] = [
        ("Function", "lambda", "put_function_concurrency", "FunctionName",
         {"ReservedConcurrentExecutions": 1}),
        ("Mapping", "lambda", "update_event_source_mapping", "UUID", {"BatchSize": 5}),
        ("", "sqs", "set_queue_attributes", "QueueUrl", {"Attributes": {"DelaySeconds": "1"}}),
        ("Parameter", "ssm", "put_parameter", "Name", {"Value": "y", "Overwrite": True}),
    ]  # fmt: skip
    for kind, service, method, key, more in calls:
        tagged = {key: names[f"Tagged{kind}"], **more}
        untagged = {key: names[f"Untagged{kind}"], **more}
        assert _call(aws, names["Caller"], service, method, **tagged) == "allowed", method
        assert _denied(_call(aws, names["Caller"], service, method, **untagged)), method


def test_each_operation_of_lambda_is_an_action_of_its_own(aws: AwsAccount, stack: Deploy) -> None:
    names = stack(
        _RESOURCES % '{Effect: Allow, Resource: "*", Action: ["lambda:GetFunctionConcurrency"]}',
        _CODE,
    )
    caller, target = names["Caller"], names["TaggedFunction"]
    read = _call(aws, caller, "lambda", "get_function_concurrency", FunctionName=target)
    assert read == "allowed"
    mapping = {"UUID": names["TaggedMapping"]}
    for method, arguments in (
        ("put_function_concurrency", {"FunctionName": target, "ReservedConcurrentExecutions": 1}),
        ("delete_function_concurrency", {"FunctionName": target}),
        ("get_account_settings", {}),
        ("get_event_source_mapping", mapping),
        ("update_event_source_mapping", mapping | {"BatchSize": 2}),
        ("invoke", {"FunctionName": target}),
    ):
        assert _denied(_call(aws, caller, "lambda", method, **arguments)), method


_ALIASES = """
    Tagged:
      Type: AWS::Serverless::Function
      Properties: {AutoPublishAlias: live, Tags: {runbook-automation: enabled}}
    Untagged: {Type: AWS::Serverless::Function, Properties: {AutoPublishAlias: live}}
    Caller:
      Type: AWS::Serverless::Function
      Properties:
        Policies: [{Version: "2012-10-17", Statement: [%s]}]
"""
_READS = [
    "get_function_concurrency",
    "get_function_configuration",
    "list_aliases",
    "list_function_url_configs",
    "list_provisioned_concurrency_configs",
    "list_versions_by_function",
]


def test_a_tag_of_a_function_counts_for_its_aliases_and_versions(
    aws: AwsAccount, stack: Deploy
) -> None:
    names = stack(
        _ALIASES
        % (
            '{Effect: Allow, Resource: "*", Action: ["lambda:PutProvisionedConcurrencyConfig",'
            ' "lambda:DeleteProvisionedConcurrencyConfig"],'
            ' Condition: {StringEquals: {"aws:ResourceTag/runbook-automation": enabled}}}'
        ),
        _CODE,
    )

    def put(name: str, qualifier: str, **more: Any) -> str:
        which = {"FunctionName": names[name], "Qualifier": qualifier}
        return _call(
            aws, names["Caller"], "lambda", "put_provisioned_concurrency_config",
            ProvisionedConcurrentExecutions=1, **which, **more,
        )  # fmt: skip

    def delete(name: str) -> str:
        return _call(
            aws, names["Caller"], "lambda", "delete_provisioned_concurrency_config",
            FunctionName=names[name], Qualifier="live",
        )  # fmt: skip

    assert put("Tagged", "live") == "allowed"
    assert _denied(put("Untagged", "live"))
    assert delete("Tagged") == "allowed"
    assert _denied(delete("Untagged"))
    assert put("Tagged", "1") == "allowed"
    assert _denied(put("Untagged", "1"))


def test_provisioned_concurrency_is_granted_on_the_alias_and_its_list_on_the_function(
    aws: AwsAccount, stack: Deploy
) -> None:
    names = stack(
        _ALIASES
        % (
            '{Effect: Allow, Resource: !Sub "${Tagged.Arn}:live",'
            ' Action: ["lambda:PutProvisionedConcurrencyConfig",'
            ' "lambda:GetProvisionedConcurrencyConfig"]},'
            "{Effect: Allow, Resource: !GetAtt Tagged.Arn,"
            ' Action: "lambda:ListProvisionedConcurrencyConfigs"}'
        ),
        _CODE,
    )
    alias = {"FunctionName": names["Tagged"], "Qualifier": "live"}
    more = {"ProvisionedConcurrentExecutions": 1}

    def call(method: str, **arguments: Any) -> str:
        return _call(aws, names["Caller"], "lambda", method, **arguments)

    assert call("put_provisioned_concurrency_config", **alias, **more) == "allowed"
    assert call("get_provisioned_concurrency_config", **alias) == "allowed"
    listed = call("list_provisioned_concurrency_configs", FunctionName=names["Tagged"])
    assert listed == "allowed"
    assert _denied(call("delete_provisioned_concurrency_config", **alias))
    other = alias | {"Qualifier": "1"}
    assert _denied(call("put_provisioned_concurrency_config", **other, **more))
    assert _denied(call("list_provisioned_concurrency_configs", FunctionName=names["Untagged"]))
    function = f"arn:aws:lambda:{aws.region}:{aws.account}:function:{names['Tagged']}"
    recorded = aws.calls.by_role()[names["CallerRole"]]
    assert [(call.operation, call.action, call.resource) for call in recorded[:4]] == [
        (operation, f"lambda:{operation}", resource)
        for operation, resource in (
            ("PutProvisionedConcurrencyConfig", f"{function}:live"),
            ("GetProvisionedConcurrencyConfig", f"{function}:live"),
            ("ListProvisionedConcurrencyConfigs", function),
            ("DeleteProvisionedConcurrencyConfig", f"{function}:live"),
        )
    ]


def test_reading_about_a_function_needs_the_action_of_its_name(
    aws: AwsAccount, stack: Deploy
) -> None:
    allowed = "list_aliases"
    names = stack(
        _ALIASES % '{Effect: Allow, Resource: !GetAtt Tagged.Arn, Action: "lambda:ListAliases"}',
        _CODE,
    )
    for method in (*_READS, "get_policy"):
        answer = _call(aws, names["Caller"], "lambda", method, FunctionName=names["Tagged"])
        assert _denied(answer) == (method != allowed), method
    calls = aws.calls.by_role()[names["CallerRole"]]
    wanted = ["".join(part.title() for part in name.split("_")) for name in (*_READS, "get_policy")]
    assert [call.action for call in calls] == [f"lambda:{name}" for name in wanted]
    assert {call.resource for call in calls} == {
        f"arn:aws:lambda:{aws.region}:{aws.account}:function:{names['Tagged']}"
    }


def test_a_mapping_can_be_granted_by_its_function_and_metrics_by_namespace(
    aws: AwsAccount, stack: Deploy
) -> None:
    names = stack(
        _RESOURCES
        % (
            '{Effect: Allow, Resource: "*", Action: "lambda:UpdateEventSourceMapping",'
            ' Condition: {ArnEquals: {"lambda:FunctionArn": !GetAtt TaggedFunction.Arn}}},'
            '{Effect: Allow, Resource: "*", Action: "cloudwatch:PutMetricData",'
            ' Condition: {StringEquals: {"cloudwatch:namespace": Runbooks}}}'
        ),
        _CODE,
    )
    caller = names["Caller"]

    def update(mapping: str) -> str:
        return _call(aws, caller, "lambda", "update_event_source_mapping", UUID=names[mapping])

    def put(namespace: str) -> str:
        data = [{"MetricName": "Runs", "Value": 1}]
        return _call(
            aws, caller, "cloudwatch", "put_metric_data", Namespace=namespace, MetricData=data
        )

    assert update("TaggedMapping") == "allowed"
    assert _denied(update("UntaggedMapping"))
    assert put("Runbooks") == "allowed"
    assert _denied(put("Others"))


def test_a_tag_in_the_request_can_be_required(aws: AwsAccount, stack: Deploy) -> None:
    names = stack(
        _RESOURCES
        % (
            '{Effect: Allow, Resource: "*", Action: "sqs:TagQueue",'
            ' Condition: {StringEquals: {"aws:RequestTag/team": ops}}}'
        ),
        _CODE,
    )

    def tag(team: str) -> str:
        return _call(
            aws, names["Caller"], "sqs", "tag_queue", QueueUrl=names["Tagged"], Tags={"team": team}
        )

    assert tag("ops") == "allowed"
    assert _denied(tag("dev"))


@pytest.mark.parametrize("name", ["/runbooks/kill-switch"])
def test_parameters_are_granted_by_name(aws: AwsAccount, stack: Deploy, name: str) -> None:
    aws.client("ssm").put_parameter(Name=name, Type="String", Value="off")
    aws.client("ssm").put_parameter(Name="/others", Type="String", Value="x")
    arn = f"arn:aws:ssm:{aws.region}:{aws.account}:parameter/runbooks/*"
    names = stack(
        _RESOURCES
        % (
            f'{{Effect: Allow, Resource: "{arn}",'
            ' Action: ["ssm:GetParameters", "ssm:GetParameter"]}'
        ),
        _CODE,
    )
    caller = names["Caller"]
    assert _call(aws, caller, "ssm", "get_parameters", Names=[name]) == "allowed"
    assert _call(aws, caller, "ssm", "get_parameter", Name=name) == "allowed"
    assert _denied(_call(aws, caller, "ssm", "get_parameters", Names=["/others"]))


def test_a_batch_needs_the_action_of_its_single_form(aws: AwsAccount, stack: Deploy) -> None:
    names = stack(
        _RESOURCES % '{Effect: Allow, Resource: !GetAtt Tagged.Arn, Action: "sqs:SendMessage"}',
        _CODE,
    )
    entries = [{"Id": "1", "MessageBody": "x"}]
    caller = names["Caller"]

    def send(queue: str) -> str:
        return _call(
            aws, caller, "sqs", "send_message_batch", QueueUrl=names[queue], Entries=entries
        )

    assert send("Tagged") == "allowed"
    assert _denied(send("Untagged"))
    calls = aws.calls.by_role()[names["CallerRole"]]
    assert [(call.operation, call.action) for call in calls] == [
        ("SendMessageBatch", "sqs:SendMessage")
    ] * 2


_QUEUES = """
    Tagged: {Type: AWS::SQS::Queue, Properties: {Tags: [{Key: runbook-automation, Value: enabled}]}}
    Untagged: {Type: AWS::SQS::Queue}
    Caller:
      Type: AWS::Serverless::Function
      Properties:
        Policies: [{Version: "2012-10-17", Statement: [%s]}]
"""
_QUEUE_ACTIONS = (
    "SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility",
    "GetQueueAttributes", "SetQueueAttributes", "ListQueueTags", "ListDeadLetterSourceQueues",
    "GetQueueUrl", "PurgeQueue",
)  # fmt: skip


def test_every_action_on_a_queue_can_be_granted_by_its_tag(aws: AwsAccount, stack: Deploy) -> None:
    actions = ", ".join(f'"sqs:{action}"' for action in _QUEUE_ACTIONS)
    names = stack(
        _QUEUES
        % (
            f'{{Effect: Allow, Resource: "*", Action: [{actions}],'
            ' Condition: {StringEquals: {"aws:ResourceTag/runbook-automation": enabled}}}'
        ),
        _CODE,
    )
    client = aws.client("sqs")
    handles: dict[str, str] = {}
    for queue in ("Tagged", "Untagged"):
        client.send_message(QueueUrl=names[queue], MessageBody="x")
        [message] = client.receive_message(QueueUrl=names[queue])["Messages"]
        handles[queue] = message["ReceiptHandle"]

    def call(queue: str, method: str, **more: Any) -> str:
        return _call(aws, names["Caller"], "sqs", method, QueueUrl=names[queue], **more)

    for queue in ("Tagged", "Untagged"):
        handle = {"ReceiptHandle": handles[queue]}
        longer = {**handle, "VisibilityTimeout": 60}
        answers = [
            call(queue, "send_message", MessageBody="x"),
            call(queue, "send_message_batch", Entries=[{"Id": "1", "MessageBody": "x"}]),
            call(queue, "receive_message"),
            call(queue, "change_message_visibility", **longer),
            call(queue, "change_message_visibility_batch", Entries=[{"Id": "1", **longer}]),
            call(queue, "delete_message_batch", Entries=[{"Id": "1", **handle}]),
            call(queue, "delete_message", **handle),
            call(queue, "get_queue_attributes", AttributeNames=["All"]),
            call(queue, "set_queue_attributes", Attributes={"VisibilityTimeout": "31"}),
            call(queue, "list_queue_tags"),
            call(queue, "list_dead_letter_source_queues"),
            call(queue, "purge_queue"),
            _call(
                aws, names["Caller"], "sqs", "get_queue_url",
                QueueName=names[queue].rpartition("/")[2],
            ),
        ]  # fmt: skip
        if queue == "Tagged":
            assert set(answers) == {"allowed"}
        else:
            assert all(map(_denied, answers)), answers
    actions_used = {call.action for call in aws.calls.by_role()[names["CallerRole"]]}
    assert actions_used == {f"sqs:{action}" for action in _QUEUE_ACTIONS}


def test_a_bucket_that_demands_tls_can_be_written(aws: AwsAccount, stack: Deploy) -> None:
    bucket = f"tls-only-{aws.account}"
    aws.client("s3").create_bucket(Bucket=bucket)
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    policy = {"Version": "2012-10-17", "Statement": [deny]}
    aws.client("s3").put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    allow = f'{{Effect: Allow, Resource: "arn:aws:s3:::{bucket}/*", Action: "s3:PutObject"}}'
    caller = stack(_RESOURCES % allow, _CODE)["Caller"]

    assert _call(aws, caller, "s3", "put_object", Bucket=bucket, Key="x", Body="x") == "allowed"
    with iam.BRIDGE.off():
        assert _denied(_call(aws, caller, "s3", "put_object", Bucket=bucket, Key="y", Body="y"))


def test_without_the_bridge_the_gaps_are_still_there(aws: AwsAccount, stack: Deploy) -> None:
    names = stack(
        _RESOURCES % '{Effect: Allow, Resource: "*", Action: ["lambda:PutFunctionConcurrency"]}',
        _CODE,
    )
    with iam.BRIDGE.off():
        read = _call(
            aws, names["Caller"], "lambda", "get_function_concurrency",
            FunctionName=names["TaggedFunction"],
        )  # fmt: skip
        update = _call(
            aws, names["Caller"], "lambda", "update_event_source_mapping",
            UUID=names["TaggedMapping"],
        )  # fmt: skip
        listed = _call(
            aws, names["Caller"], "lambda", "list_provisioned_concurrency_configs",
            FunctionName=names["TaggedFunction"],
        )  # fmt: skip
    assert (read, update) == ("allowed", "allowed")
    assert _denied(listed)  # whatever the policy says: it is taken for another operation
    assert aws.calls.by_role()[names["CallerRole"]][-1].action == "lambda:GetFunction"


_ASKS_ELSEWHERE = """
    Caller:
      Type: AWS::Serverless::Function
      Properties:
        Policies:
          - Version: "2012-10-17"
            Statement: [{Effect: Allow, Action: ["sqs:*"], Resource: "%s"}]
"""


def test_the_url_of_another_accounts_queue_is_asked_of_that_queue(
    aws: AwsAccount, stack: Deploy
) -> None:
    owner = "310000000007"
    arn = f"arn:aws:sqs:{aws.region}:{owner}:shared"
    policy = {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{aws.account}:root"},
            "Action": "sqs:GetQueueUrl",
            "Resource": arn,
        },
    }
    there = aws.for_account(owner).client("sqs")
    there.create_queue(QueueName="shared", Attributes={"Policy": json.dumps(policy)})
    asked = {"QueueName": "shared", "QueueOwnerAWSAccountId": owner}
    names = stack(_ASKS_ELSEWHERE % arn, _CODE)
    assert _call(aws, names["Caller"], "sqs", "get_queue_url", **asked) == "allowed"
    with iam.BRIDGE.off():
        assert _denied(_call(aws, names["Caller"], "sqs", "get_queue_url", **asked))


_SERVICES = """
    Caller:
      Type: AWS::Serverless::Function
      Properties:
        Policies: [{Version: "2012-10-17", Statement: [%s]}]
"""


def test_a_service_of_ecs_is_granted_by_itself_and_its_tag(aws: AwsAccount, stack: Deploy) -> None:
    ecs = aws.client("ecs")
    services = "arn:aws:ecs:*:*:service/*"
    names = stack(
        _SERVICES
        % (
            f'{{Effect: Allow, Resource: "{services}", Action: ["ecs:DescribeServices",'
            ' "ecs:ListTagsForResource"]},'
            f'{{Effect: Allow, Resource: "{services}", Action: "ecs:UpdateService",'
            ' Condition: {StringEquals: {"aws:ResourceTag/runbook-automation": enabled}}}'
        ),
        _CODE,
    )
    for name, value in (("tagged", "enabled"), ("untagged", "disabled")):
        tags: Any = [{"key": "runbook-automation", "value": value}]
        made = ecs.create_service(
            cluster="shop", serviceName=name, taskDefinition="web:1", desiredCount=0, tags=tags
        )
        arn = made["service"]["serviceArn"]

        def call(method: str, **arguments: Any) -> str:
            return _call(aws, names["Caller"], "ecs", method, **arguments)

        assert call("describe_services", cluster="shop", services=[arn]) == "allowed"
        assert call("list_tags_for_resource", resourceArn=arn) == "allowed"
        updated = call("update_service", cluster="shop", service=arn, desiredCount=2)
        assert (updated == "allowed") == (name == "tagged"), updated
        found = ecs.describe_services(cluster="shop", services=[arn])["services"]
        assert [one["desiredCount"] for one in found] == [2 if name == "tagged" else 0]
        with iam.BRIDGE.off():
            gap = call("update_service", cluster="shop", service=arn, desiredCount=2)
        assert _denied(gap)


@pytest.mark.parametrize("forgotten", ["", "global-cluster:shop", "cluster:east", "cluster:west"])
def test_a_switch_of_auroras_writer_is_checked_on_all_that_it_changes(
    aws: AwsAccount, stack: Deploy, forgotten: str
) -> None:
    engine = {"Engine": "aurora-mysql", "EngineVersion": "8.0.mysql_aurora.3.08.0"}
    clients: dict[str, Any] = {
        name: aws.for_account(aws.account, region).client("rds")
        for name, region in (("east", "us-east-2"), ("west", aws.region))
    }
    clients["east"].create_global_cluster(GlobalClusterIdentifier="shop", **engine)
    login: dict[str, Any] = {"MasterUsername": "root", "MasterUserPassword": "local-dummy"}
    for name, more in (("east", login), ("west", {})):
        clients[name].create_db_cluster(
            DBClusterIdentifier=name, GlobalClusterIdentifier="shop", **engine, **more
        )
    west = f"arn:aws:rds:{aws.region}:{aws.account}:cluster:west"
    arns = [
        f"arn:aws:rds::{aws.account}:global-cluster:shop",
        f"arn:aws:rds:us-east-2:{aws.account}:cluster:east",
        west,
    ]
    allowed = [arn for arn in arns if not forgotten or not arn.endswith(forgotten)]
    names = stack(
        _SERVICES
        % (
            f"{{Effect: Allow, Resource: {json.dumps(allowed)}, Action:"
            ' ["rds:SwitchoverGlobalCluster", "rds:DescribeDBClusters"]}'
        ),
        _CODE,
    )
    read = _call(aws, names["Caller"], "rds", "describe_db_clusters", DBClusterIdentifier=west)
    assert (read == "allowed") == (west in allowed), read
    wanted = {"GlobalClusterIdentifier": "shop", "TargetDbClusterIdentifier": west}
    switched = _call(aws, names["Caller"], "rds", "switchover_global_cluster", **wanted)
    assert (switched == "allowed") == (not forgotten), switched
    calls = aws.calls.by_role()[names["CallerRole"]]
    assert {call.resource for call in calls if "Switchover" in call.action} == set(arns)
    if not forgotten:
        with iam.BRIDGE.off():
            gap = _call(aws, names["Caller"], "rds", "switchover_global_cluster", **wanted)
        assert _denied(gap)  # on the global cluster, whatever the policy says


def _simulated(aws: AwsAccount, **tag: str) -> list[str]:
    iam_client = aws.client("iam")
    iam_client.create_role(RoleName="tagged", AssumeRolePolicyDocument="{}")
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow", "Resource": "*", "Action": "lambda:PutFunctionConcurrency",
                "Condition": {"StringEquals": {"aws:ResourceTag/runbook-automation": "enabled"}},
            },
            {"Effect": "Allow", "Resource": "arn:aws:s3:::two/*", "Action": "s3:PutObject"},
            {"Effect": "Deny", "Resource": "arn:aws:s3:::two/no", "Action": "s3:*"},
        ],
    }  # fmt: skip
    iam_client.put_role_policy(
        RoleName="tagged", PolicyName="p", PolicyDocument=json.dumps(document)
    )
    found = iam_client.simulate_principal_policy(
        PolicySourceArn=f"arn:aws:iam::{aws.account}:role/tagged",
        ActionNames=["lambda:PutFunctionConcurrency", "s3:PutObject"],
        ResourceArns=["arn:aws:s3:::two/yes", "arn:aws:s3:::two/no"],
        ContextEntries=[
            {
                "ContextKeyName": "aws:ResourceTag/runbook-automation",
                "ContextKeyType": "string",
                "ContextKeyValues": [value],
            }
            for value in tag.values()
        ],
    )
    return [one["EvalDecision"] for one in found["EvaluationResults"]]


def test_a_simulation_heeds_its_context_and_looks_at_each_resource(aws: AwsAccount) -> None:
    assert _simulated(aws, tag="enabled") == ["allowed", "allowed", "allowed", "explicitDeny"]


def test_a_simulation_without_the_tag_denies(aws: AwsAccount) -> None:
    assert _simulated(aws, tag="no")[:2] == ["implicitDeny", "implicitDeny"]
    with iam_simulation.BRIDGE.off():
        aws.client("iam").delete_role_policy(RoleName="tagged", PolicyName="p")
        aws.client("iam").delete_role(RoleName="tagged")
        # The gap: neither the context nor the second resource is looked at.
        assert _simulated(aws, tag="enabled") == ["implicitDeny", "allowed"]
