"""`python -m local.sam`; what ships to Lambda is imported from functions/."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[2] / "functions"))

from local.sam.commands import main

if __name__ == "__main__":
    main(prog_name="python -m local.sam")
