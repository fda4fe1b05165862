"""Gap: SimulatePrincipalPolicy knows no context and one resource only.

MiniStack leaves ContextEntries out, so that whatever a condition allows is denied, and looks at the
first of ResourceArns alone.

AWS: "whenever a context key is evaluated in one of the simulated IAM permissions policies, the
corresponding value is supplied", and "each operation is evaluated for each resource"
(https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html).
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import contextvars
from typing import Any
from xml.sax.saxutils import escape

from ministack.core import iam_evaluator
from ministack.core.responses import get_region
from ministack.services import iam

from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("iam_simulation")
_DECISIONS = {"Allow": "allowed", "Deny": "explicitDeny"}
_asked: contextvars.ContextVar[tuple[list[str], dict[str, Any]]] = contextvars.ContextVar("_asked")


@BRIDGE.replace(iam, "_extract_simulate_params")
def extract(request: Any) -> Any:
    """Read resources and context too, for the evaluation that follows in the same task."""
    context = {}
    for number in range(1, 100):
        start = f"ContextEntries.member.{number}"
        if not (key := iam._p(request, f"{start}.ContextKeyName")):
            break
        values = _listed(request, f"{start}.ContextKeyValues")
        context[key.lower()] = values if len(values) > 1 else next(iter(values), "")
    _asked.set((_listed(request, "ResourceArns") or ["*"], context))
    return _extract(request)


@BRIDGE.replace(iam, "_build_simulate_results_real")
def build(
    actions: list[str], _first: str, principal: str, account: str, policies: list[Any]
) -> str:
    """Evaluate each action on each resource, with the caller's context."""
    resources, context = _asked.get()
    return "".join(
        f"<member><EvalActionName>{escape(action)}</EvalActionName>"
        f"<EvalResourceName>{escape(resource)}</EvalResourceName>"
        f"<EvalDecision>{_decide(action, resource, principal, account, policies, context)}"
        f"</EvalDecision><MatchedStatements/><MissingContextValues/></member>"
        for action in actions
        for resource in resources
    )


def _decide(  # noqa: PLR0917 -- one call
    action: str, resource: str, principal: str, account: str, policies: Any, context: Any
) -> str:
    asked = iam_evaluator.EvalContext(
        principal_arn=principal,
        principal_type="AssumedRole",
        principal_account=account,
        action=action,
        resource_arn=resource,
        region=get_region(),
        source_ip="127.0.0.1",
        secure_transport=True,
        service_context=context,
    )
    found = iam_evaluator.evaluate(asked, policies).decision if policies else ""
    return _DECISIONS.get(found, "implicitDeny")


def _listed(request: Any, name: str) -> list[str]:
    found: list[str] = []
    while value := iam._p(request, f"{name}.member.{len(found) + 1}"):
        found.append(str(value))
    return found


_extract = BRIDGE.original(iam, "_extract_simulate_params")
