"""A clock that tests set."""

from datetime import UTC, datetime, timedelta


class SetClock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 2, 54, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        return self.now.timestamp()

    def forward(self, **by: float) -> None:
        self.now += timedelta(**by)
