"""The embedded CloudWatch: what MiniStack's CloudWatch lacks, after AWS's documentation.

Service metrics (``publisher``), alarm evaluation, events and actions (``evaluation``, ``alarms``),
GetMetricData with metric math (``queries``, ``expressions``, ``api``). ``install`` patches the
MiniStack that runs in this process and starts the one thread that ticks.

One deliberate departure from AWS: the resolution. AWS publishes service metrics and evaluates
standard alarms once a minute; here both happen every ``resolution_seconds``, so that with 1 a story
that takes a quarter of an hour on AWS takes seconds. An alarm's Period is honoured as given, so
periods of 1, 5, 10 or 30 seconds are allowed for AWS/ namespaces as well.
"""

import logging
import threading
import time
from dataclasses import dataclass

from local.aws.cloudwatch import alarms, api, change_calendar, cloudformation, store
from local.aws.cloudwatch.patching import Patches
from local.aws.cloudwatch.publisher import Publisher
from local.aws.cloudwatch.store import put_metric_history

__all__ = ["CloudWatch", "Settings", "install", "put_metric_history"]

logger = logging.getLogger(__name__)

_HOUSEKEEPING_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Settings:
    """How fine the embedded CloudWatch ticks; 60 is what AWS does."""

    resolution_seconds: int = 60

    def __post_init__(self) -> None:
        if self.resolution_seconds < 1:
            raise ValueError(
                f"resolution_seconds must be at least 1, not {self.resolution_seconds}: "
                "for example 1."
            )


class CloudWatch:
    """The bridge, and an extension of ``EmbeddedAws``.

    ``EmbeddedAws(extensions=(CloudWatch(Settings(resolution_seconds=1)),))``
    """

    def __init__(self, settings: Settings) -> None:
        self.resolution_seconds = settings.resolution_seconds
        self.publisher = Publisher()
        self._patches = Patches()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def install(self, _aws: object = None) -> None:
        """Patch the MiniStack of this process and start ticking; call after it is up."""
        previous_states = alarms.PreviousStates()
        api.install(self._patches, previous_states)
        cloudformation.install(self._patches)
        change_calendar.install(self._patches)
        self.publisher.install(self._patches)
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="cloudwatch", daemon=True)
        self._thread.start()

    def uninstall(self) -> None:
        """Stop the thread and put MiniStack's own functions back. Calling twice is harmless."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
            self._thread = None
        self._patches.undo()
        change_calendar.forget()

    stop = uninstall

    def leave_alone(self, arn: str) -> None:
        """Publish nothing about this queue or function, so that a seeded history stays as it is."""
        self.publisher.leave_alone(arn)

    def resume(self, arn: str) -> None:
        """Undo ``leave_alone``."""
        self.publisher.resume(arn)

    def tick(self, boundary: int) -> None:
        """Publish the period that ends at ``boundary`` and evaluate every alarm there."""
        self.publisher.publish(boundary - self.resolution_seconds, float(boundary))
        alarms.evaluate_all(boundary)

    def _run(self) -> None:
        step = self.resolution_seconds
        cleaned = time.monotonic()
        while True:
            boundary = (int(store.now()) // step + 1) * step
            if self._stopping.wait(max(0.0, boundary - store.now())):
                return
            try:
                self.tick(boundary)
                if time.monotonic() - cleaned > _HOUSEKEEPING_SECONDS:
                    cleaned = time.monotonic()
                    store.roll_up_all(store.now())
            except Exception:
                # A tick that fails must not silence every later one.
                logger.exception("The embedded CloudWatch missed the tick at %s", boundary)


def install(settings: Settings) -> CloudWatch:
    """Install it without a launcher; return the handle (``stop()``, ``leave_alone(arn)``)."""
    cloudwatch = CloudWatch(settings)
    cloudwatch.install()
    return cloudwatch
