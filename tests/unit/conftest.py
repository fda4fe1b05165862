import pytest
from hypothesis import settings
from pytest_socket import disable_socket, enable_socket

# How long an example takes says more about the machine than about the code.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


@pytest.hookimpl(trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """No unit test may reach for the network, not even for this machine's."""
    if item.path.parent.name == "unit":
        disable_socket(allow_unix_socket=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    enable_socket()
