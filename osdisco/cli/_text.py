"""Text from a store, made safe to look at: a terminal obeys what it is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def visible(text: str) -> str:
    """Return the text with control characters, line breaks and lone surrogates written out."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])


def preview(value: bytes, width: int = 60) -> str:
    """Return the beginning of a value, in one line."""
    text = visible(value[: 4 * width].decode(errors="backslashreplace"))
    return text if len(text) <= width and len(value) <= 4 * width else text[: width - 1] + "…"


def info_text(info: Mapping[str, Any]) -> str:
    """Return what somebody tells of itself: a `value` alone as it is, anything else as JSON."""
    value = info.get("value") if info.keys() == {"value"} else None
    return visible(value if isinstance(value, str) else json.dumps(info, ensure_ascii=False)) if info else "-"


def rough(value: float) -> str:
    """Return a time of any length in its largest units: `40 s`, `3 min`, `2 h 5 min`, `9 d`."""
    whole = max(0, round(value))
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60 % 60, whole // 3600
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d"


def seconds(value: float) -> str:
    """Return a time as people read it: `3.2 ms`, `1.25 s`."""
    if value < 0.0001:
        return "under 0.1 ms"
    return f"{value * 1000:.2g} ms" if value < 0.0995 else f"{value:.3g} s"
