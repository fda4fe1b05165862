"""What MiniStack reads when it is imported: this comes before any of its modules.

Nothing but 127.0.0.1 is ever bound, and Lambda execution roles are enforced from the first call.
"""

import logging
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

# MiniStack configures the root logger when it is imported; logging belongs to the program that
# runs. Its own loggers have its services' names; `kms` speaks up while it is imported.
logging.getLogger("kms").setLevel(logging.CRITICAL)
_root = logging.getLogger()
_handlers, _level = _root.handlers[:], _root.level

from ministack import app  # noqa: E402 -- only now, see above

_root.handlers[:] = _handlers
_root.setLevel(_level)
for _name in ("ministack", "states", "lambda", "lambda_runtime", *app.SERVICE_REGISTRY):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
logging.getLogger("samtranslator.metrics").setLevel(logging.CRITICAL)  # metrics of its own
