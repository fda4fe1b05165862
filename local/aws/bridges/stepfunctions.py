"""Gaps of Step Functions: time limits, heartbeats, task tokens, stopping, names, Lambda, JSONata.

AWS:

- A machine's `TimeoutSeconds` ends its execution TIMED_OUT; a task's `TimeoutSeconds` fails it with
  `States.Timeout` and its `HeartbeatSeconds` with `States.HeartbeatTimeout`; in JSONata machines
  both may be expressions
  (https://docs.aws.amazon.com/step-functions/latest/dg/statemachine-structure.html,
  https://docs.aws.amazon.com/step-functions/latest/dg/state-task.html).
- SendTaskSuccess, -Failure and -Heartbeat answer `InvalidToken` to an unknown token, `TaskTimedOut`
  to one whose task has ended, `InvalidOutput` to an output that is no JSON
  (https://docs.aws.amazon.com/step-functions/latest/apireference/API_SendTaskSuccess.html).
- An execution that was stopped or timed out enters no further state and keeps its status
  (https://docs.aws.amazon.com/step-functions/latest/apireference/API_StopExecution.html).
- StartExecution with the name and the input of a running execution answers that execution; else a
  used name is `ExecutionAlreadyExists`; a name with spaces or special characters is `InvalidName`
  (https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html).
- A throttled function fails a task with `Lambda.TooManyRequestsException`
  (https://docs.aws.amazon.com/step-functions/latest/dg/sfn-best-practices.html); a function that
  fails to hand on a task token fails the task
  (https://docs.aws.amazon.com/step-functions/latest/dg/connect-to-resource.html).
- `States.ALL` catches neither `States.Runtime` nor `States.DataLimitExceeded`; a state's output is
  256 KiB at most
  (https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html).
- JSONata's Succeed has `Output`
  (https://docs.aws.amazon.com/step-functions/latest/dg/state-succeed.html).
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import contextvars
import json
import random
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from ministack.core.responses import error_response_json
from ministack.services import lambda_svc
from ministack.services import stepfunctions as sfn

from local.aws.bridges.bridge import Bridge

type _State = dict[str, Any]
type _Context = dict[str, Any]

BRIDGE = Bridge("stepfunctions")
_PAYLOAD_BYTES = 262_144
_POLL_SECONDS = 0.25
_BAD_NAME = re.compile(r"[\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]")
_NAME_CHARACTERS = 80
_TERMINAL = {"States.Runtime", "States.DataLimitExceeded"}
_ended_tokens: set[str] = set()
_task: contextvars.ContextVar[tuple[_Context, float]] = contextvars.ContextVar("_task")


class StoppedError(Exception):
    """The execution, or the state around, has ended from outside; nothing of it goes on."""


# Set when the Map or Parallel around, of which there may be several, has failed.
aborts: contextvars.ContextVar[tuple[threading.Event, ...]] = contextvars.ContextVar(
    "aborts", default=()
)


def stop_if_aborted() -> None:
    """Raise StoppedError when a Map or Parallel around has failed."""
    if any(event.is_set() for event in aborts.get()):
        raise StoppedError


# --- Stopping and time limits of the machine ---------------------------------------------------


def _run_while_running(name: str) -> Callable[..., Any]:
    """Wrap a state's handler so that an execution which has ended enters no further state."""
    handler = BRIDGE.original(sfn, name)

    def run(state: _State, raw_input: Any, *rest: Any) -> Any:
        context: _Context = rest[-1] or {"State": {"Name": ""}}
        _stop_unless_running(context)
        output, following = handler(state, raw_input, *rest)
        _stop_unless_running(context)
        if len(json.dumps(output)) > _PAYLOAD_BYTES:
            raise sfn._ExecutionError(
                "States.DataLimitExceeded",
                f"The state '{context['State']['Name']}' returned a result with a size exceeding "
                "the maximum number of bytes service limit.",
            )
        return output, following

    return run


for _name in ("_execute_pass", "_execute_choice", "_execute_parallel", "_execute_map"):
    BRIDGE.replace(sfn, _name)(_run_while_running(_name))


def _running(context: _Context) -> bool:
    execution = sfn._executions.get(context.get("Execution", {}).get("Id"))
    return bool(execution) and execution["status"] == "RUNNING"


