"""What stories are about: one kind of target a runbook."""

from collections.abc import Mapping

from tests.scenarios.targets.base import Target
from tests.scenarios.targets.function import Function
from tests.scenarios.targets.letters import Letters
from tests.scenarios.targets.queue import Queue
from tests.scenarios.targets.service import Failback, Service

__all__ = ["KINDS", "Failback", "Function", "Letters", "Queue", "Service", "Target"]

KINDS: Mapping[str, type[Target]] = {
    "queue-saturation": Queue,
    "lambda-throttles": Function,
    "dlq-replay": Letters,
    "route53-failover": Service,
    "route53-failback": Failback,
}
"""By the runbook's id, which is the name of its stories' folder."""
