"""The embedded AWS: MiniStack in this process, bridged to AWS's documented behaviour.

Importing this package sets what MiniStack reads from the environment when it is imported, so
nothing but 127.0.0.1 is ever bound and Lambda execution roles are enforced from the first call.
"""

import os

os.environ.update(
    AUTH="true",
    BIND_HOST="127.0.0.1",
    IOT_MTLS_ENABLED="0",
    LAMBDA_EXECUTOR="local",
    LOG_LEVEL="ERROR",
    MINISTACK_HOST="127.0.0.1",
    PERSIST_STATE="0",
    S3_PERSIST="0",
    SFTP_ENABLED="0",
)

from local.aws.deploy import StackError  # noqa: E402 -- MiniStack reads the environment on import
from local.aws.launcher import AwsAccount, EmbeddedAws  # noqa: E402 -- as above
from local.aws.recorder import Call, Calls  # noqa: E402 -- as above

__all__ = ["AwsAccount", "Call", "Calls", "EmbeddedAws", "StackError"]
