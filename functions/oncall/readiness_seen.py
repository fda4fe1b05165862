"""What readiness goes by beside ``failover.Facts``, and what it finds: values, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oncall import contract as contracts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncall.service import Role

OK, WARN, BAD = "ok", "warn", "bad"
RULES: Mapping[str, float] = contracts.load("route53-failover").verification
"""As a failover judges."""
OBSERVED = frozenset({"HTTP", "HTTPS", "HTTP_STR_MATCH", "HTTPS_STR_MATCH", "TCP"})
"""Types of health checks that checkers observe (Route 53 ``HealthCheckConfig.Type``)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing that a failover needs."""

    name: str
    """Unique in a service: ``ttl``, or two and three words joined by ``:``, ``data:shop-orders``.
    First words: ``file traffic levers ttl records attached endpoints controls safety_rule signal
    health_check standby capacity data consumers drift stack iam switch secrets approvers
    opted_in``."""
    verdict: str
    """``ok``; ``warn``: it would work, not as it should; ``bad``; ``unknown``: it was not seen."""
    number: float | None
    """What was compared: seconds, a count, a share; ``None`` where there is none."""
    sentence: str
    """What is, and unless it is well what to do, with the command. A number that moves by itself
    is not in it, or every day would have news."""


@dataclass(frozen=True, slots=True)
class HealthCheckSeen:
    """A Route 53 health check; one that could not be read is left out."""

    config: Mapping[str, Any]
    """``HealthCheckConfig`` as Route 53 returned it; empty: there is no such check."""
    healthy_share: float | None = None
    """Of the checkers' observations, as reported; ``None`` for a check that they do not make."""


@dataclass(frozen=True, slots=True)
class FunctionSeen:
    """A function that the file tells of, or its alias or version (``GetFunctionConfiguration``)."""

    name: str
    """``shop``, or ``shop:live``."""
    code_sha256: str | None = None
    """``None``: it could not be read."""
    memory_mb: int = 0
    timeout_seconds: int = 0
    environment: frozenset[str] | None = None
    """Names of the variables, never their values; ``None``: Lambda could not decrypt them."""


@dataclass(frozen=True, slots=True)
class StackSeen:
    """The stack of runbooks in one of the service's Regions."""

    deployed: bool | None = None
    """``None``: not seen."""
    code_sha256: str = ""
    settings: Mapping[str, str] | None = None
    """Parameters that have to be alike in both Regions, by name; ``None``: not read."""
    approvers: tuple[str, ...] | None = None
    denied: tuple[str, ...] | None = None
    """What its runs need and are not allowed, in words; ``None``: not simulated."""
    switches: Mapping[str, str] | None = None
    """Kill switches by name, ``""`` for one that is missing; ``None``: not read."""
    channels: Mapping[str, str] | None = None
    """By channel that it is told of, ``slack`` and ``pagerduty``: what is wrong with its secret,
    ``""`` for nothing; ``None``: not seen."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a failover does not read and readiness goes by, beside ``failover.Facts``."""

    record_sets: Sequence[Mapping[str, Any]] | None = None
    """All of the service's name and type, as Route 53 returned them; ``None``: not read."""
    health_checks: Mapping[str, HealthCheckSeen] = field(default_factory=dict)
    """By id: the file's, those of the record sets, and the children of calculated ones."""
    endpoints: Mapping[str, bool | None] = field(default_factory=dict)
    """Whether the cluster's endpoint in a Region answers; ``None``: it refuses who asks."""
    alarm: Mapping[str, Any] | None = None
    """The signal's, as ``DescribeAlarms`` returned it; empty: there is none; ``None``: unknown."""
    functions: Mapping[Role, Sequence[FunctionSeen]] = field(default_factory=dict)
    """By role."""
    stack: str = ""
    """The name of the stack of runbooks."""
    stacks: Mapping[Role, StackSeen] = field(default_factory=dict)
    """By the role of its Region."""
    tags: Mapping[str, Mapping[str, str] | None] = field(default_factory=dict)
    """Of all that has to be opted in, by ARN; ``None``: not read."""
