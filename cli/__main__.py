"""`python -m cli`; what ships to Lambda is imported from functions/."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parent.parent / "functions"))

from cli.app import main

if __name__ == "__main__":
    main(prog_name="runbook")
