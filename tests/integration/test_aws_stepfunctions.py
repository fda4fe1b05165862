import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from local.aws import AwsAccount
from local.aws.bridges import stepfunctions, stepfunctions_scopes
from local.aws.deploy import StackError

type Deploy = Callable[..., dict[str, str]]

_ROLE = "arn:aws:iam::{account}:role/machine"
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"Service": ["states.amazonaws.com", "lambda.amazonaws.com"]},
        }
    ],
}
_WAIT = "{QueryLanguage: JSONata, StartAt: W, States: {W: {Type: Wait, Seconds: 30, End: true}}}"
_ASK = """
QueryLanguage: JSONata
StartAt: Ask
States:
  Ask:
    Type: Task
    Resource: arn:aws:states:::sqs:sendMessage.waitForTaskToken
    Arguments:
      QueueUrl: "{% $states.input.queue %}"
      MessageBody: {token: "{% $states.context.Task.Token %}"}
    TimeoutSeconds: "{% $states.input.timeout %}"
    HeartbeatSeconds: "{% $states.input.heartbeat %}"
    End: true
"""


def _machine(aws: AwsAccount, definition: str, name: str = "machine") -> str:
    iam = aws.client("iam")
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_role(RoleName="machine", AssumeRolePolicyDocument=json.dumps(_TRUST))
    created = aws.client("stepfunctions").create_state_machine(
        name=name,
        definition=json.dumps(yaml.safe_load(definition)),
        roleArn=_ROLE.format(account=aws.account),
    )
    return created["stateMachineArn"]


def _start(aws: AwsAccount, machine: str, given: Any = None, **options: str) -> str:
    started = aws.client("stepfunctions").start_execution(
        stateMachineArn=machine, input=json.dumps(given or {}), **options
    )
    return started["executionArn"]


