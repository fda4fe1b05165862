"""`EmbeddedAws`: start it, deploy the real template.yaml into it, use it, stop it."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import boto3
from ministack.services import stepfunctions

from local.aws import bridges, edge, workers
from local.aws.bridges import account_concurrency as lambda_limits
from local.aws.bridges import global_data, provisioned_concurrency
from local.aws.deploy import delete_stack, deploy
from local.aws.faults import Faults
from local.aws.recorder import Calls
from local.aws.route53 import checkers, routing_controls, zones
from local.aws.server import Server


class Extension(Protocol):
    """What another module adds to the emulator, e.g. alarm evaluation."""

    def install(self, aws: "EmbeddedAws") -> None:
        """Start; called when the server answers."""

    def uninstall(self) -> None:
        """Stop; called before the server stops."""


class AwsAccount:
    """One account and region of a running embedded AWS.

    `client` is `boto3.client` for this account as its root user, typed where boto3-stubs are
    installed: `aws.client("sqs")`.
    """

    def __init__(self, server: Server, account: str, region: str, calls: Calls) -> None:
        self.account = account
        self.region = region
        self.calls = calls.of(account)
        self.faults = Faults(account)
        self._server = server
        self._session = boto3.Session(
            aws_access_key_id=account,
            # MiniStack knows this one secret for every account's root user.
            aws_secret_access_key="test",  # noqa: S106 -- a dummy, known to the emulator
            region_name=region,
        )
        self.client = self._session.client

    @property
    def endpoint_url(self) -> str:
        """The address of every service, e.g. http://127.0.0.1:40123."""
        return self._server.endpoint_url

    def session(self) -> boto3.Session:
        """Return a boto3 session of this account's root user; clients find the endpoint."""
        return self._session

    def for_account(self, account: str, region: str | None = None) -> "AwsAccount":
        """Return another account (twelve digits) or region of the same server."""
        return AwsAccount(self._server, account, region or self.region, self.calls)

    def deploy(
        self,
        stack_name: str,
        template_path: str | Path,
        parameters: Mapping[str, str] | None = None,
        *,
        build_dir: str | Path | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """Package and create or update a SAM stack as `sam deploy` would; return its outputs.

        `build_dir` is what `sam build` wrote (`.aws-sam/build`): a function that was built there
        is deployed from there. Raises StackError, naming the first resource that failed and why.
        """
        return deploy(
            self._session,
            stack_name,
            Path(template_path),
            parameters or {},
            build_dir=Path(build_dir) if build_dir else None,
            tags=tags or {},
        )

    def delete_stack(self, stack_name: str) -> None:
        """Delete a stack and wait until it is gone."""
        delete_stack(self._session, stack_name)

    def function_url(self, function_name: str) -> str:
        """Return the URL of a function, reachable by plain HTTP from this machine."""
        config = self.client("lambda").get_function_url_config(FunctionName=function_name)
        return str(config["FunctionUrl"])

    def set_account_concurrency(self, limit: int) -> None:
        """Set the account's Lambda concurrency limit, as Service Quotas would; AWS's is 1000."""
        lambda_limits.LIMITS[self.account] = limit

    def set_provisioning_seconds(self, seconds: float) -> None:
        """Set how long provisioned concurrency takes to be ready; a second unless set."""
        provisioned_concurrency.SECONDS[self.account] = seconds

    def set_global_switch_seconds(self, seconds: float) -> None:
        """Set how long an Aurora global cluster switches its writer; 0.3 unless set."""
        global_data.SECONDS[self.account] = seconds

    def set_replica_status(self, table: str, region: str, status: str) -> None:
        """Set what DescribeTable says of a replica, e.g. REGION_DISABLED; ACTIVE unless set."""
        global_data.REPLICA_STATUS[self.account, table, region] = status

    def set_dns_change_seconds(self, seconds: float) -> None:
        """Set how long a change of Route 53 is PENDING; a fifth of a second unless set."""
        zones.SECONDS[self.account] = seconds

    def set_health(self, health_check_id: str, healthy: bool | None, region: str = "") -> None:  # noqa: FBT001 -- its one value
        """Let an endpoint's health checkers, or that of one Region, report this; None: look."""
        checkers.set_health(health_check_id, healthy, region)

    def fail_next_provisioning(self, reason: str = "FUNCTION_ERROR_INIT_FAILURE") -> None:
        """Let the next allocation of provisioned concurrency end as FAILED, with this reason."""
        provisioned_concurrency.FAILURES.setdefault(self.account, []).append(reason)


class EmbeddedAws(AwsAccount):
    """The embedded AWS: `with EmbeddedAws() as aws: aws.deploy(...)`.

    One runs in a process at a time; tests that must not meet use `for_account`. While it runs, the
    process's AWS_* variables point at it. `account_concurrency` is every account's Lambda limit
    until `set_account_concurrency`; `wait_scale` shortens the waits of state machines (Wait states
    and pauses before retries, not timeouts); `extensions` are installed once it answers.
    """

    def __init__(
        self,
        account: str = "123456789012",
        region: str = "us-east-1",
        *,
        port: int = 0,
        account_concurrency: int = 1000,
        wait_scale: float = 1.0,
        extensions: tuple[Extension, ...] = (),
    ) -> None:
        self._port = port
        self._account_concurrency = account_concurrency
        self._wait_scale = wait_scale
        self._extensions = extensions
        self.account = account
        self.region = region
        self._server = Server()

    def start(self) -> Self:
        """Start serving; raises ServerError when one runs in this process already."""
        bridges.install()
        edge.install()
        self._server.start(self.account, self.region, self._port)
        # Only now: a session reads the AWS_* variables, which are the emulator's from here on.
        super().__init__(self._server, self.account, self.region, edge.calls)
        lambda_limits.DEFAULT.limit = self._account_concurrency
        stepfunctions._SFN_WAIT_SCALE = self._wait_scale  # noqa: SLF001 -- MiniStack's setting
        for extension in self._extensions:
            extension.install(self)
        return self

    def stop(self) -> None:
        """Stop serving, forget all state, end every Lambda worker."""
        for extension in reversed(self._extensions):
            extension.uninstall()
        edge.reset()
        lambda_limits.LIMITS.clear()
        provisioned_concurrency.reset()
        global_data.reset()
        checkers.reset()
        routing_controls.reset()
        zones.reset()
        self._server.stop()
        workers.stop_all()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