def _stop_unless_running(context: _Context) -> None:
    stop_if_aborted()
    if "Execution" in context and not _running(context):
        raise StoppedError


@BRIDGE.replace(sfn, "_fail_execution")
def _fail_execution(execution: dict[str, Any], error: str, cause: str) -> None:
    if execution["status"] == "RUNNING":
        _fail(execution, error, cause)


@BRIDGE.replace(sfn, "_execute_wait")
def _execute_wait(state: _State, raw_input: Any, context: _Context) -> Any:
    _stop_unless_running(context)
    token = _waiting.set(context)
    try:
        return _wait(state, raw_input, context)
    finally:
        _waiting.reset(token)


_waiting: contextvars.ContextVar[_Context | None] = contextvars.ContextVar("_waiting", default=None)


@BRIDGE.replace(sfn, "_scaled_sleep")
def _scaled_sleep(seconds: float) -> None:
    """Sleep, but not beyond the end of the execution."""
    deadline = time.monotonic() + seconds * sfn._SFN_WAIT_SCALE
    context = _waiting.get()
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, _POLL_SECONDS))
        if context is not None:
            _stop_unless_running(context)


def _time_out(execution: dict[str, Any]) -> None:
    if execution["status"] != "RUNNING":
        return
    execution["status"] = "TIMED_OUT"
    execution["stopDate"] = sfn.now_iso()
    execution["error"], execution["cause"] = None, None
    sfn._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {}})
    sfn._emit_execution_status_event(execution)


# --- Starting ----------------------------------------------------------------------------------


@BRIDGE.replace(sfn, "_start_execution")
def _start_execution(data: dict[str, Any]) -> Any:
    name, text = data.get("name"), data.get("input", "{}")
    if name is not None and (len(name) > _NAME_CHARACTERS or not name or _BAD_NAME.search(name)):
        return error_response_json("InvalidName", f"Invalid Name: '{name}'", 400)
    try:
        json.loads(text)
    except ValueError:
        return error_response_json(
            "InvalidExecutionInput", "Invalid State Machine Execution Input: not valid JSON", 400
        )
    if len(text.encode()) > _PAYLOAD_BYTES:
        return error_response_json(
            "InvalidExecutionInput", f"The input is longer than {_PAYLOAD_BYTES} bytes", 400
        )
    status, headers, body = _start(data)
    if status != 200:  # noqa: PLR2004 -- HTTP: OK
        return _same_execution(data, text) or (status, headers, body)
    execution = sfn._executions.get(json.loads(body)["executionArn"])
    machine = sfn._state_machines.get(execution["stateMachineArn"])
    if limit := _definition(machine).get("TimeoutSeconds"):
        end = contextvars.copy_context()
        timer = threading.Timer(float(limit), end.run, args=(_time_out, execution))
        timer.daemon = True
        timer.start()
    return status, headers, body


def _same_execution(data: dict[str, Any], text: str) -> Any:
    """Return the running execution of this name and input, as AWS does on a repeated start."""
    machine = sfn._state_machines.get(
        sfn._resolve_state_machine_arn(data.get("stateMachineArn", "")) or ""
    )
    if not machine or not data.get("name"):
        return None
    for execution in sfn._executions.values():
        if (
            execution["stateMachineArn"] == machine["stateMachineArn"]
            and execution["name"] == data["name"]
            and execution["status"] == "RUNNING"
            and json.loads(execution["input"]) == json.loads(text)
        ):
            return sfn.json_response(
                {"executionArn": execution["executionArn"], "startDate": execution["startDate"]}
            )
    return None


def _definition(machine: dict[str, Any]) -> dict[str, Any]:
    try:
        definition = json.loads(machine["definition"])
    except ValueError:
        return {}
    return definition if isinstance(definition, dict) else {}


# --- Tasks -------------------------------------------------------------------------------------


