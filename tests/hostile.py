"""An adapter that fails in every way a framework can, by the layers of a network; tests register it as `hostile`."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from backproof.adapters import load
from backproof.reference.case import Case
from backproof.reference.trace import Trace


def _eat() -> None:
    np.ones(2**40)


def _orphan() -> None:
    """Kill the process that waits for the answer at those visits, of all processes together, that the file `kills` lists."""
    visits = Path(os.environ["HOSTILE_VISITS"])
    number = len([*visits.glob("visit-*")])
    (visits / f"visit-{number}-{os.getpid()}").touch()
    if str(number) in (visits / "kills").read_text().split():
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)


def _abort() -> None:
    """End the process as a library does whose own check fails: some last words, no exception."""
    os.write(2, b"Check failed: hostile to softplus\n")
    os.abort()


WAYS: dict[str, Callable[[], object]] = {
    "Sigmoid": lambda: time.sleep(600), "Tanh": lambda: os._exit(7), "ReLU": lambda: ctypes.string_at(0), "SiLU": _eat,
    "GELU": lambda: os.kill(os.getpid(), signal.SIGKILL), "Mish": lambda: 1 / 0, "ELU": _orphan, "Softplus": _abort,
}


class Hostile:
    """torch, but for networks that hold a layer of `WAYS`."""

    name = "hostile"

    def run(self, case: Case) -> Trace:
        for layer in case.network.layers:
            WAYS.get(type(layer).__name__, lambda: None)()
        return load("torch").run(case)


adapter = Hostile()
