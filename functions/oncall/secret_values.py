"""Secrets of the channels, read from Secrets Manager and kept for five minutes."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from oncall.services import Services

_KEEP = timedelta(minutes=5)


class SecretValues:
    """Reads JSON secrets; a rotated one is seen within five minutes."""

    def __init__(self, aws: Services) -> None:
        self._aws = aws
        self._read: dict[str, tuple[datetime, Mapping[str, str]]] = {}

    def get(self, arn: str) -> Mapping[str, str]:
        """Return a secret's fields. Raises ``ClientError``, or ``ValueError`` if it is not JSON."""
        now = self._aws.clock()
        kept = self._read.get(arn)
        if kept and kept[0] > now - _KEEP:
            return kept[1]
        answer = self._aws.client("secretsmanager").get_secret_value(SecretId=arn)
        values = json.loads(answer["SecretString"])
        if not isinstance(values, dict):
            raise ValueError(f"The secret {arn} is no JSON object.")  # noqa: TRY004 -- bad content
        self._read[arn] = (now, values)
        return values
