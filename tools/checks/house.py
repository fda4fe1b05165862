"""Rules for every tracked text file: no banners, no machine's paths, no secrets."""

import re
import subprocess
from pathlib import Path

from tools.checks.finding import Finding

_PATTERNS = {
    "banner": re.compile(r"^\s*(?:#|//)\s*([-=#*~_])\1{4,}", re.MULTILINE),
    "machine-path": re.compile(r"(?<![\w.}/:-])/(?:home|root|Users|work|mnt)/[\w.-]+"),
    "secret": re.compile(
        r"\b(?:AKIA|ASIA)(?!IOSFODNN7EXAMPLE)[A-Z0-9]{16}\b"
        r"|\bxox[abprs]-\d{6,}-[\w-]+"
        r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
        r"|\bgh[pousr]_[A-Za-z0-9]{36}\b"
        r"|hooks\.slack\.com/services/T\w+/B\w+/\w+"
    ),
    # What is locked must come from where everybody can get it.
    "registry": re.compile(
        r'(?:"resolved": "|url = "|registry = ")https?://'
        r"(?!pypi\.org/|files\.pythonhosted\.org/|registry\.npmjs\.org/)[^\"]+"
    ),
}


def check_text(where: str, text: str) -> list[Finding]:
    """Return what must not stand in a tracked file, with the line it stands on."""
    return sorted(
        Finding(rule, f"{where}:{text.count(chr(10), 0, match.start(0)) + 1}", match[0].strip())
        for rule, pattern in _PATTERNS.items()
        for match in pattern.finditer(text)
    )


def tracked(root: Path) -> list[Path]:
    """Return the files that git tracks. Raises CalledProcessError outside a repository."""
    done = subprocess.run(  # noqa: S603 -- fixed arguments, no shell
        ["git", "-C", root, "ls-files", "-z"],  # noqa: S607 -- git from the caller's PATH
        capture_output=True,
        text=True,
        check=True,
    )
    return [root / name for name in done.stdout.split("\0") if name]
