"""A queue in another account or Region that letters go to: what is said of it; pure.

Cross-account permissions apply to SQS's SendMessage, GetQueueUrl and GetQueueAttributes, not to
ListQueueTags (SQS Developer Guide, "Limitations of Amazon SQS custom policies"). So the opt-in is
no tag there but the stack's parameter ReplayDestinations, and of who consumes it nothing is known:
neither event source mappings nor metrics can be read without a role of the other account's.
"""

from __future__ import annotations

_SQS, _REGION, _ACCOUNT, _NAME = 2, 3, 4, 5
"""Parts of an ARN: ``arn:aws:sqs:eu-west-1:123456789012:orders``."""


def is_elsewhere(here: str, arn: str) -> bool:
    """Return whether a queue is in another account or Region than the ARN ``here``."""
    parts = arn.split(":")
    return parts[_SQS] == "sqs" and parts[_REGION:_NAME] != here.split(":")[_REGION:_NAME]


def region_of(arn: str) -> str:
    """Return an ARN's Region."""
    return arn.split(":")[_REGION]


def named(arn: str) -> str:
    """Return what a human needs to find the queue."""
    parts = arn.split(":")
    return f"{parts[_NAME]} (account {parts[_ACCOUNT]}, {parts[_REGION]})"


def not_listed(arn: str) -> str:
    """Say that the stack may not send to a queue, and how it may."""
    return (
        f"{named(arn)} is not among the stack's ReplayDestinations, so I send nothing to it. Add "
        f"{arn} to ReplayDestinations in samconfig.toml and deploy again."
    )


def missing(arn: str) -> str:
    """Say that there is no such queue."""
    return f"There is no queue {named(arn)}."


def closed(arn: str) -> str:
    """Say that its owner does not let us find a queue."""
    return (
        f"{named(arn)} denies access. Its queue policy has to allow this stack's roles "
        f"sqs:GetQueueUrl, sqs:GetQueueAttributes and sqs:SendMessage."
    )


def unseen(arn: str, waiting: int | None) -> str:
    """Say, before letters are sent, what will not be seen; ``waiting`` is ``None`` if unknown."""
    seen = "of it I see only how many wait"
    if waiting is None:
        seen = "of it I see nothing, not even how many wait"
    return (
        f"It goes to account {arn.split(':')[_ACCOUNT]}, {region_of(arn)}: what fails there does "
        f"not come back here, and {seen}."
    )


def not_seen(arn: str) -> str:
    """Say, when all are sent, what nobody knows; to be put into a sentence about that."""
    return f", though nobody here sees what {named(arn)} makes of them"