def _end(aws: AwsAccount, execution: str, seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        described = aws.client("stepfunctions").describe_execution(executionArn=execution)
        if described["status"] != "RUNNING":
            return described
        time.sleep(0.02)
    pytest.fail(f"{execution} is still running after {seconds} s")


def _run(aws: AwsAccount, definition: str, given: Any = None) -> Any:
    return _end(aws, _start(aws, _machine(aws, definition), given))


def _queue(aws: AwsAccount) -> str:
    return aws.client("sqs").create_queue(QueueName="tokens")["QueueUrl"]


def _token(aws: AwsAccount, queue: str) -> str:
    received = aws.client("sqs").receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"][0]
    return str(json.loads(received["Body"])["token"])


def _code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return error.value.response["Error"]["Code"]


def test_the_machines_time_limit_ends_the_execution(aws: AwsAccount) -> None:
    ended = _run(aws, _WAIT[:-1] + ", TimeoutSeconds: 1}")
    assert ended["status"] == "TIMED_OUT"
    assert (ended["stopDate"] - ended["startDate"]).total_seconds() < 3
    history = aws.client("stepfunctions").get_execution_history(executionArn=ended["executionArn"])
    assert history["events"][-1]["type"] == "ExecutionTimedOut"


@pytest.mark.parametrize(
    ("timeout", "heartbeat", "error"),
    [(1, 10, "States.Timeout"), (10, 1, "States.HeartbeatTimeout")],
)
def test_a_task_that_is_not_answered_in_time_fails(
    aws: AwsAccount, timeout: int, heartbeat: int, error: str
) -> None:
    given: dict[str, Any] = {"queue": _queue(aws), "timeout": timeout, "heartbeat": heartbeat}
    ended = _run(aws, _ASK, given)
    assert (ended["status"], ended["error"]) == ("FAILED", error)
    with pytest.raises(ClientError) as late:
        aws.client("stepfunctions").send_task_success(
            taskToken=_token(aws, given["queue"]), output="{}"
        )
    assert _code(late) == "TaskTimedOut"


def test_heartbeats_keep_a_task_waiting(aws: AwsAccount) -> None:
    given: dict[str, Any] = {"queue": _queue(aws), "timeout": 20, "heartbeat": 3}
    execution = _start(aws, _machine(aws, _ASK), given)
    token = _token(aws, given["queue"])
    sfn = aws.client("stepfunctions")
    for _ in range(8):
        time.sleep(0.5)
        sfn.send_task_heartbeat(taskToken=token)
    sfn.send_task_success(taskToken=token, output='{"approved": true}')
    ended = _end(aws, execution)
    assert (ended["status"], json.loads(ended["output"])) == ("SUCCEEDED", {"approved": True})


def test_a_token_is_answered_once(aws: AwsAccount) -> None:
    given: dict[str, Any] = {"queue": _queue(aws), "timeout": 20, "heartbeat": 10}
    execution = _start(aws, _machine(aws, _ASK), given)
    token = _token(aws, given["queue"])
    sfn = aws.client("stepfunctions")
    with pytest.raises(ClientError) as unknown:
        sfn.send_task_success(taskToken="nobody's", output="{}")
    with pytest.raises(ClientError) as garbled:
        sfn.send_task_success(taskToken=token, output="{")
    sfn.send_task_failure(taskToken=token, error="Rejected", cause="no")
    with pytest.raises(ClientError) as second:
        sfn.send_task_success(taskToken=token, output="{}")
    ended = _end(aws, execution)
    assert (_code(unknown), _code(garbled)) == ("InvalidToken", "InvalidOutput")
    assert _code(second) == "TaskTimedOut"
    assert (ended["status"], ended["error"], ended["cause"]) == ("FAILED", "Rejected", "no")


def test_a_retried_task_hands_out_a_new_token(aws: AwsAccount) -> None:
    retry = "    Retry: [{ErrorEquals: [Again], IntervalSeconds: 1, MaxAttempts: 1}]\n    End: true"
    given: dict[str, Any] = {"queue": _queue(aws), "timeout": 20, "heartbeat": 10}
    execution = _start(aws, _machine(aws, _ASK.replace("    End: true", retry)), given)
    sfn = aws.client("stepfunctions")
    first = _token(aws, given["queue"])
    sfn.send_task_failure(taskToken=first, error="Again")
    second = _token(aws, given["queue"])
    assert second != first
    sfn.send_task_success(taskToken=second, output="{}")
    assert _end(aws, execution)["status"] == "SUCCEEDED"


def test_a_stopped_execution_enters_no_further_state_and_stays_aborted(aws: AwsAccount) -> None:
    queue = _queue(aws)
    machine = _machine(
        aws,
        """
        QueryLanguage: JSONata
        StartAt: Branch
        States:
          Branch:
            Type: Parallel
            Branches:
              - StartAt: Wait
                States:
                  Wait: {Type: Wait, Seconds: 1, Next: Write}
                  Write:
                    Type: Task
                    Resource: arn:aws:states:::sqs:sendMessage
                    Arguments: {QueueUrl: "{% $states.input.queue %}", MessageBody: late}
                    End: true
            Catch: [{ErrorEquals: [States.ALL], Next: Caught}]
            End: true
          Caught: {Type: Pass, End: true}
        """,
    )
    execution = _start(aws, machine, {"queue": queue})
    time.sleep(0.5)
    aws.client("stepfunctions").stop_execution(executionArn=execution, cause="abort")
    time.sleep(1.3)
    assert _end(aws, execution)["status"] == "ABORTED"
    assert "Messages" not in aws.client("sqs").receive_message(QueueUrl=queue)


def test_stopping_ends_a_waiting_task_and_its_token(aws: AwsAccount) -> None:
    given: dict[str, Any] = {"queue": _queue(aws), "timeout": 60, "heartbeat": 50}
    execution = _start(aws, _machine(aws, _ASK), given)
    token = _token(aws, given["queue"])
    sfn = aws.client("stepfunctions")
    sfn.stop_execution(executionArn=execution)
    time.sleep(0.5)
    with pytest.raises(ClientError) as late:
        sfn.send_task_success(taskToken=token, output="{}")
    assert _code(late) == "TaskTimedOut"


def test_starting_again_with_the_same_name_and_input_is_the_same_execution(
    aws: AwsAccount,
) -> None:
    machine = _machine(aws, _WAIT)
    first = _start(aws, machine, {"queue": "orders"}, name="alarm-1")
    assert _start(aws, machine, {"queue": "orders"}, name="alarm-1") == first
    with pytest.raises(ClientError) as other_input:
        _start(aws, machine, {"queue": "others"}, name="alarm-1")
    aws.client("stepfunctions").stop_execution(executionArn=first)
    with pytest.raises(ClientError) as closed:
        _start(aws, machine, {"queue": "orders"}, name="alarm-1")
    assert _code(other_input) == _code(closed) == "ExecutionAlreadyExists"
    assert (
        len(aws.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"]) == 1
    )


@pytest.mark.parametrize("name", ["two words", "a:b", "x" * 81, 'quote"'])
def test_a_name_with_special_characters_is_refused(aws: AwsAccount, name: str) -> None:
    with pytest.raises(ClientError) as refused:
        _start(aws, _machine(aws, _WAIT), name=name)
    assert _code(refused) == "InvalidName"


def test_status_changes_reach_eventbridge(aws: AwsAccount) -> None:
    queue = _queue(aws)
    events = aws.client("events")
    events.put_rule(Name="runs", EventPattern='{"source": ["aws.states"]}')
    arn = f"arn:aws:sqs:{aws.region}:{aws.account}:tokens"
    events.put_targets(Rule="runs", Targets=[{"Id": "queue", "Arn": arn}])
    ended = _run(aws, _WAIT[:-1] + ", TimeoutSeconds: 1}")
    received = aws.client("sqs").receive_message(
        QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=2
    )["Messages"]
    details = [json.loads(message["Body"])["detail"] for message in received]
    assert [detail["status"] for detail in details] == ["RUNNING", "TIMED_OUT"]
    assert {detail["executionArn"] for detail in details} == {ended["executionArn"]}


def test_jsonata_output_arguments_and_variables(aws: AwsAccount) -> None:
    ended = _run(
        aws,
        """
        QueryLanguage: JSONata
        StartAt: Set
        States:
          Set: {Type: Pass, Assign: {limit: 1}, Next: Both}
          Both:
            Type: Parallel
            Arguments: {from: "{% $states.input.depth %}"}
            Branches:
              - StartAt: Left
                States:
                  Left:
                    Type: Pass
                    Assign: {own: 2}
                    Output: "{% $states.input.from %}"
                    End: true
              - StartAt: Right
                States:
                  Right:
                    Type: Wait
                    Seconds: 0
                    Output: "{% $limit %}"
                    End: true
            Assign: {both: "{% $states.result %}"}
            Output: {sum: "{% $sum($states.result) %}"}
            Next: Done
          Done:
            Type: Succeed
            Output: {sum: "{% $states.input.sum %}", both: "{% $both %}", limit: "{% $limit %}"}
        """,
        {"depth": 41},
    )
    assert ended["status"] == "SUCCEEDED", ended
    assert json.loads(ended["output"]) == {"sum": 42, "both": [41, 1], "limit": 1}


def test_jsonata_in_fail_and_catch(aws: AwsAccount) -> None:
    ended = _run(
        aws,
        """
        QueryLanguage: JSONata
        StartAt: Group
        States:
          Group:
            Type: Parallel
            Branches: [{StartAt: Bad, States: {Bad: {Type: Fail, Error: Bad, Cause: because}}}]
            Catch:
              - ErrorEquals: [States.ALL]
                Assign: {why: "{% $states.errorOutput.Cause %}"}
                Output: {name: "{% $states.errorOutput.Error %}"}
                Next: End
            End: true
          End: {Type: Fail, Error: "{% $states.input.name %}", Cause: "{% 'was ' & $why %}"}
        """,
    )
    assert (ended["error"], ended["cause"]) == ("Bad", "was because")


def test_states_all_does_not_catch_what_aws_does_not_let_it(aws: AwsAccount) -> None:
    ended = _run(
        aws,
        """
        QueryLanguage: JSONata
        StartAt: Big
        States:
          Big:
            Type: Parallel
            Branches:
              - StartAt: B
                States: {B: {Type: Pass, Output: "{% $pad('x', 300000) %}", End: true}}
            Catch: [{ErrorEquals: [States.ALL], Next: Caught}]
            End: true
          Caught: {Type: Pass, End: true}
        """,
    )
    assert (ended["status"], ended["error"]) == ("FAILED", "States.DataLimitExceeded")


def test_without_the_bridge_the_gaps_are_still_there(aws: AwsAccount) -> None:
    with stepfunctions.BRIDGE.off():
        machine = _machine(aws, _WAIT.replace("30", "2")[:-1] + ", TimeoutSeconds: 1}")
        execution = _start(aws, machine, name="one")
        with pytest.raises(ClientError) as again:
            _start(aws, machine, name="one")
        assert _end(aws, execution)["status"] == "SUCCEEDED"
    assert _code(again) == "ExecutionAlreadyExists"


def _deployed(aws: AwsAccount, folder: Path, definition: str) -> str:
    (folder / "machine.asl.yaml").write_text(definition)
    (folder / "template.yaml").write_text(
        "Transform: AWS::Serverless-2016-10-31\n"
        "Resources: {Machine: {Type: 'AWS::Serverless::StateMachine',"
        " Properties: {DefinitionUri: machine.asl.yaml}}}\n"
        "Outputs: {Arn: {Value: !Ref Machine}}\n"
    )
    return aws.deploy("stack", folder / "template.yaml")["Arn"]


def test_a_machine_in_yaml_is_deployed(aws: AwsAccount, tmp_path: Path) -> None:
    machine = _deployed(aws, tmp_path, _WAIT.replace("30", "0"))
    assert _end(aws, _start(aws, machine))["status"] == "SUCCEEDED"


_MAP = """
QueryLanguage: JSONata
StartAt: Set
States:
  Set: {Type: Pass, Assign: {rate: 7}, Next: Each}
  Each:
    Type: Map
    Items: "{% $states.input.workers %}"
    MaxConcurrency: "{% $states.input.at_once %}"
    ItemSelector:
      worker: "{% $states.context.Map.Item.Value %}"
      index: "{% $states.context.Map.Item.Index %}"
      folder: "{% $states.input.folder %}"
      rate: "{% $rate %}"
    ItemProcessor:
      ProcessorConfig: {Mode: INLINE}
      StartAt: Work
      States:
        Work:
          Type: Task
          Resource: arn:aws:states:::lambda:invoke
          Arguments:
            FunctionName: "{% $states.context.Execution.Input.function %}"
            Payload: "{% $states.input %}"
          Retry: [{ErrorEquals: [Busy], IntervalSeconds: 1, MaxAttempts: 2}]
          Assign: {mine: "{% $states.result.Payload.worker %}"}
          Output: "{% $states.result.Payload %}"
          Next: Tell
        Tell:
          Type: Pass
          Output: {worker: "{% $mine %}", rate: "{% $rate %}", calls: "{% $states.input.calls %}"}
          End: true
    Assign: {moved: "{% $sum($states.result.calls) %}"}
    Output: {workers: "{% [$states.result.worker] %}", rates: "{% [$states.result.rate] %}"}
    Catch:
      - ErrorEquals: [Poisoned]
        Assign: {why: "{% $states.errorOutput.Error %}"}
        Next: Caught
    Next: Done
  Done:
    Type: Succeed
    Output: {result: "{% $states.input %}", moved: "{% $moved %}"}
  Caught:
    Type: Succeed
    Output: {caught: "{% $why %}", rate: "{% $rate %}"}
"""
_WORKER = """
    import os, time

    class Busy(Exception): pass
    class Poisoned(Exception): pass

    def handler(event, context):
        path = os.path.join(event["folder"], f"calls-{event['index']}")
        with open(path, "a") as calls:
            calls.write(".")
        calls = os.path.getsize(path)
        if event["worker"] == "busy" and calls < 3:
            raise Busy("later")
        if event["worker"] == "poisoned":
            raise Poisoned("no")
        time.sleep(0.2)
        return {**event, "calls": calls}
"""


def _run_map(
    aws: AwsAccount, stack: Deploy, folder: Path, workers: list[str], at_once: int = 0
) -> Any:
    function = stack("Work: {Type: AWS::Serverless::Function}", _WORKER)["Work"]
    given = {"workers": workers, "at_once": at_once, "function": function, "folder": str(folder)}
    machine = _machine(aws, _MAP, "map")
    return _end(aws, _start(aws, machine, given), 20)


def test_a_map_gives_each_iteration_the_outer_variables_and_its_own(
    aws: AwsAccount, stack: Deploy, tmp_path: Path
) -> None:
    ended = _run_map(aws, stack, tmp_path, ["a", "b", "c"])
    assert json.loads(ended["output"]) == {
        "result": {"workers": ["a", "b", "c"], "rates": [7, 7, 7]},
        "moved": 3,
    }


def test_an_iteration_is_retried_by_itself(aws: AwsAccount, stack: Deploy, tmp_path: Path) -> None:
    ended = _run_map(aws, stack, tmp_path, ["a", "busy"])
    assert json.loads(ended["output"])["moved"] == 1 + 3


def test_an_iterations_error_is_the_maps_and_no_other_begins(
    aws: AwsAccount, stack: Deploy, tmp_path: Path
) -> None:
    ended = _run_map(aws, stack, tmp_path, ["a", "poisoned", "c", "d", "e"], at_once=1)
    assert json.loads(ended["output"]) == {"caught": "Poisoned", "rate": 7}
    time.sleep(0.5)
    assert len(list(tmp_path.glob("calls-*"))) == 2


def test_a_map_without_items_has_no_results(aws: AwsAccount) -> None:
    ended = _run(
        aws,
        """
        QueryLanguage: JSONata
        StartAt: Each
        States:
          Each:
            Type: Map
            Items: []
            ItemProcessor: {StartAt: P, States: {P: {Type: Pass, End: true}}}
            End: true
        """,
    )
    assert json.loads(ended["output"]) == []


_TOGETHER = """
QueryLanguage: JSONata
StartAt: Both
States:
  Both:
    Type: %s
    Catch: [{ErrorEquals: [Bad], Next: Caught}]
    End: true
  Caught: {Type: Pass, End: true}
"""
_SLOW = """{StartAt: Which, States: {
  Which: {Type: Choice, Choices: [{Condition: "{%% %s %%}", Next: Bad}], Default: Wait},
  Bad: {Type: Fail, Error: Bad},
  Wait: {Type: Wait, Seconds: 2, Next: Write},
  Write: {Type: Task, Resource: "arn:aws:states:::sqs:sendMessage", End: true,
    Arguments: {QueueUrl: "{%% $states.context.Execution.Input.queue %%}", MessageBody: late}}}}"""
_TOGETHERS = {
    "Map": "Map\n    Items: [false, true]\n    ItemProcessor: " + _SLOW % "$states.input",
    "Parallel": f"Parallel\n    Branches: [{_SLOW % 'false'}, {_SLOW % 'true'}]",
}


@pytest.mark.parametrize("kind", ["Map", "Parallel"])
def test_what_fails_ends_what_runs_beside_it(aws: AwsAccount, kind: str) -> None:
    queue = _queue(aws)
    machine = _machine(aws, _TOGETHER % _TOGETHERS[kind])
    begun = time.monotonic()
    assert _end(aws, _start(aws, machine, {"queue": queue}))["status"] == "SUCCEEDED"
    assert time.monotonic() - begun < 1.5
    time.sleep(2)
    assert "Messages" not in aws.client("sqs").receive_message(QueueUrl=queue)
    with stepfunctions_scopes.BRIDGE.off():
        begun = time.monotonic()
        _end(aws, _start(aws, machine, {"queue": queue}))
        assert time.monotonic() - begun > 1.9
    assert "Messages" in aws.client("sqs").receive_message(QueueUrl=queue)


_SHADOWED = """
QueryLanguage: JSONata
StartAt: Set
States:
  Set: {Type: Pass, Assign: {rate: 7}, Next: Each}
  Each:
    Type: Map
    Items: [1]
    ItemProcessor: {StartAt: P, States: {P: {Type: Pass, Assign: {rate: 8}, End: true}}}
    End: true
"""


def test_an_inner_scope_cannot_assign_an_outer_variable(aws: AwsAccount, tmp_path: Path) -> None:
    with pytest.raises(ClientError) as refused:
        _machine(aws, _SHADOWED)
    assert _code(refused) == "InvalidDefinition"
    with pytest.raises(StackError, match="'rate' is assigned in an outer"):
        _deployed(aws, tmp_path, _SHADOWED)
    with stepfunctions_scopes.BRIDGE.off():
        _machine(aws, _SHADOWED)
