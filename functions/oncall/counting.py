"""Metrics of the automation's own: namespace ``Runbooks``, by CloudWatch's embedded format."""

from __future__ import annotations

from aws_lambda_powertools.metrics import MetricUnit, single_metric


def count(
    name: str, value: float = 1, unit: MetricUnit = MetricUnit.Count, /, **dimensions: str
) -> None:
    """Publish one value.

    Powertools adds the dimension ``service`` (the stack, from ``POWERTOOLS_SERVICE_NAME``).
    """
    with single_metric(name=name, unit=unit, value=value, namespace="Runbooks") as counted:
        for key, said in dimensions.items():
            counted.add_dimension(key, said)
