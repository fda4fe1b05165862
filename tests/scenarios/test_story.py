"""What a story may say depends on its runbook; a typing error fails before anything is played."""

from pathlib import Path

import pytest
import yaml

from tests.scenarios import story
from tests.scenarios.targets import KINDS


def _read(folder: Path, runbook: str, given: str, step: str = "faults_end: true") -> story.Story:
    path = folder / runbook / "told.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"title: t\nwhy: w\ngiven: {given}\nwhen: [{{ {step} }}]\nthen: {{}}\n")
    return story.read(path)


def test_fills_in_what_is_not_said_of_a_target(tmp_path: Path) -> None:
    told = _read(tmp_path, "lambda-throttles", "{ function: { caps: [5] } }")
    assert told.given["function"]["caps"] == [5]
    assert told.given["function"]["reserved"] == 10
    assert told.given["metrics"]["throttles"] == 20


@pytest.mark.parametrize(
    ("runbook", "given", "step"),
    [
        ("queue-saturation", "{ mesages: 3 }", "faults_end: true"),
        ("queue-saturation", "{ function: {} }", "faults_end: true"),
        ("queue-saturation", "{}", "someone_sets: { provisioned: 3 }"),
        ("queue-saturation", "{}", "metrics: { like: capped, account_throttles: 3 }"),
        ("lambda-throttles", "{ consumer: {} }", "faults_end: true"),
        ("lambda-throttles", "{ others: [{ name: function }] }", "faults_end: true"),
        ("lambda-throttles", "{}", "queue: drains"),
        ("lambda-throttles", "{}", "someone_sets: { reports.capacity: 3 }"),
        ("lambda-throttles", "{ metrics: surge }", "faults_end: true"),
        ("dlq-replay", "{ messages: 3 }", "faults_end: true"),
        ("dlq-replay", "{ letters: [{ count: 1, kind: queues }] }", "faults_end: true"),
        ("dlq-replay", "{}", "consumer: { fails: 1 }"),
        ("queue-saturation", "{}", "wait: { replayed: 3 }"),
        ("no-such-runbook", "{}", "faults_end: true"),
    ],
)
def test_refuses_what_it_does_not_know(tmp_path: Path, runbook: str, given: str, step: str) -> None:
    with pytest.raises(story.BadStoryError):
        _read(tmp_path, runbook, given, step)


@pytest.mark.parametrize("runbook", KINDS)
def test_every_picture_says_the_same_things(runbook: str) -> None:
    path = Path(__file__).parent / "pictures" / f"{runbook}.yaml"
    pictures = yaml.safe_load(path.read_text("utf-8"))
    usual = KINDS[runbook].GIVEN.get("metrics", "capped")
    assert {usual, "silent"} <= set(pictures)
    for name in pictures:
        assert pictures[name].keys() == pictures[usual].keys(), name
