"""A story: one YAML file that an on-call engineer can read, checked against its schema."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

HERE = Path(__file__).parent
STORIES = sorted(path for path in HERE.glob("*/*.yaml"))
_GIVEN: Mapping[str, Any] = {
    "settings": {},
    "messages": 200,
    "metrics": "capped",
    "opted_in": "enabled",
    "back_pressure": "off",
    "consumer": {},
    "waits": 0.1,
}
_CONSUMER: Mapping[str, Any] = {
    "cap": 2,
    "reserved": None,
    "enabled": True,
    "mappings": 1,
    "function_opted_in": True,
    "mapping_opted_in": True,
}


class BadStoryError(ValueError):
    """A story's file is not as its schema says; the message names file, place and what is wrong."""


@dataclass(frozen=True)
class Story:
    """One story as its file tells it, with the defaults filled in."""

    name: str
    title: str
    given: Mapping[str, Any]
    when: tuple[tuple[str, Any], ...]
    """Steps in order: what is done and with what."""
    then: Mapping[str, Any]


def read(path: Path) -> Story:
    """Read a story. Raises BadStoryError."""
    document = yaml.safe_load(path.read_text("utf-8"))
    for error in sorted(_schema().iter_errors(document), key=lambda one: str(one.path)):
        place = ".".join(str(part) for part in error.absolute_path) or "the story"
        raise BadStoryError(f"{path.name}: {place}: {error.message}")
    given = {**_GIVEN, **document.get("given", {})}
    given["consumer"] = {**_CONSUMER, **given["consumer"]}
    given["metrics"] = picture(given["metrics"])
    return Story(
        name=path.stem,
        title=document["title"],
        given=given,
        when=tuple(next(iter(step.items())) for step in document["when"]),
        then=document["then"],
    )


def picture(given: Any) -> Mapping[str, Any]:
    """Return a picture by its name, or one with single values replaced (``like`` names it)."""
    pictures = yaml.safe_load((HERE / "pictures.yaml").read_text("utf-8"))
    changes = {"like": given} if isinstance(given, str) else dict(given)
    name = changes.pop("like")
    if name not in pictures:
        raise BadStoryError(f"metrics: there is no picture {name!r}, but {', '.join(pictures)}")
    return {**pictures[name], **changes}


def _schema() -> Draft202012Validator:
    return Draft202012Validator(yaml.safe_load((HERE / "story.schema.yaml").read_text("utf-8")))
