"""All benchmarks in turn: `python -m benchmarks [--write]`; each also runs by itself, with options of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAMES = ("proof", "proof_heads", "layers", "conventions", "checkers", "candidates", "diagnoses", "certificates", "overhead", "false_alarms",
         "page")
PAGES = NAMES[:4]  # which take no options: each writes a page of its own


def main() -> None:
    """Run every benchmark with the options given; end with the first status that is not 0."""
    for name in NAMES:
        options = [] if name in PAGES else sys.argv[1:]
        print(f"# {name}", flush=True)
        status = subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py")), *options], check=False).returncode
        if status:
            raise SystemExit(status)


if __name__ == "__main__":
    main()
