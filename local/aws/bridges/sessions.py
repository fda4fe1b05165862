"""Sessions of roles are registered by many threads at once, as STS hands them out on AWS.

MiniStack drops expired ones at every registration while it iterates over the dictionary that others
write to: "dictionary changed size during iteration" ends the call, and with it the invocation of a
function whose environment is just being started (``RuntimeError`` from a step that has none). Here
one thread at a time does it.
"""

import threading
from typing import Any

from ministack.services import sts

from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("sessions")
_lock = threading.Lock()


@BRIDGE.replace(sts, "register_session")
def register_session(access_key: str, session: dict[str, Any]) -> None:
    """Register a session and drop the expired ones, alone."""
    with _lock:
        _register(access_key, session)


_register = BRIDGE.original(sts, "register_session")
