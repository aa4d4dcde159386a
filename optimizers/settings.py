"""Settings of a search as text, so that a state can say which search it belongs to."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from enum import Enum


def settings_json(part: object) -> str:
    """JSON of a dataclass of numbers, strings and further dataclasses, with the type's name at every level."""
    return json.dumps(_plain(part), sort_keys=True)


def _plain(part: object) -> object:
    if is_dataclass(part) and not isinstance(part, type):
        return {"type": type(part).__name__} | {f.name: _plain(getattr(part, f.name)) for f in fields(part)}
    if isinstance(part, tuple | list):
        return [_plain(item) for item in part]
    return part.value if isinstance(part, Enum) else part
