"""The rounded arithmetic loaded a second time, as it is or with a mistake planted in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType

import pytest
from backproof.reference import rounding


@pytest.fixture
def rounding_anew(tmp_path: Path) -> Callable[..., ModuleType]:
    """Return a function that loads the package `rounding` anew from its text, with a snippet of it replaced if one is given."""
    name, sources = rounding.__name__, Path(rounding.__path__[0]).glob("*.py")
    texts = {path.name: path.read_text(encoding="utf-8") for path in sources}

    def load(right: str = "", wrong: str = "") -> ModuleType:
        count = sum(text.count(right) for text in texts.values())
        assert not right or count == 1, f"the snippet to replace must occur once: got {count} of {right!r}"
        folder = Path(mkdtemp(dir=tmp_path))
        for file, text in texts.items():
            (folder / file).write_text(text.replace(right, wrong) if right else text, encoding="utf-8")
        spec = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
        assert spec is not None
        assert spec.loader is not None
        kept = {one: sys.modules.pop(one) for one in [*sys.modules] if one == name or one.startswith(f"{name}.")}
        try:
            module = sys.modules[name] = module_from_spec(spec)
            spec.loader.exec_module(module)
        finally:
            sys.modules.update(kept)
        return module

    return load
