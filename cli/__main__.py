"""`runbook` and `python -m cli`; what ships to Lambda is imported from functions/."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parent.parent / "functions"))

from cli.app import main as commands


def main() -> None:
    """Run the command line."""
    commands(prog_name="runbook", complete_var="_RUNBOOK_COMPLETE")


if __name__ == "__main__":
    main()