@BRIDGE.replace(sfn, "_execute_task")
def _execute_task(state: _State, raw_input: Any, execution: Any, context: _Context) -> Any:
    _stop_unless_running(context)
    state = dict(state)
    for field in ("TimeoutSeconds", "HeartbeatSeconds"):
        if path := state.pop(f"{field}Path", None):
            state[field] = sfn._resolve_path_or_ctx(path, raw_input, context)
        elif isinstance(state.get(field), str):
            state[field] = sfn._jsonata_state_field(state, field, "number", raw_input, context)
    running, sleeping = (
        _task.set((context, state.get("HeartbeatSeconds", 0))),
        _waiting.set(context),
    )
    try:
        output, following = _run_task(state, raw_input, execution, context)
    finally:
        _task.reset(running)
        _waiting.reset(sleeping)
    _stop_unless_running(context)
    if len(json.dumps(output)) > _PAYLOAD_BYTES:
        raise sfn._ExecutionError(
            "States.DataLimitExceeded",
            f"The state '{context['State']['Name']}' returned a result with a size exceeding the "
            "maximum number of bytes service limit.",
        )
    return output, following


@BRIDGE.replace(sfn, "_invoke_with_callback")
def _invoke_with_callback(resource: str, arguments: Any, _token: str, state: _State) -> Any:
    context, heartbeat = _task.get()
    token = context["Task"]["Token"]
    done = threading.Event()
    waiting: dict[str, Any] = {"event": done, "result": None, "error": None, "heartbeat": None}
    sfn._task_tokens[token] = waiting
    try:
        sfn._invoke_resource(resource.replace(".waitForTaskToken", ""), arguments)
        _await(waiting, context, state.get("TimeoutSeconds"), heartbeat)
    finally:
        sfn._task_tokens.pop(token, None)
        _ended_tokens.add(token)
    if error := waiting["error"]:
        raise sfn._ExecutionError(error["Error"], error["Cause"])
    return json.loads(waiting["result"])


def _with_token(name: str) -> Callable[..., Any]:
    """Wrap the making of a task's arguments: each attempt hands out a token of its own."""
    make = BRIDGE.original(sfn, name)

    def arguments(state: _State, data: Any, context: _Context | None = None) -> Any:
        if context and context.get("Task", {}).get("Token") in _ended_tokens:
            context["Task"] = {"Token": sfn.new_uuid()}
        return make(state, data, context)

    return arguments


for _name in ("_apply_jsonata_arguments", "_apply_parameters"):
    BRIDGE.replace(sfn, _name)(_with_token(_name))


@BRIDGE.replace(sfn, "_find_matching_retrier")
def _find_matching_retrier(
    retriers: list[dict[str, Any]], error: str, counts: dict[int, int]
) -> tuple[dict[str, Any] | None, int]:
    """Honour MaxDelaySeconds and JitterStrategy, which MiniStack ignores."""
    retrier, index = _retrier(retriers, error, counts)
    if retrier is None:
        return None, index
    delay = retrier.get("IntervalSeconds", 1) * retrier.get("BackoffRate", 2.0) ** counts.get(
        index, 0
    )
    delay = min(delay, retrier.get("MaxDelaySeconds", delay))
    if retrier.get("JitterStrategy") == "FULL":
        delay = random.uniform(0, delay)  # noqa: S311 -- spreads retries, guards nothing
    return {**retrier, "IntervalSeconds": delay, "BackoffRate": 1}, index


def _await(
    waiting: dict[str, Any], context: _Context, timeout: float | None, heartbeat: float
) -> None:
    begun = time.monotonic()
    beat, seen = begun, waiting["heartbeat"]
    while True:
        now = time.monotonic()
        if waiting["heartbeat"] != seen:
            beat, seen = now, waiting["heartbeat"]
        if timeout is not None and now - begun >= timeout:
            raise sfn._ExecutionError("States.Timeout", "")
        if heartbeat and now - beat >= heartbeat:
            raise sfn._ExecutionError("States.HeartbeatTimeout", "")
        ends = [begun + timeout] if timeout is not None else []
        ends += [beat + heartbeat] if heartbeat else []
        if waiting["event"].wait(min([_POLL_SECONDS, *(max(end - now, 0.001) for end in ends)])):
            return
        _stop_unless_running(context)


@BRIDGE.replace(sfn, "_send_task_success")
def _send_task_success(data: dict[str, Any]) -> Any:
    try:
        json.loads(data.get("output", ""))
    except ValueError:
        return error_response_json("InvalidOutput", "The JSON output provided is invalid.", 400)
    return _refused(data) or _succeed(data)


