"""A headless Chromium: the one of tools/browser, else one on the PATH, else the test is skipped."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

_UNPACKED = Path(__file__).parents[2] / "tools" / "browser" / ".chromium"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = (
    "--no-sandbox",  # CI runs as root, where Chromium has no sandbox
    "--no-zygote",
    "--disable-gpu",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium; skips the test where there is none."""
    path, libraries = _found()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=list(_ARGUMENTS),
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
        )
        yield browser
        browser.close()


def _found() -> tuple[Path, str]:
    """Return where Chromium and the libraries that came with it are."""
    # The package's binary is for Linux on x86-64.
    here = os.uname()
    if (_UNPACKED / "chromium").exists() and (here.sysname, here.machine) == ("Linux", "x86_64"):
        return _UNPACKED / "chromium", str(_UNPACKED / "al2023" / "lib")
    on_path = next(filter(None, map(shutil.which, _NAMES)), None)
    if on_path is None:
        pytest.skip("no Chromium: `make tools/browser/.chromium`, or put one on the PATH")
    return Path(on_path), os.environ.get("LD_LIBRARY_PATH", "")
