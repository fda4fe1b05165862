"""`python -m tools.pages`: write the documents that are generated."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(1, str(ROOT / "functions"))

from tools.pages.documents import documents  # noqa: E402 -- oncall is found by the path above


def main() -> None:
    """Write what has changed."""
    for path, content in documents(ROOT).items():
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != content:
            path.write_text(content, "utf-8")
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")


main()
