"""Figures for `make bench`: moving dead letters, ours beside others on one fast local SQS.

Each figure is a slope between two sizes, so that starts and last empty polls do not count. Clients
have one core and the server another; CPU time is user and system of the client's whole process.
Peers come from lock files in tools/peers. They move less than we do: none archives or classifies,
lumigo-cli drops attributes that are no text, and all drop the trace header.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from rich.table import Table

from local.playground import ROOT
from tests.benchmark.fast_sqs import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PEERS = ROOT / "tools" / "peers"
CLIENTS = ROOT / "tests" / "benchmark" / "replay_clients.py"
SMALL, BIG = 5_000, 20_000
RUNS = 3
THREADS = 96
"""Of our worker where calls take their time: as many as its Lambda has."""
LATENCY_SECONDS = 0.02
"""Of a call within a region: SQS Developer Guide, "Increasing throughput using horizontal scaling
and action batching with Amazon SQS"."""
MICROSECONDS, RATE = 80, 8_000
"""Targets on two cores of 2026."""
PLAIN_RULES = [
    {"name": "expired", "when": {"body_matches": r'"error": "(expired|gone)'}, "then": "drop"},
    {
        "name": "strangers",
        "when": {"attributes": {"tenant": "^tenant-9[0-9]$"}, "replays_at_least": 1},
        "then": "quarantine",
    },
]
SCHEMA_RULES = [
    {
        "name": "malformed",
        "when": {"body_schema": {"not": {"required": ["order", "customer"]}}},
        "then": "quarantine",
    }
]
console = Console(width=100)


@dataclass(frozen=True)
class Cost:
    """What a process took."""

    cpu: float
    """Seconds, user and system."""
    seconds: float
    peak: float
    """Mebibytes."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        _pin(running.pid, 1)
        yield running


@pytest.fixture(scope="module")
def far() -> Iterator[Server]:
    with Server(LATENCY_SECONDS) as running:
        _pin(running.pid, 1)
        yield running


def _pin(pid: int, core: int) -> None:
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(pid, {sorted(os.sched_getaffinity(0))[core]})


def _environment(server: Server) -> dict[str, str]:
    return {
        "PATH": f"{ROOT}/.venv/bin:/usr/bin:/bin",
        "PYTHONPATH": f"{ROOT}/functions",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL_SQS": server.url,
        "ARCHIVE_SECONDS": str(server.latency),
        "SKIP_VERSION_CHECK": "1",
        "NODE_NO_WARNINGS": "1",
    }


def _command(kind: str, source: str, target: str, threads: int, folder: Path) -> list[str]:
    if kind == "lumigo-cli":
        tool = str(PEERS / "node_modules" / "lumigo-cli" / "bin" / "run")
        words = ["replay-sqs-dlq", "-d", "dlq", "-n", "main", "-r", "eu-west-1"]
        return ["node", "-r", str(PEERS / "local.cjs"), tool, *words, "-c", str(threads)]
    if kind == "sqs_mover":
        return [str(PEERS / ".venv" / "bin" / "sqsmover"), "-s", "dlq", "-d", "main"]
    words = [sys.executable, str(CLIENTS), kind.partition(",")[0], source, target, str(threads)]
    if kind == "boto3":
        return words
    rules = SCHEMA_RULES if kind.endswith("schema") else PLAIN_RULES
    return [*words, str(folder), json.dumps(rules)]


def _run(server: Server, kind: str, count: int, threads: int, folder: Path) -> Cost:
    """Let a client move so many; all of them must arrive and none must stay."""
    target = server.fill("main", 0)
    source = server.fill("dlq", count)
    for old in folder.iterdir():
        old.unlink()
    began = time.perf_counter()
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(  # noqa: S603 -- fixed words
            _command(kind, source, target, threads, folder),
            env=_environment(server),
            stdout=said,
            stderr=said,
        )
        _pin(process.pid, 0)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    assert process.returncode == 0, (folder / "said").read_text()[-2000:]
    assert (server.length(target), server.length(source)) == (count, 0)
    return Cost(usage.ru_utime + usage.ru_stime, seconds, usage.ru_maxrss / 1024)


def _slopes(
    server: Server, kind: str, sizes: tuple[int, int], threads: int, folder: Path
) -> list[Cost]:
    """Return CPU seconds and seconds a message, in the order in which they were measured."""
    found = []
    for _ in range(RUNS):
        small, big = (_run(server, kind, size, threads, folder) for size in sizes)
        more = sizes[1] - sizes[0]
        found.append(
            Cost((big.cpu - small.cpu) / more, (big.seconds - small.seconds) / more, big.peak)
        )
    return found


def test_cpu_of_a_message(server: Server, tmp_path: Path) -> None:
    table = Table("mover", "threads", "CPU µs a message", "least", "most", "messages/s")
    figures = {}
    rows = [
        ("boto3", 1),
        ("sqs_mover", 1),
        ("lumigo-cli", 10),
        ("ours", 1),
        ("ours, body schema", 1),
        ("ours", THREADS),
    ]
    for kind, threads in rows:
        slopes = _slopes(server, kind, (SMALL, BIG), threads, tmp_path)
        cpus = sorted(one.cpu * 1e6 for one in slopes)
        figures[kind, threads] = median(cpus)
        table.add_row(
            kind,
            str(threads),
            f"{median(cpus):.0f}",
            f"{cpus[0]:.0f}",
            f"{cpus[-1]:.0f}",
            f"{1 / median(one.seconds for one in slopes):,.0f}",
        )
    console.print(table)
    bare, own = figures["boto3", 1], figures["ours", 1]
    console.print(
        f"archived and classified for {own:.0f} µs (target {MICROSECONDS}), "
        f"{bare / own:.1f} times less than the bare boto3 loop; load {os.getloadavg()[0]:.1f}"
    )
    assert own * 3 < bare


def test_rate_of_a_worker(far: Server, tmp_path: Path) -> None:
    table = Table("mover", "threads", "messages/s at 20 ms a call", "CPU µs a message")
    rates = {}
    rows = [
        ("boto3", 1, (200, 700)),
        ("sqs_mover", 1, (200, 700)),
        ("boto3", 32, (2_000, 12_000)),
        ("lumigo-cli", 10, (1_000, 5_000)),
        ("ours", THREADS, (60_000, 180_000)),
    ]
    for kind, threads, sizes in rows:
        slopes = _slopes(far, kind, sizes, threads, tmp_path)
        rates[kind, threads] = 1 / median(one.seconds for one in slopes)
        table.add_row(
            kind,
            str(threads),
            f"{rates[kind, threads]:,.0f}",
            f"{median(one.cpu for one in slopes) * 1e6:.0f}",
        )
    console.print(table)
    console.print(f"target {RATE:,}; load {os.getloadavg()[0]:.1f}")
    assert rates["ours", THREADS] > 1.5 * rates["boto3", 32]


def test_memory_is_flat(server: Server, tmp_path: Path) -> None:
    peaks = {count: _run(server, "ours", count, 1, tmp_path).peak for count in (BIG, 10 * BIG)}
    # A chunk in each thread's hand is what memory holds; with fewer letters it would not be full.
    full = _run(server, "ours", 10 * BIG, THREADS, tmp_path).peak
    console.print(
        f"\npeak memory: {peaks[BIG]:.0f} MiB at {BIG:,} letters, {peaks[10 * BIG]:.0f} MiB at "
        f"{10 * BIG:,}; with {THREADS} threads {full:.0f} MiB"
    )
    assert peaks[10 * BIG] < 1.1 * peaks[BIG]
