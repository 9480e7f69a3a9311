"""Shows griffe, which only reads sources, the constructors that attrs writes: docstrings tell of their parameters."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pydoc import locate
from typing import Any

import attrs
from griffe import Class, Extension, Function, Module, Parameter, ParameterKind, Parameters

KINDS = {
    inspect.Parameter.POSITIONAL_OR_KEYWORD: ParameterKind.positional_or_keyword,
    inspect.Parameter.KEYWORD_ONLY: ParameterKind.keyword_only,
}


class AttrsExtension(Extension):
    """Adds `__init__` to classes of attrs."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Go through a package that was read."""
        for cls in _classes(pkg):
            real = None if "__init__" in cls.members else locate(cls.path)
            if isinstance(real, type) and attrs.has(real):
                cls.set_member("__init__", _constructor(cls, real))


def _classes(module: Module) -> Iterator[Class]:
    for member in module.members.values():
        if member.is_alias:
            continue
        if isinstance(member, Class):
            yield member
        elif isinstance(member, Module):
            yield from _classes(member)


def _constructor(cls: Class, real: type) -> Function:
    given = [Parameter("self", kind=ParameterKind.positional_or_keyword)]
    for name, one in inspect.signature(real).parameters.items():
        given.append(Parameter(name, annotation=_annotation(cls, one), kind=KINDS[one.kind], default=_default(one)))
    return Function("__init__", parent=cls, parameters=Parameters(*given))


def _annotation(cls: Class, one: inspect.Parameter) -> Any:
    """Return what the source says, whose names can be linked; else the text that attrs kept."""
    member = cls.members.get(one.name)
    said = getattr(member, "annotation", None)
    return said if said is not None else str(one.annotation).replace("V]", "Any]")


def _default(one: inspect.Parameter) -> str | None:
    if one.default is inspect.Parameter.empty:
        return None
    return "..." if one.default is attrs.NOTHING else _written(one.default)


def _written(value: object) -> str:
    text = repr(value)
    return str(value) if text.startswith("<") else text
