"""Gap: every exception of a handler becomes `Runtime.HandlerError`, and costs the warm worker.

AWS: an error's payload has `errorType` (the exception's class name), `errorMessage` and
`stackTrace`, and the execution environment stays warm
(https://docs.aws.amazon.com/lambda/latest/dg/python-exceptions.html). A module that cannot be
imported is `Runtime.ImportModuleError`, a missing handler `Runtime.HandlerNotFound`, a result that
is no JSON `Runtime.MarshalError`, a process that ends `Runtime.ExitError`, a timeout
`Sandbox.Timedout` (https://repost.aws/knowledge-center/lambda-troubleshoot-invocation-failures;
https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html).

The worker also marks the end of an invocation's log, so a silent function need not be waited for.
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import json
import queue
import time
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import lambda_svc

from local.aws.bridges.bridge import Bridge, edit

BRIDGE = Bridge("lambda_errors")
_END_OF_LOG = "\x1e end of invocation"
_LOG_SECONDS = 0.25
_FAILED = "embedded_aws_error"

_REPORT = f"""
def _report(kind, error, skip=0):
    frames = traceback.extract_tb(error.__traceback__)[skip:]
    body = {{"errorMessage": str(error), "errorType": kind or type(error).__name__}}
    root = os.environ.get("LAMBDA_TASK_ROOT", "/var/task")
    body["stackTrace"] = [line.replace(root, "/var/task") for line in traceback.format_list(frames)]
    return {{"{_FAILED}": body, "trace": traceback.format_exc()}}

def _end_log():
    sys.stderr.write("{_END_OF_LOG}\\n")
    sys.stderr.flush()

def run():
"""

_IMPORT = """
        try:
            mod = importlib.import_module(module_name)
        except ImportError as e:
            e = ImportError(f"Unable to import module '{module_name}': {e}").with_traceback(e.__traceback__)
            _real_stdout.write(json.dumps({"status": "error", "error": json.dumps(_report("Runtime.ImportModuleError", e))}) + "\\n")
            _real_stdout.flush()
            return
        if not hasattr(mod, handler_name):
            e = AttributeError(f"Handler '{handler_name}' missing on module '{module_name}'")
            _real_stdout.write(json.dumps({"status": "error", "error": json.dumps(_report("Runtime.HandlerNotFound", e))}) + "\\n")
            _real_stdout.flush()
            return
        handler_fn = getattr(mod, handler_name)
"""  # noqa: E501 -- the source of a program

_INVOKE = """
        try:
            result = handler_fn(event, context)
        except Exception as e:
            result = _report("", e, 1)
        try:
            reply = json.dumps({"status": "ok", "result": result})
        except (TypeError, ValueError) as e:
            e = type(e)(f"Unable to marshal response: {e}")
            reply = json.dumps({"status": "ok", "result": _report("Runtime.MarshalError", e)})
        _end_log()
        _real_stdout.write(reply + "\\n")
        _real_stdout.flush()
"""

_script: str = lambda_runtime._PYTHON_WORKER_SCRIPT
_script = edit(_script, "\ndef run():\n", _REPORT)
_script = edit(
    _script,
    """
        mod = importlib.import_module(module_name)
        handler_fn = getattr(mod, handler_name)
""",
    _IMPORT,
)
_script = edit(
    _script,
    """{"status": "error", "error": str(e)}) + "\\n")
        _real_stdout.flush()
        return
""",
    """{"status": "error", "error": json.dumps(_report("", e, 1))}) + "\\n")
        _real_stdout.flush()
        return
""",
)
_script = edit(
    _script,
    """
        try:
            result = handler_fn(event, context)
            _real_stdout.write(json.dumps({"status": "ok", "result": result}) + "\\n")
        except Exception as e:
            _real_stdout.write(json.dumps({"status": "error", "error": str(e), "trace": traceback.format_exc()}) + "\\n")
        _real_stdout.flush()
""",  # noqa: E501 -- the source of a program
    _INVOKE,
)
BRIDGE.replace(lambda_runtime, "_PYTHON_WORKER_SCRIPT")(_script)


@BRIDGE.replace(lambda_runtime.Worker, "_drain_stderr_bounded")
def _drain(self: Any, *_: float) -> str:
    """Collect the log up to the worker's mark, which it writes before it answers."""
    lines: list[str] = []
    deadline = time.monotonic() + _LOG_SECONDS
    while True:
        try:
            line = self._stderr_queue.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return "\n".join(lines)
        if line == _END_OF_LOG:
            return "\n".join(lines)
        lines.append(line)


@BRIDGE.replace(lambda_svc, "_execute_function_warm")
def _execute_function_warm(func: dict[str, Any], event: Any, request_id: str) -> dict[str, Any]:
    result: dict[str, Any] = _execute(func, event, request_id)
    body = result.get("body")
    if isinstance(body, dict) and _FAILED in body:
        return _failed(body, request_id, result.get("log", ""))
    if not result.get("error") or result.get("throttle") or not isinstance(body, dict):
        return result
    message = str(body.get("errorMessage", ""))
    _, init_failed, init_error = message.partition("Worker init failed: ")
    if init_failed:
        return _failed(json.loads(init_error), request_id, "")
    if body.get("errorType") == "Sandbox.Timedout":
        message = f"RequestId: {request_id} Error: {message}"
    elif "Worker" in message or "pipe" in message.lower():
        message = f"RequestId: {request_id} Error: Runtime exited without providing a reason"
        body["errorType"] = "Runtime.ExitError"
    return {**result, "body": {**body, "errorMessage": message}}


_execute = BRIDGE.original(lambda_svc, "_execute_function_warm")


def _failed(report: dict[str, Any], request_id: str, log: str) -> dict[str, Any]:
    body = {**report[_FAILED], "requestId": request_id}
    summary = f"[ERROR] {body['errorType']}: {body['errorMessage']}"
    lines = filter(None, [log, summary, report["trace"]])
    return {"body": body, "error": True, "log": "\n".join(lines)}
