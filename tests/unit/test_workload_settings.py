from typing import Any

import pytest

from workload.functions.orders.settings import Setting, UnreadableSettingError


class Parameters:
    value = "off"

    def get_parameter(self, *, Name: str) -> dict[str, Any]:  # noqa: N803 -- boto3's names
        return {"Parameter": {"Name": Name, "Value": self.value}}


def test_a_value_is_read_again_only_after_the_cache_time() -> None:
    parameters, now = Parameters(), [0.0]
    setting = Setting(parameters, "/orders/downstream", 5, clock=lambda: now[0])
    assert setting.read() == {}
    parameters.value = '{"latency_ms": 10}'

    now[0] = 4.9
    assert setting.read() == {}
    now[0] = 5.0
    assert setting.read() == {"latency_ms": 10}


@pytest.mark.parametrize("value", ["on", "[1]", "{", '"off"'])
def test_an_unreadable_value_names_the_parameter_and_an_example(value: str) -> None:
    parameters = Parameters()
    parameters.value = value

    with pytest.raises(UnreadableSettingError, match=r'/orders/downstream must be "off" or.*"on"'):
        Setting(parameters, "/orders/downstream", 5).read()
