"""MiniStack on a thread of this process: one server, started and stopped as a whole."""
# ruff: noqa: SLF001 -- works on MiniStack's internals

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import hypercorn.asyncio
import hypercorn.config
from ministack import app
from ministack.core import hypercorn_compat, lambda_runtime
from ministack.services import lambda_svc, sns, sqs
from ministack.services.cloudformation import custom_resource

_START_SECONDS = 20


class ServerError(RuntimeError):
    """The embedded AWS did not start, or was started twice in one process."""


class Server:
    """MiniStack served on 127.0.0.1; its state is the process's, so there is one at a time."""

    _running: "Server | None" = None

    def __init__(self) -> None:
        self.port = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._restore = contextlib.ExitStack()

    @property
    def endpoint_url(self) -> str:
        """The address of every service, e.g. http://127.0.0.1:40123."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, account: str, region: str, port: int = 0) -> None:
        """Bind a port (0 picks a free one), serve, and point this process's AWS_* at it.

        Raises ServerError when one is running in this process already.
        """
        if Server._running is not None:
            raise ServerError(
                "An embedded AWS is running in this process already; use its for_account(...)."
            )
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        self.port = listener.getsockname()[1]
        Server._running = self
        self._restore.enter_context(_environment(account, region, self.port))
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, ready)),
            name="embedded-aws",
            daemon=True,
        )
        self._thread.start()
        if not ready.wait(_START_SECONDS):
            self.stop()
            raise ServerError(f"The embedded AWS did not start in {_START_SECONDS} s.")

    async def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        app._reset_lock = None  # it belonged to the loop of an earlier start
        hypercorn_compat.install()
        config = hypercorn.config.Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.errorlog = None
        config.graceful_timeout = 0.2
        config.keep_alive_timeout = 60
        stop = self._stop

        async def shutdown() -> None:
            ready.set()  # hypercorn asks for the trigger after the application's start-up
            await stop.wait()

        await hypercorn.asyncio.serve(app.app, config, shutdown_trigger=shutdown)

    def stop(self) -> None:
        """Stop serving, forget all state and end every Lambda worker that was started."""
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join(timeout=10)
        app._reset_all_state()
        lambda_runtime.reset()
        self._restore.close()
        Server._running = None


@contextlib.contextmanager
def _environment(account: str, region: str, port: int) -> Iterator[None]:
    """Replace every AWS_* variable, so that no client of this process can reach the real AWS."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    before |= {name: os.environ[name] for name in ("GATEWAY_PORT",) if name in os.environ}
    ours = {
        "AWS_ACCESS_KEY_ID": account,
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "GATEWAY_PORT": str(port),
        "MINISTACK_ACCOUNT_ID": account,
        "MINISTACK_REGION": region,
    }
    for name in before:
        del os.environ[name]
    os.environ.update(ours)
    app._MINISTACK_PORT = lambda_svc._GATEWAY_PORT = str(port)
    sns._PORT = custom_resource._PORT = sqs.DEFAULT_PORT = str(port)
    sqs._CANONICAL_NETLOC = f"127.0.0.1:{port}"
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(before)
