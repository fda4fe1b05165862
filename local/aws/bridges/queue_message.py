"""How AWS's own services put a message on a queue."""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import hashlib
import time

from ministack.core.responses import get_account_id, new_uuid
from ministack.services import lambda_svc, sqs


def put_message(queue_arn: str, body: str, attributes: dict[str, str | int]) -> bool:
    """Put a message with its attributes on a queue; False when there is no such queue."""
    queue = sqs._queue_by_arn(queue_arn)
    if queue is None:
        return False
    now = time.time()
    message = {
        "id": new_uuid(),
        "body": body,
        "md5_body": hashlib.md5(body.encode(), usedforsecurity=False).hexdigest(),
        "receipt_handle": None,
        "sent_at": now,
        "visible_at": now + sqs.queue_delay(queue),
        "receive_count": 0,
        "attributes": {},
        "message_attributes": {
            name: {
                "DataType": "Number" if isinstance(value, int) else "String",
                "StringValue": str(value),
            }
            for name, value in attributes.items()
            if value != ""
        },
        "sys": {"SenderId": get_account_id(), "SentTimestamp": str(int(now * 1000))},
    }
    sqs._ensure_msg_fields(message)
    queue["messages"].append(message)
    lambda_svc.esm_wake.set()
    return True