@BRIDGE.replace(sfn, "_send_task_failure")
def _send_task_failure(data: dict[str, Any]) -> Any:
    return _refused(data) or _fail_task(data)


@BRIDGE.replace(sfn, "_send_task_heartbeat")
def _send_task_heartbeat(data: dict[str, Any]) -> Any:
    if refused := _refused(data):
        return refused
    sfn._task_tokens[data["taskToken"]]["heartbeat"] = time.monotonic()
    return sfn.json_response({})


def _refused(data: dict[str, Any]) -> Any:
    token = data.get("taskToken", "")
    waiting = sfn._task_tokens.get(token)
    if token in _ended_tokens or (waiting and waiting["event"].is_set()):
        return error_response_json(
            "TaskTimedOut", "Task Timed Out: 'Provided task does not exist anymore'", 400
        )
    if waiting is None:
        return error_response_json("InvalidToken", "Invalid Token: 'Invalid token'", 400)
    return None


@BRIDGE.replace(sfn, "_call_lambda")
def _call_lambda(reference: str, event: Any) -> Any:
    func, config, name = lambda_svc._get_func_record_for_ref(reference)
    if not func or not config:
        raise sfn._ExecutionError("Lambda.ResourceNotFoundException", f"Function not found: {name}")
    record = lambda_svc._execution_record_for_config(func, config)
    result = lambda_svc._execute_function_with_config_scope(record, event)
    body = result.get("body")
    if result.get("throttle"):
        raise sfn._ExecutionError(
            "Lambda.TooManyRequestsException",
            "Rate Exceeded. (Service: Lambda, Status Code: 429, Request ID: "
            f"{sfn.new_uuid()}) (SDK Attempt Count: 1)",
        )
    if result.get("error"):
        kind = body.get("errorType", "Lambda.Unknown") if isinstance(body, dict) else ""
        raise sfn._ExecutionError(kind or "Lambda.Unknown", json.dumps(body))
    if isinstance(body, bytes) or result.get("raw_payload"):
        return json.loads(body or b"null")
    return body


@BRIDGE.replace(sfn, "_add_event")
def _add_event(execution: Any, kind: str, details: dict[str, Any] | None = None) -> Any:
    failed = (details or {}).get("taskFailedEventDetails", {})
    if failed.get("error") in {"States.Timeout", "States.HeartbeatTimeout"}:
        return _add(execution, "TaskTimedOut", {"taskTimedOutEventDetails": failed})
    return _add(execution, kind, details)


@BRIDGE.replace(sfn, "_error_matches")
def _error_matches(error_equals: list[str], error: str) -> bool:
    if error in _TERMINAL:
        return error in error_equals
    if error == "States.HeartbeatTimeout" and "States.Timeout" in error_equals:
        return True
    matches: bool = _matches(error_equals, error)
    return matches


# --- JSONata -----------------------------------------------------------------------------------


@BRIDGE.replace(sfn, "_apply_output_path")
def _apply_output_path(state: _State, data: Any, context: _Context | None = None) -> Any:
    if state.get("Type") == "Succeed" and sfn._state_query_language(state, context) == "JSONata":
        return sfn._apply_jsonata_output(state, data, context, default=data)
    return _output_path(state, data, context)


@BRIDGE.replace(sfn, "reset")
def _reset_all() -> None:
    _ended_tokens.clear()
    _reset()


_fail = BRIDGE.original(sfn, "_fail_execution")
_wait = BRIDGE.original(sfn, "_execute_wait")
_start = BRIDGE.original(sfn, "_start_execution")
_run_task = BRIDGE.original(sfn, "_execute_task")
_succeed = BRIDGE.original(sfn, "_send_task_success")
_fail_task = BRIDGE.original(sfn, "_send_task_failure")
_add = BRIDGE.original(sfn, "_add_event")
_retrier = BRIDGE.original(sfn, "_find_matching_retrier")
_matches = BRIDGE.original(sfn, "_error_matches")
_output_path = BRIDGE.original(sfn, "_apply_output_path")
_reset = BRIDGE.original(sfn, "reset")
