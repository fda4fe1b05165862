"""A built function under AWS's Lambda runtime interface emulator, on this host.

The emulator (https://github.com/aws/aws-lambda-runtime-interface-emulator) is the binary that SAM
puts into its containers; aws-sam-cli ships it. The function sees its package and the runtime's
boto3, nothing else that is installed here. What is missing is the operating system.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from oncall.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
_SAM = ROOT / "tools/sam-cli/.venv/lib/python3.13/site-packages/samcli/local/rapid"
_MACHINES = {"x86_64": "x86_64", "aarch64": "arm64"}
# The runtime, and what it brings for functions: boto3 with what it needs
# (https://docs.aws.amazon.com/lambda/latest/dg/lambda-python.html#python-sdk-included).
_RUNTIME = (
    *("awslambdaric", "simplejson", "snapshot-restore-py"),
    *("boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3"),
)
_PATH = "/2015-03-31/functions/function/invocations"
_START_SECONDS = 10
_MARGIN_SECONDS = 10
"""How much longer than the function may take its answer is waited for: the emulator ends it."""


class Host:
    """One function, ready to be invoked; a context manager.

    ``code`` is the folder that it was built to, ``configuration`` what ``GetFunctionConfiguration``
    says, ``variables`` its environment, and ``credentials`` (``AWS_ACCESS_KEY_ID``, …) its role's.
    """

    def __init__(
        self,
        code: Path,
        configuration: Mapping[str, Any],
        variables: Mapping[str, str],
        credentials: Mapping[str, str],
        region: str,
    ) -> None:
        self._code = code.resolve()
        self._configuration = configuration
        self._environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            **variables,
            **credentials,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_LAMBDA_FUNCTION_NAME": str(configuration["FunctionName"]),
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(configuration["Timeout"]),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(configuration["MemorySize"]),
            "LAMBDA_TASK_ROOT": str(self._code),
        }

    def __enter__(self) -> Self:
        """Start the emulator. Raises ``BadInput`` on a machine that it does not run on."""
        with ExitStack() as stack:
            runtime = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            link_runtime(runtime)
            self._port, api = _free_ports()
            self._process = subprocess.Popen(  # noqa: S603 -- the lock file of SAM installed it
                [
                    *(emulator(), "--log-level", "error"),
                    # Unless told otherwise it listens on every interface.
                    *("--runtime-interface-emulator-address", f"127.0.0.1:{self._port}"),
                    *("--runtime-api-address", f"127.0.0.1:{api}"),
                    *(sys.executable, "-S", "-P", "-m", "awslambdaric"),
                    str(self._configuration["Handler"]),
                ],
                cwd=self._code,
                env={**self._environment, "PYTHONPATH": f"{self._code}:{runtime}"},
                stdout=sys.stderr.fileno(),  # what functions log; answers come by HTTP
            )
            stack.callback(self._stop)
            self._await_port()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the emulator and its runtime."""
        self._stack.close()

    def invoke(self, event: Any) -> str:
        """Return the answer's text: JSON, an error's with ``errorType``, or of a timeout."""
        request = Request(f"http://127.0.0.1:{self._port}{_PATH}", json.dumps(event).encode())
        wait = int(self._configuration["Timeout"]) + _MARGIN_SECONDS
        try:
            with urlopen(request, timeout=wait) as answer:  # noqa: S310 -- 127.0.0.1
                return str(answer.read().decode())
        except HTTPError as error:  # a function that cannot be imported
            return error.read().decode()

    def _await_port(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            else:
                return

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def emulator() -> Path:
    """Return the emulator for this machine. Raises ``BadInput`` where there is none."""
    machine = _MACHINES.get(platform.machine(), "")
    path = _SAM / f"aws-lambda-rie-{machine}"
    if sys.platform != "linux" or not machine:
        raise BadInput(
            "HOST: the runtime interface emulator runs on Linux alone. "
            "Leave HOST=1 out and start Docker or Finch."
        )
    if not path.exists():
        raise BadInput("HOST: aws-sam-cli is not installed. Run `make setup`.")
    return path


def link_runtime(folder: Path) -> None:
    """Link the runtime and what it brings into a folder, and nothing else."""
    for name in _RUNTIME:
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or ()}:
            source = Path(str(found.locate_file(top)))
            if not top.startswith("..") and top != "__pycache__":
                (folder / top).symlink_to(source.resolve())


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for listener in (one, other):
            listener.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
