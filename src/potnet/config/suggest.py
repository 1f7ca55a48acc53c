"""Hints that name the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, options: Iterable[str], prefix: str = "") -> str:
    """A hint that names the nearest option, and else all of them: `"; did you mean model.width?"`."""
    options = list(dict.fromkeys(options))
    near = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    if len(near) > 1 and difflib.SequenceMatcher(None, name, near[0]).ratio() > 0.8:
        near = near[:1]
    if near:
        return f"; did you mean {' or '.join(prefix + option for option in near)}?"
    if not options:
        return f": {prefix.rstrip('.') or 'it'} has no keys"
    return f"; valid are: {', '.join(prefix + option for option in sorted(options))}"
