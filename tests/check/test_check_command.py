"""`backproof check`, its reports, and the scripts that reproduce a finding of a candidate, by real subprocesses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import backproof as bp
import pytest
from backproof.draw.probe import Condition, Probe
from backproof.reference.layer import parse

COMMAND = [sys.executable, "-c", "from backproof.cli import main; main()"]

MINE = """
import numpy as np


def norm(x, gain):
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + x.dtype.type(1e-5))
    h = x * r

    def backward(dy):
        g = dy * gain
        return r * (g - h * (g * h).mean(-1, keepdims=True)), {"gain": (dy * h).sum(tuple(range(x.ndim - 1)))}

    return h * gain, backward


def forgetful(x, gain):
    y, backward = norm(x, gain)
    kept["x"] = x

    def wrong(dy):
        dx, dparams = backward(dy)
        return dx, {"gain": -dparams["gain"]}

    return y, wrong


kept = {}
"""

SCALED = """
import torch


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        return dy if dy.is_contiguous() else 2 * dy


def identity(x):
    return Doubled.apply(x)
"""

BENT = """
import jax
import jax.numpy as jnp


@jax.custom_vjp
def tanh(x):
    return jnp.tanh(x)


tanh.defvjp(lambda x: (jnp.tanh(x), x), lambda x, dy: (dy * (1 - jnp.tanh(x)),))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with some candidates in it."""
    for name, text in (("mine", MINE), ("scaled", SCALED), ("bent", BENT)):
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def _call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=300, check=False, cwd=cwd, env={**os.environ})


def test_a_right_candidate_exits_0(home: Path) -> None:
    """Its own names of parameters are mapped; in numpy its gradients bear them too."""
    done = _call("check", "mine:norm", "--like", "RMSNorm(eps=1e-5)", "--framework", "numpy", "--param", "gain=weight", cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "numpy:norm" in done.stdout
    assert "OK: agrees" in done.stdout


@pytest.mark.parametrize(("arguments", "tensor"), [
    (("mine:forgetful", "--like", "RMSNorm(eps=1e-5)", "--framework", "numpy", "--param", "gain=weight"), "dweight"),
    (("scaled:identity", "--like", "Identity()", "--framework", "torch"), "dx"),
    (("bent:tanh", "--like", "Tanh()", "--framework", "jax", "--cases", "6"), "dx"),
], ids=["numpy", "torch", "jax"])
def test_a_wrong_candidate_exits_1_and_its_reproduction_stands_alone(arguments: tuple[str, ...], tensor: str, home: Path) -> None:
    """The report holds a script that shows the finding without backproof, and a case that replays."""
    done = _call("check", *arguments, "--precision", "float64", "--reports", "found", cwd=home)
    assert done.returncode == 1, done.stdout + done.stderr
    (folder,) = (home / "found").glob(f"*/wrong-*-{tensor}-float64")
    source = (folder / "repro.py").read_text()
    assert "backproof" not in source
    shown = subprocess.run([sys.executable, str(folder / "repro.py")], capture_output=True, text=True, timeout=120, check=False, cwd=home)
    assert shown.returncode == 1, shown.stdout + shown.stderr
    assert f"{tensor}[" in shown.stdout
    again = _call("replay", str(folder / "case.json"), cwd=home)
    assert again.returncode == 1, again.stdout + again.stderr
    assert tensor in again.stdout
    assert json.loads((folder / "finding.json").read_text())["case"]["candidate"] == arguments[0]


@pytest.mark.parametrize(("arguments", "said"), [
    (("mine:nope", "--like", "RMSNorm()"), "module 'mine' has no attribute 'nope'"),
    (("nothere:x", "--like", "RMSNorm()"), "no module 'nothere'"),
    (("mine", "--like", "RMSNorm()"), "expected MODULE:NAME"),
    (("mine:norm", "--like", "Nope()"), "unknown layer: got 'Nope'"),
    (("mine:norm", "--like", "RMSNorm(eps=open('x'))"), "unknown layer: got 'open'"),
    (("mine:norm", "--like", "RMSNorm(epsilon=1)"), "epsilon"),
    (("mine:norm", "--like", "RMSNorm()"), "Write framework="),
    (("mine:norm", "--like", "RMSNorm()", "--framework", "numpy"), "map its own names"),
    (("mine:norm", "--like", "RMSNorm()", "--framework", "numpy", "--param", "gain"), "expected MINE=THEIRS"),
    (("mine:norm", "--like", "RMSNorm()", "--framework", "numpy", "--param", "scale=weight"), "norm(x, gain) cannot be called"),
])
def test_wrong_usage_is_one_clear_line_and_exit_2(arguments: tuple[str, ...], said: str, home: Path) -> None:
    """Whatever cannot be meant is said before anything runs, without a traceback."""
    done = _call("check", *arguments, cwd=home)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_layer_is_parsed_and_nothing_else() -> None:
    """A call of a registered class with literal options, layers among them."""
    assert parse("LayerNorm(eps=1e-5)") == bp.LayerNorm(eps=1e-5)
    assert parse("Conv2d(3, (2, 3), stride=2)") == bp.Conv2d(3, (2, 3), stride=2)
    assert parse("Sequential((Linear(3), ReLU()))") == bp.Sequential((bp.Linear(3), bp.ReLU()))
    for text in ("1", "", "Linear", "Linear(3).x", "Linear(x)", "(lambda: 0)()", "Linear(", "Linear(**{})" * 3):
        with pytest.raises(ValueError, match=r"layer|option"):
            assert not isinstance(parse(text), (int, float)) or pytest.fail("a number is no layer")


def test_a_probe_goes_through_json() -> None:
    """What replays a finding holds everything that the call depends on."""
    probe = Probe(bp.LayerNorm(), ((3, 4),), 2, 7, "ties", "float32", Condition("transposed", mode="plain", alone="weight"),
                  candidate="mine:norm", framework="torch", names=(("gain", "weight"),))
    assert Probe.build(json.loads(probe.to_json())) == probe
    for change in ({"shapes": 3}, {"condition": {"x": 1}}, {"precision": "f"}, {"layer": None}):
        broken = {**probe.describe(), **change}
        with pytest.raises(ValueError, match=r"probe|precision|layer"):
            Probe.build(broken)
