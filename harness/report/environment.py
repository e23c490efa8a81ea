"""What a run ran on: versions, processor and threads, so that two reports can be compared."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from backproof.adapters.framework import all_frameworks, framework_version, installed_version

__all__ = ["environment", "framework_version"]


def environment() -> dict[str, str]:
    """Return versions of Python and the packages that compute, the processor, its cores and the threads used."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "cpu": _processor(), "cores": str(os.cpu_count())}
    packages = dict.fromkeys(("backproof", "numpy", "scipy", *(name for one in all_frameworks() for name in one.packages), "ml_dtypes"))
    found |= {name: installed for name in packages if (installed := installed_version(name))}
    for framework in all_frameworks():
        found |= framework.facts()
    if threads := os.environ.get("OMP_NUM_THREADS"):
        found["OMP_NUM_THREADS"] = threads
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
