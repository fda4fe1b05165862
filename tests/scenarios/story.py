"""A story: one YAML file that an on-call engineer can read, checked against its schema."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from tests.scenarios.targets import KINDS

HERE = Path(__file__).parent
_PICTURES = HERE / "pictures"
STORIES = sorted(path for path in HERE.glob("*/*.yaml") if path.parent != _PICTURES)
_GIVEN: Mapping[str, Any] = {"settings": {}, "metrics": "capped", "waits": 0.1}
"""What is given where neither a story nor its kind of target says otherwise."""


class BadStoryError(ValueError):
    """A story's file is not as its schema says; the message names file, place and what is wrong."""


@dataclass(frozen=True)
class Story:
    """One story as its file tells it, with the defaults filled in."""

    runbook: str
    name: str
    title: str
    given: Mapping[str, Any]
    when: tuple[tuple[str, Any], ...]
    """Steps in order: what is done and with what."""
    then: Mapping[str, Any]


def story_id(path: Path) -> str:
    """Return what a story is called: ``queue-saturation/resolved``."""
    return f"{path.parent.name}/{path.stem}"


def read(path: Path) -> Story:
    """Read a story. Raises BadStoryError."""
    runbook = path.parent.name
    kind = KINDS.get(runbook)
    if kind is None:
        raise BadStoryError(
            f"{path}: {runbook} is no runbook that stories know: {', '.join(KINDS)}"
        )
    document = yaml.safe_load(path.read_text("utf-8"))
    for error in sorted(_schema(kind.KIND).iter_errors(document), key=lambda one: str(one.path)):
        place = ".".join(str(part) for part in error.absolute_path) or "the story"
        raise BadStoryError(f"{story_id(path)}: {place}: {error.message}")
    told = document.get("given", {})
    given = {**_GIVEN, **kind.GIVEN, **told}
    for key, default in kind.GIVEN.items():
        if isinstance(default, Mapping):
            given[key] = {**default, **told.get(key, {})}
    given["metrics"] = picture(runbook, given["metrics"])
    return Story(
        runbook=runbook,
        name=path.stem,
        title=document["title"],
        given=given,
        when=tuple(next(iter(step.items())) for step in document["when"]),
        then=document["then"],
    )


def picture(runbook: str, given: Any) -> Mapping[str, Any]:
    """Return a picture by its name, or one with single values replaced (``like`` names it)."""
    pictures = yaml.safe_load((_PICTURES / f"{runbook}.yaml").read_text("utf-8"))
    changes = {"like": given} if isinstance(given, str) else dict(given)
    name = changes.pop("like")
    if name not in pictures:
        raise BadStoryError(f"metrics: there is no picture {name!r}, but {', '.join(pictures)}")
    return {**pictures[name], **changes}


@cache
def _schema(kind: str) -> Draft202012Validator:
    """Return the stories' schema with what stories about this kind of target may say besides."""
    schema = yaml.safe_load((HERE / "story.schema.yaml").read_text("utf-8"))
    for name, own in schema.pop("kinds")[kind].items():
        shared = schema["$defs"].get(name, {})
        both = {**shared.get("properties", {}), **own.get("properties", {})}
        schema["$defs"][name] = {**shared, **own, **({"properties": both} if both else {})}
    return Draft202012Validator(schema)
