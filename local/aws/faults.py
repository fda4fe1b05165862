"""Faults at the emulator's edge: what a caller meets when AWS, the network or a worker fails."""

import sys
import threading
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "throttle", "error", "timeout", "lost_reply", "crash_before", "crash_after", "blocked"
]

# What each service answers when it throttles its control or data plane, from its API reference's
# common errors; every SDK retries all three.
_THROTTLES = {
    "lambda": "TooManyRequestsException",
    "dynamodb": "ThrottlingException",
    "s3": "SlowDown",
    "sqs": "ThrottlingException",
}

GLOBAL_SERVICES = ("iam", "route53", "route53-recovery-control-config")


@dataclass
class Fault:
    """One planned fault; it is spent after `times` calls."""

    account: str
    service: str
    operation: str
    kind: Kind
    code: str
    status: int
    times: int
    role: str
    function: str
    seconds: float
    region: str = "*"
    hits: int = field(default=0)

    def matches(  # noqa: PLR0917 -- what a call is told apart by
        self, account: str, region: str, named: str, action: str, operation: str, principal: str
    ) -> bool:
        """Tell whether a call by this principal to a Region meets the fault.

        `named` is MiniStack's name of the service, for calls that no IAM action covers.
        """
        service, _, single = action.partition(":")
        service = service or named
        if self.hits >= self.times or account != self.account or self.region not in ("*", region):
            return False
        if self.service not in ("*", service) or self.operation not in ("*", operation, single):
            return False
        _, _, session = principal.partition(":assumed-role/")
        role, _, function = session.partition("/")
        return self.role in role and self.function in function and (not self.function or bool(role))


_planned: list[Fault] = []
_lock = threading.Lock()


def take(  # noqa: PLR0917 -- what a call is told apart by
    account: str, region: str, named: str, action: str, operation: str, principal: str
) -> Fault | None:
    """Return the first fault that this call meets, and count it."""
    with _lock:
        for fault in _planned:
            if fault.matches(account, region, named, action, operation, principal):
                fault.hits += 1
                return fault
    return None


def is_blocked(account: str, region: str, service: str) -> bool:
    """Tell whether a service cannot be reached in a Region; counts nothing."""
    with _lock:
        return any(
            fault.kind == "blocked"
            and fault.account == account
            and fault.region in ("*", region)
            and fault.service in ("*", service)
            for fault in _planned
        )


def reset() -> None:
    """Forget all accounts' faults."""
    with _lock:
        _planned.clear()


class Faults:
    """Plan the faults of one account.

    `service` and `operation` are IAM's: `add("lambda", "PutFunctionConcurrency", "throttle")`,
    `add("cloudwatch", "GetMetricData", "error", code="InternalServiceError", status=500)`.
    """

    def __init__(self, account: str) -> None:
        self._account = account

    def add(
        self,
        service: str,
        operation: str,
        kind: Literal["throttle", "error", "timeout", "lost_reply"],
        *,
        times: int = 1,
        code: str = "",
        status: int = 0,
        role: str = "",
        seconds: float = 70,
    ) -> Fault:
        """Plan a fault for the next `times` calls; the returned fault's `hits` counts them.

        throttle: the service's throttling error. error: `code` with HTTP `status` (400).
        timeout: no effect and no answer for `seconds`. lost_reply: the effect is made, the answer
        is an empty HTTP 500. `role`: only callers whose role's name contains it.
        An SDK retries on its own: plan more than its `max_attempts` to reach the code.
        """
        if kind == "error" and not code:
            raise ValueError('An error fault needs its code, e.g. code="InternalServerError".')
        if kind == "throttle":
            code = code or _THROTTLES.get(service, "ThrottlingException")
            status = status or (429 if service == "lambda" else 503 if service == "s3" else 400)
        return self._plan(
            service, operation, kind, code=code, status=status or 400, times=times, role=role,
            seconds=seconds,
        )  # fmt: skip

    def crash_lambda(
        self,
        function_name: str,
        when: Literal["before", "after"],
        *,
        operation: str,
        service: str = "*",
        times: int = 1,
    ) -> Fault:
        """Kill a function's worker (by part of its name) right before or after a call's effect.

        The invocation then fails as on AWS: `Runtime.ExitError`, the next one starts cold.
        """
        kind: Kind = "crash_before" if when == "before" else "crash_after"
        return self._plan(service, operation, kind, times=times, function=function_name)

    def block(self, *, region: str = "*", service: str = "*", seconds: float = 0) -> Fault:
        """Let nothing through to a Region, a service, or a service in a Region, until `lift`.

        A call has no effect, and its answer after `seconds` is an empty HTTP 500. The Region is the
        one that a call is signed for, us-east-1 for IAM and Route 53. Data planes go on: DNS
        answers, health checks, what runs inside the emulator, and the endpoints of a routing
        control cluster in other Regions. One of these alone:
        `block(region="eu-west-1", service="route53-recovery-cluster")`.
        """
        if region == service == "*":
            raise ValueError('A block needs a region or a service, e.g. region="us-east-1".')
        return self._plan(
            service, "*", "blocked", times=sys.maxsize, region=region, seconds=seconds
        )

    def block_global_services(self, seconds: float = 0) -> list[Fault]:
        """Block the control planes that all Regions share: IAM, Route 53, routing controls' own.

        https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/global-services.html
        """
        return [self.block(service=service, seconds=seconds) for service in GLOBAL_SERVICES]

    def lift(self, *faults: Fault) -> None:
        """End these faults."""
        with _lock:
            _planned[:] = [fault for fault in _planned if not any(fault is one for one in faults)]

    def clear(self) -> None:
        """Forget this account's faults."""
        with _lock:
            _planned[:] = [fault for fault in _planned if fault.account != self._account]

    def _plan(
        self,
        service: str,
        operation: str,
        kind: Kind,
        *,
        code: str = "",
        status: int = 0,
        times: int = 1,
        role: str = "",
        function: str = "",
        seconds: float = 0,
        region: str = "*",
    ) -> Fault:
        fault = Fault(
            self._account, service, operation, kind, code, status, times, role, function, seconds,
            region,
        )  # fmt: skip
        with _lock:
            _planned.append(fault)
        return fault
