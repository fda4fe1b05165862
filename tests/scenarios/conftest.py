from collections.abc import Iterator

import pytest

from tests.scenarios.world import Worlds


@pytest.fixture(scope="session")
def worlds() -> Iterator[Worlds]:
    with Worlds() as worlds:
        yield worlds
