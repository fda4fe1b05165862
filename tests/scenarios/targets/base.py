"""What every kind of target can do for a story."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from oncall.incident import Change
from tests.scenarios.world import Metric, World

OPT_IN: Mapping[str, str] = {"runbook-automation": "enabled"}

type Json = dict[str, Any]


@dataclass
class Target(ABC):
    """One target of a story."""

    KIND: ClassVar[str]
    """Its name in the stories' schema."""
    GIVEN: ClassVar[Mapping[str, Any]]
    """What is given where a story says nothing else."""
    ALARM: ClassVar[str]
    """How an alarm on it is called."""
    THRESHOLD: ClassVar[float]

    world: World
    name: str
    arn: str

    @classmethod
    @abstractmethod
    def make(cls, world: World, name: str, given: Mapping[str, Any]) -> Self:
        """Create a target of the story's own, quickly."""

    @classmethod
    def pilot(cls, world: World) -> Self:
        """Return the pilot's, whose load, work and metrics are real."""
        raise NotImplementedError(f"{world}: no story is about a {cls.KIND} of the pilot's")

    @abstractmethod
    def placeholders(self) -> Mapping[str, str]:
        """Return what ``{name}`` and the like stand for in a story."""

    @abstractmethod
    def settings(self) -> Json:
        """Read every setting that a runbook may change."""

    @abstractmethod
    def change(self, setting: str, value: Any) -> None:
        """Change one setting as somebody else would."""

    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """Return what a picture speaks of, by the picture's keys."""

    def seed(self, picture: Mapping[str, Any]) -> None:
        """Let the metrics say what the picture says, for a minute back and on."""
        for key, metric in self.metrics().items():
            self.world.seed(metric, picture[key])

    @abstractmethod
    def alarm(self, dimension: str) -> Json:
        """Return the metric of an alarm on the target of this name."""

    @property
    @abstractmethod
    def beside(self) -> str:
        """A second name of the alarm's dimension."""

    @abstractmethod
    def untag(self, what: str) -> None:
        """Take the opt-in off, as its owner would."""

    @abstractmethod
    def untag_once_read(self, what: str, role: str) -> None:
        """Take the opt-in off right after this role has read the tags."""

    def left_by_an_earlier_run(self, given: Mapping[str, Any]) -> Change | None:
        """Return the change that an earlier run has left here, if one has."""
        del given
        return None

    def secrets(self) -> Sequence[str]:
        """Return texts that may stand in no message, page or log."""
        return ()

    def rest(self) -> None:  # noqa: B027 -- most targets do nothing by themselves
        """Stop what the target does by itself; called however the story has ended."""

    @abstractmethod
    def forget(self) -> None:
        """Delete what was made for the story, so that it costs nothing any more."""
