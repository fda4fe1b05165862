"""The embedded AWS: MiniStack in this process, bridged to AWS's documented behaviour."""

from local.aws import environment  # isort: skip  # before MiniStack is imported by any other
from local.aws.deploy import StackError
from local.aws.launcher import AwsAccount, EmbeddedAws
from local.aws.recorder import Call, Calls

__all__ = ["AwsAccount", "Call", "Calls", "EmbeddedAws", "StackError", "environment"]
