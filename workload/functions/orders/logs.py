"""One JSON line a record."""

import json
import time
from typing import Any


def log(event: str, **fields: Any) -> None:
    """Write one JSON line; Lambda passes it on to the log group as it is."""
    print(json.dumps({"time": time.time(), "event": event, **fields}), flush=True)
