"""Jinja as reports use it: a name that is missing raises, and what goes into a page is escaped."""

from __future__ import annotations

from typing import Any

import jinja2

__all__ = ["PAGES", "TEMPLATES"]

OPTIONS: dict[str, Any] = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
LOADER = jinja2.PackageLoader("backproof.report", "templates")

TEMPLATES = jinja2.Environment(loader=LOADER, keep_trailing_newline=True, autoescape=False, **OPTIONS)  # noqa: S701  (plain text)
"""The templates of Markdown and Python."""

PAGES = jinja2.Environment(loader=LOADER, autoescape=True, **OPTIONS)
"""The templates of HTML."""
