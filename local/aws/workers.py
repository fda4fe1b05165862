"""Lambda workers: each execution environment gets credentials and an environment of its own."""
# ruff: noqa: SLF001 -- works on MiniStack's internals

import contextlib
import hashlib
import os
import secrets
import subprocess
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import sts

# What a worker may inherit from the host; on AWS nothing of the deployer's machine is visible.
_INHERITED = {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "PYTHONDONTWRITEBYTECODE"}
_environments: dict[str, "subprocess.Popen[str]"] = {}


class _Subprocess:
    """The subprocess module as MiniStack's Lambda runtime sees it."""

    PIPE = subprocess.PIPE

    @staticmethod
    def Popen(command: list[str], *, env: dict[str, str], **options: Any) -> Any:  # noqa: N802 -- stands in for subprocess.Popen
        """Start a worker with the function's variables only, under credentials of its own."""
        own = {
            name: value
            for name, value in env.items()
            if name in _INHERITED or os.environ.get(name) != value or name.startswith("AWS_")
        }
        own["AWS_EXECUTION_ENV"] = "AWS_Lambda_python3.13"
        key = own["AWS_ACCESS_KEY_ID"]
        if session := sts._sessions.get(key):
            key = f"ASIA{secrets.token_hex(8).upper()}"
            own["AWS_ACCESS_KEY_ID"] = key
            own["AWS_SECRET_ACCESS_KEY"] = secret = secrets.token_hex(20)
            own["AWS_SESSION_TOKEN"] = token = hashlib.sha256(secret.encode()).hexdigest()
            sts.register_session(key, {**session, "SecretAccessKey": secret, "SessionToken": token})
        process = subprocess.Popen(command, env=own, **options)  # noqa: S603 -- MiniStack's worker
        _environments[key] = process
        return process

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)


def install() -> None:
    """Make MiniStack start its workers through here.

    No variable of a function leads its clients away from this emulator, an empty one least of all:
    for botocore it means AWS itself.
    """
    lambda_runtime.subprocess = _Subprocess()
    lambda_runtime._RESERVED_RUNTIME_ENV_VARS.add("AWS_ENDPOINT_URL")


def stop_all() -> None:
    """End whatever worker is still alive, and close the pipes of all."""
    for process in _environments.values():
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            # What a dead worker did not read any more cannot be flushed.
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()
    _environments.clear()


def kill(access_key: str) -> None:
    """End the worker that signs with this key, as a crash of its environment would."""
    if process := _environments.get(access_key):
        process.kill()
