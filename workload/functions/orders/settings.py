"""JSON settings in SSM parameters, read at run time with a short cache."""

import json
import time
from collections.abc import Callable
from typing import Any


class UnreadableSettingError(Exception):
    """A parameter could be read but holds no usable value."""


class Setting:
    """One SSM parameter holding a JSON object, or the word `off` for an empty one.

    The cache keeps one execution environment at one GetParameter per `cache_seconds`: the
    default quota is 40 a second per account and Region (Systems Manager quotas).
    """

    def __init__(
        self,
        ssm: Any,
        name: str,
        cache_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ssm = ssm
        self._name = name
        self._cache_seconds = cache_seconds
        self._clock = clock
        self._value: dict[str, Any] = {}
        self._read_at: float | None = None

    def read(self) -> dict[str, Any]:
        """Return the value; `{}` means off.

        Raises UnreadableSettingError on anything but `off` or a JSON object, and botocore's
        ClientError when the parameter cannot be read.
        """
        now = self._clock()
        if self._read_at is None or now - self._read_at >= self._cache_seconds:
            text = self._ssm.get_parameter(Name=self._name)["Parameter"]["Value"]
            self._value = parse(self._name, text)
            self._read_at = now
        return self._value


def parse(name: str, text: str) -> dict[str, Any]:
    """Read a parameter's text: `off`, or a JSON object."""
    if text.strip() == "off":
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UnreadableSettingError(
            f'{name} must be "off" or a JSON object such as {{"state": "on"}}; it holds {text!r}.'
        )
    return value
