"""Whom a request is from: for what a service does in its caller's name.

Some operations make AWS call another one with the caller's rights, and CloudTrail records those as
the caller's: a redrive receives, sends and deletes, S3 asks KMS for a data key
(https://docs.aws.amazon.com/IAM/latest/UserGuide/access_forward_access_sessions.html).
"""

import contextvars
from typing import Any

from ministack.core import iam_evaluator, router
from ministack.core.responses import get_account_id, get_region

from local.aws.recorder import CALLS, Call

_FORBIDDEN = 403
# Service and access key of the request that this task, or the thread that it started, serves.
_request: contextvars.ContextVar[tuple[str, str]] = contextvars.ContextVar(
    "_request", default=("", "")
)


def note(service: str, headers: Any, params: Any) -> None:
    """Remember who calls which service; the request's own authorization comes after this."""
    _request.set((service, router.extract_access_key_id(headers, params)))


def may(
    via: str, action: str, resource: str, context: dict[str, Any] | None = None, *, operation: str
) -> bool:
    """Tell whether the caller of the service `via` may do this too, and record it as its call.

    Work that no request to `via` began is MiniStack's own, and neither checked nor recorded.
    """
    service, key = _request.get()
    if service != via or not key:
        return True
    wanted = action.partition(":")[0]
    region, account = get_region(), get_account_id()
    refused = iam_evaluator.enforce(
        key, action, wanted, region, resource_arn=resource, service_context=context or {}
    )
    identity = iam_evaluator.resolve_caller_identity(key) or {}
    status, error = (_FORBIDDEN, "AccessDenied") if refused else (200, "")
    principal = identity.get("userArn", "")
    CALLS.add(Call(account, region, wanted, operation, action, resource, principal, status, error))
    return not refused


def arn() -> str:
    """Return the ARN of the request's caller."""
    _, key = _request.get()
    return str((iam_evaluator.resolve_caller_identity(key) or {}).get("userArn", ""))
