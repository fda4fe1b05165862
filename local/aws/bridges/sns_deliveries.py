"""Gaps of SNS: a subscription's dead-letter queue stays empty, binary attributes lose their value.

AWS: a message that a subscription's endpoint can take no more, being gone or closed to SNS, goes to
the queue of its RedrivePolicy at once, if that queue's policy lets SNS
(https://docs.aws.amazon.com/sns/latest/dg/sns-dead-letter-queues.html,
https://docs.aws.amazon.com/sns/latest/dg/sns-configure-dead-letter-queue.html). It looks as it
would have in the subscriber's queue: the notification as JSON, or with raw delivery the message
itself with its attributes; nothing says why (as recorded in
https://github.com/localstack/localstack/blob/02b6f185/tests/aws/services/sns/test_sns.snapshot.json,
test_redrive_policy_sqs_queue_subscription). A function is invoked as an event, so what it raises is
retried, and goes to the function's own dead-letter queue
(https://docs.aws.amazon.com/lambda/latest/dg/with-sns.html).
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import json
from typing import Any

from ministack.services import lambda_svc, sns, sqs

from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("sns_deliveries")


@BRIDGE.replace(sns, "_deliver_to_sqs")
def _deliver_to_sqs(endpoint: str, *message: Any, topic_arn: str = "", **more: Any) -> None:
    account = topic_arn.split(":")[4] if topic_arn else ""
    queue = sqs._queue_by_arn(endpoint)
    if queue is not None and sqs.queue_policy_allows(
        endpoint, "sns.amazonaws.com", topic_arn, account
    ):
        _deliver(endpoint, *message, topic_arn=topic_arn, **more)
    elif (dead := _dead_letter_queue(topic_arn, endpoint)) and dead != endpoint:
        # Through the module: what counts a queue's messages wraps this function.
        sns._deliver_to_sqs(dead, *message, topic_arn=topic_arn, **more)


@BRIDGE.replace(sns, "_deliver_to_lambda")
def _deliver_to_lambda(
    endpoint: str, envelope: str, topic_arn: str, subscription: str, *_rest: Any
) -> None:
    func, config, _ = lambda_svc._get_func_record_for_ref(endpoint)
    if func and config:
        notification = {
            "EventVersion": "1.0",
            "EventSubscriptionArn": subscription,
            "EventSource": "aws:sns",
            "Sns": json.loads(envelope),
        }
        record = lambda_svc._execution_record_for_config(func, config)
        lambda_svc.invoke_async_with_retry(record, {"Records": [notification]})
    elif dead := _dead_letter_queue(topic_arn, endpoint):
        sns._deliver_to_sqs(dead, envelope, False, "", topic_arn=topic_arn)  # noqa: FBT003 -- MiniStack's signature: not raw


@BRIDGE.replace(sns, "_build_envelope")
def _build_envelope(  # noqa: PLR0917 -- MiniStack's signature
    topic_arn: str, message_id: str, message: str, subject: str, attributes: Any, raw: Any
) -> str:
    """Give a binary attribute its value, in Base64 as it came."""
    shown = {
        name: {**attribute, "StringValue": attribute["BinaryValue"]}
        if "BinaryValue" in attribute
        else attribute
        for name, attribute in attributes.items()
    }
    return str(_envelope(topic_arn, message_id, message, subject, shown, raw))


def _dead_letter_queue(topic_arn: str, endpoint: str) -> str:
    topic = sns._topic_by_arn_any_scope(topic_arn) or {"subscriptions": []}
    for subscription in topic["subscriptions"]:
        if subscription.get("endpoint") == endpoint:
            policy = json.loads(subscription.get("attributes", {}).get("RedrivePolicy") or "{}")
            return str(policy.get("deadLetterTargetArn", ""))
    return ""


_deliver = BRIDGE.original(sns, "_deliver_to_sqs")
_envelope = BRIDGE.original(sns, "_build_envelope")
