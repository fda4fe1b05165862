import itertools
from collections.abc import Iterator

import pytest

from local.aws import AwsAccount, EmbeddedAws

_accounts = itertools.count(100_000_000_001)


@pytest.fixture(scope="session")
def embedded_aws() -> Iterator[EmbeddedAws]:
    with EmbeddedAws() as aws:
        yield aws


@pytest.fixture
def aws(embedded_aws: EmbeddedAws) -> AwsAccount:
    """An account of the test's own, so that tests cannot meet."""
    return embedded_aws.for_account(str(next(_accounts)))
