"""What `make local` makes of names, events, variables and answers."""

from pathlib import Path

import pytest

from local.sam import steps
from oncall.errors import BadInput

ROOT = Path(__file__).parents[2]
STEPS = steps.read(ROOT / "template.yaml")


@pytest.mark.parametrize("name", ["InspectQueueFunction", "inspect_queue", "inspect-queue"])
def test_a_function_is_found_by_any_of_its_names(name: str) -> None:
    found = steps.find(STEPS, name)
    assert (found.id, found.verb, found.code) == (
        "InspectQueueFunction",
        "inspect_queue",
        "functions/",
    )


@pytest.mark.parametrize("name", ["", "inspect_queues"])
def test_another_name_is_answered_with_those_there_are(name: str) -> None:
    with pytest.raises(BadInput, match=r"there are open_incident, .* FUNCTION=open_incident\."):
        steps.find(STEPS, name)


def test_an_event_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for path in (broken, tmp_path / "missing.json"):
        with pytest.raises(BadInput, match=r"EVENT: .*EVENT=events/inspect_queue\.json\."):
            steps.read_event(path)


def test_variables_are_the_deployed_ones_with_the_endpoint_over_them() -> None:
    deployed = {"Environment": {"Variables": {"STACK_NAME": "runbooks", "AWS_ENDPOINT_URL": ""}}}
    assert steps.variables(deployed, "http://172.17.0.1:4566") == {
        "STACK_NAME": "runbooks",
        "AWS_ENDPOINT_URL": "http://172.17.0.1:4566",
    }
    assert steps.variables(deployed, "")["AWS_ENDPOINT_URL"] == ""


@pytest.mark.parametrize("answer", ['{"facts": {}}', "{}", "[]", '"done"', '{"statusCode": 401}'])
def test_an_answer_is_good(answer: str) -> None:
    assert steps.failure(answer) == ""


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "no answer"),
        (" \n", "no answer"),
        ("null", "no answer"),
        ("2026-01-31T03:02:11Z Task timed out after 2.00 seconds", "Task timed out"),
        ('{"errorType": "BadInput", "errorMessage": "queue: it is missing."}', "BadInput: queue"),
    ],
)
def test_an_answer_is_a_failure(answer: str, why: str) -> None:
    assert why in steps.failure(answer)
