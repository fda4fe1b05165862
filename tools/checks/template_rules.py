"""Rules for the template that neither cfn-lint nor Guard can express: a template in, findings out.

The table of metrics is from AWS's documentation; no linter compares an alarm with it, and an alarm
on a misspelt dimension stays silent for ever.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tools.checks.finding import Finding
from tools.checks.template import Template, as_list, resources

type Dimensions = frozenset[str]


def _metrics(dimensions: tuple[tuple[str, ...], ...], names: str) -> dict[str, set[Dimensions]]:
    return {name: {frozenset(some) for some in dimensions} for name in names.split()}


# Metric -> sets of dimensions under which AWS publishes it.
AWS_METRICS: Mapping[str, Mapping[str, set[Dimensions]]] = {
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
    "AWS/SQS": _metrics(
        (("QueueName",),),
        """ApproximateAgeOfOldestMessage ApproximateNumberOfGroupsWithInflightMessages
        ApproximateNumberOfMessagesDelayed ApproximateNumberOfMessagesNotVisible
        ApproximateNumberOfMessagesVisible NumberOfDeduplicatedSentMessages NumberOfEmptyReceives
        NumberOfMessagesDeleted NumberOfMessagesReceived NumberOfMessagesSent SentMessageSize""",
    ),
    # https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/monitoring-cloudwatch.html
    "AWS/Route53": _metrics(
        (("HealthCheckId",),),
        "ChildHealthCheckHealthyCount HealthCheckPercentageHealthy HealthCheckStatus",
    ),
    # https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
    "AWS/Lambda": {
        **_metrics(
            ((), ("FunctionName",), ("FunctionName", "Resource")),
            """AsyncEventAge AsyncEventsDropped AsyncEventsReceived ConcurrentExecutions
            DeadLetterErrors DestinationDeliveryFailures Duration Errors Invocations IteratorAge
            Throttles""",
        ),
        **_metrics(((),), "ClaimedAccountConcurrency UnreservedConcurrentExecutions"),
        # https://docs.aws.amazon.com/lambda/latest/dg/urls-monitoring.html
        **_metrics(
            (("FunctionName",), ("FunctionName", "Resource")),
            "Url4xxCount Url5xxCount UrlRequestCount UrlRequestLatency",
        ),
    },
    # https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html
    "AWS/States": {
        **_metrics(
            (("StateMachineArn",),),
            """ExecutionThrottled ExecutionTime ExecutionsAborted ExecutionsFailed
            ExecutionsRedriven ExecutionsStarted ExecutionsSucceeded ExecutionsTimedOut""",
        ),
        **_metrics(
            (("LambdaFunctionArn",),),
            """LambdaFunctionsFailed LambdaFunctionsStarted LambdaFunctionsSucceeded
            LambdaFunctionsTimedOut""",
        ),
    },
    # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-monitoring.html
    "AWS/Events": _metrics(
        ((), ("RuleName",), ("EventBusName", "RuleName")),
        """DeadLetterInvocations FailedInvocations IngestionToInvocationCompleteLatency
        IngestionToInvocationStartLatency InvocationAttempts Invocations InvocationsCreated
        InvocationsFailedToBeSentToDlq InvocationsSentToDlq MatchedEvents RetryInvocationAttempts
        SuccessfulInvocationAttempts ThrottledRules TriggeredRules""",
    ),
    # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/metrics-dimensions.html
    "AWS/DynamoDB": {
        **_metrics(
            (("TableName",), ("TableName", "GlobalSecondaryIndexName")),
            """ConsumedReadCapacityUnits ConsumedWriteCapacityUnits ReadThrottleEvents
            WriteThrottleEvents""",
        ),
        **_metrics((("TableName",),), "ConditionalCheckFailedRequests TransactionConflict"),
        **_metrics(
            (("TableName", "Operation"),),
            "ReturnedItemCount SuccessfulRequestLatency SystemErrors ThrottledRequests",
        ),
        **_metrics(((),), "UserErrors"),
    },
    # https://docs.aws.amazon.com/sns/latest/dg/sns-monitoring-using-cloudwatch.html
    "AWS/SNS": _metrics(
        (("TopicName",),),
        """NumberOfMessagesPublished NumberOfNotificationsDelivered NumberOfNotificationsFailed
        PublishSize""",
    ),
    # https://docs.aws.amazon.com/scheduler/latest/UserGuide/monitoring-cloudwatch.html
    "AWS/Scheduler": _metrics(
        ((), ("ScheduleGroup",)),
        """InvocationAttemptCount InvocationDroppedCount InvocationThrottleCount
        InvocationsFailedToBeSentToDeadLetterCount InvocationsSentToDeadLetterCount
        TargetErrorCount TargetErrorThrottledCount""",
    ),
}

# "Ref" or the GetAtt attribute that gives a dimension its value when a resource of this template is
# meant: `Ref` of a queue is its URL and of a topic its ARN, while the metrics carry names.
_DIMENSION_VALUES: Mapping[str, Mapping[str, str]] = {
    "QueueName": {"AWS::SQS::Queue": "QueueName"},
    "FunctionName": {"AWS::Lambda::Function": "Ref"},
    "StateMachineArn": {"AWS::StepFunctions::StateMachine": "Ref"},
    "RuleName": {"AWS::Events::Rule": "Ref"},
    "TableName": {"AWS::DynamoDB::Table": "Ref"},
    "TopicName": {"AWS::SNS::Topic": "TopicName"},
}
_BOUNDS = frozenset({"AllowedPattern", "AllowedValues", "MaxLength", "MaxValue", "MinValue"})
_SECRET = re.compile(r"(Secret|Token|Password|(Api|Routing|Signing|Access)Key)$")


def check_parameters(template: Template) -> list[Finding]:
    """Every parameter stands in one group, is described, bounded, and hidden when it is secret."""
    interface = template.get("Metadata", {}).get("AWS::CloudFormation::Interface", {})
    grouped = [
        name for group in interface.get("ParameterGroups", ()) for name in group["Parameters"]
    ]
    parameters = template.get("Parameters", {})
    return sorted(
        [
            Finding("parameter-group", name, "the console shows it in no group")
            for name in parameters.keys() - set(grouped)
        ]
        + [
            Finding("parameter-group", name, "grouped, but there is no such parameter")
            for name in set(grouped) - parameters.keys()
        ]
        + [
            Finding("parameter-group", name, "stands in two groups")
            for name in {name for name in grouped if grouped.count(name) > 1}
        ]
        + [
            finding
            for name, parameter in parameters.items()
            for finding in _parameter(name, parameter)
        ]
    )


def _parameter(name: str, parameter: Mapping[str, Any]) -> Iterator[Finding]:
    if not str(parameter.get("Description", "")).strip():
        yield Finding("parameter-description", name, "needs a Description")
    # AWS::EC2::VPC::Id and its kin are checked by CloudFormation itself.
    if not parameter.keys() & _BOUNDS and not str(parameter["Type"]).startswith("AWS::EC2"):
        yield Finding("parameter-bound", name, f"needs one of {', '.join(sorted(_BOUNDS))}")
    if _SECRET.search(name) and parameter.get("NoEcho") is not True:
        yield Finding("parameter-secret", name, "needs NoEcho: true")


def check_alarms(
    template: Template, own: Mapping[str, Mapping[str, set[Dimensions]]]
) -> list[Finding]:
    """Compare each alarm of a translated template with the metrics that are really published.

    `own` are the metrics that this project's code publishes, shaped like AWS_METRICS.
    """
    known = {**AWS_METRICS, **own}
    return sorted(
        finding
        for name, alarm in resources(template, "AWS::CloudWatch::Alarm").items()
        for metric in _alarm_metrics(alarm)
        for finding in _alarm_metric(template, name, metric, known)
    )


def _alarm_metrics(alarm: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "MetricName" in alarm:
        return [alarm]
    return [
        query["MetricStat"]["Metric"] for query in alarm.get("Metrics", ()) if "MetricStat" in query
    ]


def _alarm_metric(
    template: Template,
    where: str,
    metric: Mapping[str, Any],
    known: Mapping[str, Mapping[str, set[Dimensions]]],
) -> Iterator[Finding]:
    namespace, name = str(metric.get("Namespace")), str(metric.get("MetricName"))
    dimensions = {item["Name"]: item["Value"] for item in metric.get("Dimensions", ())}
    published = known.get(namespace, {}).get(name)
    if published is None:
        yield Finding("alarm-metric", where, f"nothing publishes {namespace} {name}")
    elif frozenset(dimensions) not in published:
        yield Finding(
            "alarm-dimensions", where, f"{name} is not published by {sorted(dimensions) or 'none'}"
        )
    for dimension, value in dimensions.items():
        yield from _dimension_value(template, where, dimension, value)


def _dimension_value(
    template: Template, where: str, dimension: str, value: Any
) -> Iterator[Finding]:
    if dimension not in _DIMENSION_VALUES or not isinstance(value, Mapping):
        return
    if "Ref" in value:
        target, attribute = value["Ref"], "Ref"
    elif "Fn::GetAtt" in value:
        got = value["Fn::GetAtt"]
        target, attribute = got.split(".", 1) if isinstance(got, str) else as_list(got)
    else:
        return
    kind = template["Resources"].get(target, {}).get("Type")
    if kind is None:
        return  # a parameter: its value is the deployer's
    wanted = _DIMENSION_VALUES[dimension].get(kind)
    if attribute != wanted:
        yield Finding(
            "alarm-dimension-value",
            where,
            f"{attribute} of {target} ({kind}) is no {dimension}, use {wanted or 'another one'}",
        )
