"""The words of the generated pages; tests/contract sees that the pages are fresh."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.checks import machines
from tools.pages import markdown
from tools.pages.runbook import _asked, _value, placeholders, runbook_page

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "runbooks/queue-saturation.yaml").read_text("utf-8")
MACHINE = machines.load(ROOT / "statemachines")["queue-saturation"]
SCHEMA = json.loads((ROOT / "runbooks/runbook.schema.json").read_text("utf-8"))


def page(old: str = "", new: str = "", *, form: bool = False) -> str:
    assert old in TEXT
    text = TEXT.replace(old, new) if old else TEXT
    return runbook_page(text, yaml.safe_load(text), MACHINE, SCHEMA, form=form)


def test_a_command_that_changes_something_is_copied_alone() -> None:
    written = markdown.instructions(
        [
            "Look first:",
            "aws sqs list-queues",
            "aws sqs get-queue-attributes --queue-url URL",
            "aws sqs purge-queue --queue-url URL",
            "aws sqs delete-queue --queue-url URL",
            "Sorry.",
        ]
    )

    assert written.split("```") == [
        "Look first:\n\n",
        "sh\naws sqs list-queues\naws sqs get-queue-attributes --queue-url URL\n",
        "\n\n",
        "sh\naws sqs purge-queue --queue-url URL\n",
        "\n\n",
        "sh\naws sqs delete-queue --queue-url URL\n",
        "\n\nSorry.",
    ]


def test_text_stays_in_its_cell() -> None:
    assert markdown.table(("a", "b"), [("x | y", "two\nlines")]).splitlines()[2] == (
        "| x \\| y | two lines |"
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("run_seconds", 10800, "3 h"),
        ("drain_seconds", 300, "5 min"),
        ("retry_after_seconds", 45, "45 s"),
        ("calm_periods", 3, "3 periods"),
        ("clear_share", 0.1, "10%"),
        ("max_factor", 5, "5 times"),
        ("clear_messages", 10, "10"),
    ],
)
def test_a_number_has_its_unit(name: str, value: float, said: str) -> None:
    assert _value(name, value) == said


def test_every_state_is_on_the_page() -> None:
    written = page()

    for name in MACHINE["States"]:
        assert f"| {name} |" in written


def test_a_form_is_told_where_there_is_one() -> None:
    assert "Owned by me, `STACK-queue-saturation`" in page(form=True)
    assert "Owned by me" not in page()


def test_a_plan_that_is_asked_about_is_explained() -> None:
    assert dict(_asked("a: does this; b: does that.", ["b"])) == {"b": "Does that."}
    with pytest.raises(ValueError, match="nothing about"):
        list(_asked("a: does this.", ["a", "b"]))


def test_what_is_to_be_replaced_is_explained() -> None:
    steps: list[dict[str, Any]] = yaml.safe_load(TEXT)["steps"]
    asked = {"steps": steps, "document": {"opt_in": []}}

    assert {"BEFORE", "QUEUE", "YOUR_ARN"} <= set(placeholders(asked))
    assert not {"AWS", "SQS", "RUNNING"} & set(placeholders(asked))
    with pytest.raises(ValueError, match="QUEUE_ADDRESS"):
        page("--queue-url URL", "--queue-url QUEUE_ADDRESS")
