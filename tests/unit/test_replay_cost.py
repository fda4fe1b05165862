"""Every figure of docs/replay-cost.md follows from the prices and assumptions that it states."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from samtranslator.yaml_helper import yaml_parse

from oncall import archive, contract, mover

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "replay-cost.md").read_text(encoding="utf-8")
CHUNK_BYTES = 64 * 1024


def _rows(title: str) -> list[list[str]]:
    """Return the cells of a section's table without its head; "" is what comes before sections."""
    section = dict(
        re.findall(r"^(?:## (.*)\n|\A.*\n)((?:(?!^## ).*\n?)*)", DOCUMENT, re.MULTILINE)
    )[title]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


FIGURES = {row[0]: row[1:] for row in _rows("")}
PRICES = {row[0]: float(row[1]) for row in _rows("Prices")}
GIVEN = {row[0]: float(row[1].replace(",", "")) for row in _rows("Assumptions")}
LETTERS = GIVEN["letters"]
CALLS = LETTERS / GIVEN["letters in a call"]


@dataclass(frozen=True)
class Bill:
    seconds: float | None = None
    sqs: float = 0
    functions: float = 0
    workflow: float = 0
    s3: float = 0

    def cells(self) -> list[str]:
        parts = (self.sqs, self.functions, self.workflow, self.s3)
        total = sum(round(part, 2) for part in parts)
        return [_time(self.seconds), *(f"${part:.2f}" for part in (*parts, total))]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "any"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _requests(letter_bytes: float) -> float:
    """Return the price of a receive, a send and a delete for each ten letters."""
    of_a_call = math.ceil(letter_bytes * GIVEN["letters in a call"] / CHUNK_BYTES)
    return CALLS * (2 * of_a_call + 1) * PRICES["SQS request, standard queue, each 64 KB"]


def _lambda(seconds: float, megabytes: float, requests: float) -> float:
    compute = seconds * megabytes / 1024 * PRICES["Lambda GB-second, x86"]
    return compute + requests * PRICES["Lambda request"]


def _archive(letters_in_an_object: float) -> float:
    """Return the price of writing, reading once and keeping an archive and its ledger."""
    objects = 2 * LETTERS / letters_in_an_object
    kept = LETTERS * GIVEN["archived bytes of a letter"] / 1e9 * GIVEN["months of the archive"]
    return objects * (PRICES["S3 PUT"] + PRICES["S3 GET"]) + kept * PRICES["S3 GB-month, Standard"]


def _ours(workers: float, rate: float) -> Bill:
    seconds = LETTERS / rate
    rounds = math.ceil(seconds / GIVEN["seconds of a round"])
    transitions = GIVEN["transitions of a run"] + rounds * (
        GIVEN["transitions of a round"] + workers
    )
    return Bill(
        seconds=seconds,
        sqs=_requests(GIVEN["bytes of a letter"]),
        functions=_lambda(seconds * workers, GIVEN["MB of a worker"], rounds * workers),
        workflow=transitions * PRICES["Step Functions transition, Standard"],
        s3=_archive(GIVEN["letters in a chunk"]),
    )


NATIVE_SECONDS = LETTERS / GIVEN["letters a second of the native move"]
BILLS = {
    "our mover, 1 worker": _ours(1, GIVEN["letters a second of a worker"]),
    "our mover, 4 workers": _ours(4, 4 * GIVEN["letters a second of a worker"]),
    "the runbook at its `max_rate`, 4 workers": _ours(
        GIVEN["workers of the runbook"], GIVEN["letters a second of the runbook"]
    ),
    "`StartMessageMoveTask` at 500/s, billed by full batches": Bill(
        NATIVE_SECONDS, _requests(GIVEN["bytes of a letter"])
    ),
    "the same, billed by the message": Bill(
        NATIVE_SECONDS, LETTERS * 3 * PRICES["SQS request, standard queue, each 64 KB"]
    ),
    "Distributed Map, one Standard child for ten letters": Bill(
        sqs=_requests(GIVEN["bytes of a letter"]),
        functions=_lambda(CALLS * GIVEN["seconds of a child"], GIVEN["MB of a child"], CALLS),
        workflow=CALLS * 2 * PRICES["Step Functions transition, Standard"],
    ),
}


@pytest.mark.parametrize("name", BILLS)
def test_a_row_follows_from_what_is_stated(name: str) -> None:
    assert FIGURES[name] == BILLS[name].cells()


def test_every_row_is_computed() -> None:
    assert set(FIGURES) == set(BILLS)


@pytest.mark.parametrize(
    ("sentence", "price"),
    [
        ("letters of 20 KB make it four for each receive and send, $3.60", _requests(20 * 1024)),
        ("Written one by one it would be $100", LETTERS * 2 * PRICES["S3 PUT"]),
    ],
)
def test_a_price_in_the_text_is_right(sentence: str, price: float) -> None:
    assert sentence in " ".join(DOCUMENT.split())
    assert float(sentence.rsplit("$", 1)[-1]) == pytest.approx(price)


def test_ten_million_letters_are_accounted_for_in_the_time_that_a_function_has() -> None:
    reads = 2 * LETTERS / GIVEN["letters in a chunk"]
    reading = reads * GIVEN["milliseconds of a read of the archive"] / 1000
    counting = LETTERS * GIVEN["microseconds of accounting for a letter"] / 1e6
    seconds = reading / GIVEN["reads at a time"] + counting
    assert f"takes {_time(seconds)}" in " ".join(DOCUMENT.split())
    template = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))
    given = template["Resources"]["ReconcileReplayFunction"]["Properties"]["Timeout"]
    assert 2 * seconds < given
    assert f"of the {given // 60} that its function has" in " ".join(DOCUMENT.split())


def test_what_is_assumed_of_the_product_is_so() -> None:
    found = contract.load("dlq-replay")
    assert GIVEN["letters a second of the runbook"] == found.limits["max_rate"]
    assert GIVEN["workers of the runbook"] == found.limits["workers"]
    assert GIVEN["seconds of a round"] == 60 * found.limits["round_periods"]
    assert GIVEN["letters in a chunk"] == mover.Order.__dataclass_fields__["chunk_letters"].default
    assert GIVEN["reads at a time"] == archive._READERS
    template = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))
    mover_function = template["Resources"]["MoveDeadLettersFunction"]["Properties"]
    assert GIVEN["MB of a worker"] == mover_function["MemorySize"]
