"""Bridges over MiniStack's gaps: each imitates behaviour that AWS documents.

A bridge is a module with a `BRIDGE`; `local/aws/README.md` lists gap, source and test. A test
takes each bridge out and shows that the gap is still there: when that fails, upstream has closed
the gap and the bridge goes.
"""

from local.aws import workers
from local.aws.bridges import (
    account_concurrency,
    cloudformation,
    definition_yaml,
    event_sources,
    eventbridge_targets,
    function_url,
    iam,
    lambda_async,
    lambda_errors,
    lambda_reads,
    provisioned_concurrency,
    s3_kms,
    sns_deliveries,
    sqs_messages,
    sqs_redrive,
    stepfunctions,
    stepfunctions_scopes,
)

ALL = [
    module.BRIDGE
    for module in (
        account_concurrency,
        cloudformation,
        definition_yaml,
        event_sources,
        eventbridge_targets,
        function_url,
        iam,
        lambda_async,
        lambda_errors,
        lambda_reads,
        provisioned_concurrency,
        s3_kms,
        sns_deliveries,
        sqs_messages,
        sqs_redrive,
        stepfunctions,
        stepfunctions_scopes,
    )
]


def install() -> None:
    """Put every bridge in place; again is harmless."""
    workers.install()
    for bridge in ALL:
        bridge.on()
