"""What a run ran on: versions, processor and threads, so that two reports can be compared."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["environment", "framework_version"]

PACKAGES = ("backproof", "numpy", "scipy", "torch", "jax", "jaxlib", "ml_dtypes")


def environment() -> dict[str, str]:
    """Return versions of Python and the packages that compute, the processor, its cores and the threads used."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "cpu": _processor(), "cores": str(os.cpu_count())}
    found |= {name: installed for name in PACKAGES if (installed := framework_version(name))}
    if "torch" in sys.modules:
        found["torch threads"] = str(sys.modules["torch"].get_num_threads())
    if threads := os.environ.get("OMP_NUM_THREADS"):
        found["OMP_NUM_THREADS"] = threads
    return found


def framework_version(name: str) -> str:
    """Return the installed version of a distribution, or an empty string."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
