"""Credentials of many function environments that start at the same moment."""

import sys
import threading
import time
from collections.abc import Iterator

import pytest
from ministack.services import sts

from local.aws.bridges import sessions

_THREADS = 8
_STANDING = 2000


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Let threads take turns as often as they can, so that a race is met in milliseconds."""
    before, known = sys.getswitchinterval(), dict(sts._sessions)
    sys.setswitchinterval(1e-6)
    expires = time.time() + 900
    sts._sessions.update({f"standing-{n}": {"Expiration": expires} for n in range(_STANDING)})
    yield
    sys.setswitchinterval(before)
    sts._sessions.clear()
    sts._sessions.update(known)


def _register_at_once(seconds: float) -> list[Exception]:
    failures: list[Exception] = []
    ends = time.monotonic() + seconds

    def register(thread: int) -> None:
        number = 0
        while time.monotonic() < ends and not failures:
            number += 1
            lifetime = 900 if number % 2 else -1
            try:
                sts.register_session(f"{thread}-{number}", {"Expiration": time.time() + lifetime})
            except RuntimeError as error:
                failures.append(error)

    threads = [threading.Thread(target=register, args=(n,)) for n in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


@pytest.mark.usefixtures("quick_switches")
def test_sessions_are_registered_by_many_threads_at_once() -> None:
    sessions.BRIDGE.on()
    assert _register_at_once(1.5) == []
    expired = [
        key
        for key, one in sts._sessions.items()
        if one.get("Expiration", time.time()) < time.time()
    ]
    assert len(expired) <= _THREADS, "expired sessions are dropped"


@pytest.mark.usefixtures("quick_switches")
def test_the_bridge_is_needed() -> None:
    with sessions.BRIDGE.off():
        failures = _register_at_once(10)
    assert [str(one) for one in failures[:1]] == ["dictionary changed size during iteration"]
