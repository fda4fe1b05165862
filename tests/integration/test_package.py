"""The package as `sam build` makes it: handlers import from it and the runtime's boto3 alone."""

import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
# What the Python 3.13 runtime brings: boto3 with what it needs
# (https://docs.aws.amazon.com/lambda/latest/dg/lambda-python.html#python-sdk-included).
RUNTIME = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six.py", "urllib3")
PACKAGE_LIMIT = 50_000_000  # bytes unzipped; Lambda allows 250 MB, a cold start wants far less


def handlers() -> list[str]:
    return sorted(path.stem for path in (ROOT / "functions").glob("*.py"))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runtime")
    site_packages = Path(boto3.__file__).parent.parent
    for name in RUNTIME:
        (folder / name).symlink_to(site_packages / name)
    return folder


@pytest.mark.parametrize("verb", handlers())
def test_a_handler_imports_from_the_package_alone(built: Path, runtime: Path, verb: str) -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(built)!r}, {str(runtime)!r}]; "
        f"import {verb}; assert callable({verb}.handler)"
    )
    ran = subprocess.run(  # noqa: S603 -- our own interpreter
        [sys.executable, "-I", "-S", "-c", code],
        env={"STACK_NAME": "test", "AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_package_holds_the_contracts_themselves(built: Path) -> None:
    shipped = files(built / "runbooks")

    assert shipped == files(ROOT / "runbooks")
    assert yaml.safe_load(shipped["queue-saturation.yaml"])["id"] == "queue-saturation"
    assert yaml.safe_load(shipped["sample/services/shop.yaml"])["name"]


def test_the_package_stays_small(built: Path) -> None:
    size = sum(path.stat().st_size for path in built.rglob("*") if path.is_file())

    assert size < PACKAGE_LIMIT


def test_the_package_is_built_from_the_lock_file() -> None:
    wanted = subprocess.run(
        ["make", "--silent", "requirements", "REQUIREMENTS=/dev/stdout"],  # noqa: S607 -- the project's own target
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert (ROOT / "functions" / "requirements.txt").read_text("utf-8") == wanted
