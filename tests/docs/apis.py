"""Which public names there are, and which of them the examples on the pages use."""

from __future__ import annotations

import ast
import enum
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import dedent
from typing import Any
from uuid import uuid4

import attrs
import pytest
from examples import Area, Example
from worlds import World, connect

from osdisco.testing import run

Name = tuple[str, str]
"""A class, and a public name that it defines."""


def without_example(area: Area, classes: list[type], runner: Callable[[Any], object] | None = None) -> set[Name]:
    """Run all examples of an area in memory; returns the public names of the classes that none of them uses.

    By a `runner` of a real event loop, such as `asyncio.run`, they may use sockets.
    """
    with seen(area, classes) as names:
        for example in area.examples:
            (runner or run)(_run(area, example) if runner is None else _run_really(area, example))
    return {(owner.__name__, name) for cls in classes for name, owner in public(cls).items()} - names


async def _run(area: Area, example: Example) -> None:
    world = World()
    await area.run(example, world.process(), world.process())
    await world.aclose()


async def _run_really(area: Area, example: Example) -> None:
    url = f"memory://{uuid4().hex}"
    async with connect(url) as client, connect(url) as other:
        await area.run(example, client, other)


def public(cls: type) -> dict[str, type]:
    """Return the public names of a class, with the class that defines them."""
    if issubclass(cls, enum.Enum):
        return dict.fromkeys(cls.__members__, cls)
    names = {}
    for owner in (kind for kind in reversed(cls.__mro__) if kind.__module__.startswith("osdisco")):
        fields = _fields(owner) if attrs.has(owner) else _assigned(owner)
        names.update({name: owner for name in [*vars(owner), *fields] if not name.startswith("_")})
    return names


def _fields(cls: type) -> Iterator[str]:
    """Return the fields that an attrs class adds to those of its bases."""
    return (field.name for field in attrs.fields(cls) if not field.inherited)


def _assigned(cls: type) -> Iterator[str]:
    """Return the attributes that the class's own `__init__` sets."""
    if (init := vars(cls).get("__init__")) is None:
        return
    for node in ast.walk(ast.parse(dedent(inspect.getsource(init)))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


@contextmanager
def seen(area: Area, classes: list[type]) -> Iterator[set[Name]]:
    """Yield the set of what code on the pages looks up in objects of the classes, by the class that defines it."""
    names: set[Name] = set()
    pages = {str(page) for page in area.pages}

    def getting(owners: dict[str, type]) -> Callable[[object, str], object]:
        def get(self: object, name: str) -> object:
            if name in owners and sys._getframe(1).f_code.co_filename in pages:
                names.add((owners[name].__name__, name))
            return object.__getattribute__(self, name)

        return get

    with pytest.MonkeyPatch.context() as patch:
        for cls in classes:
            patch.setattr(cls, "__getattribute__", getting(public(cls)), raising=False)
        yield names
    names.update(_defined(area, classes))
    names.update(_of_classes(area, classes))


def _of_classes(area: Area, classes: list[type]) -> Iterator[Name]:
    """Return what the examples take from a class itself or give to it: members, other ways to make one, fields."""
    owners = {cls.__name__: public(cls) for cls in classes}
    for example in area.examples:
        for node in ast.walk(example.tree()):
            for cls, name in _named(node):
                if (owner := owners.get(cls, {}).get(name)) is not None:
                    yield owner.__name__, name


def _named(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Attribute):
        yield ast.unparse(node.value), node.attr
    elif isinstance(node, ast.Call):
        yield from ((ast.unparse(node.func), one.arg) for one in node.keywords if one.arg)
    elif isinstance(node, ast.MatchClass):
        yield from ((ast.unparse(node.cls), name) for name in node.kwd_attrs)


def _defined(area: Area, classes: list[type]) -> Iterator[Name]:
    """Return what is defined in classes that the examples derive: the library uses it."""
    owners = {cls.__name__: public(cls) for cls in classes}
    for example in area.examples:
        for node in ast.walk(example.tree()):
            if isinstance(node, ast.ClassDef):
                names = [name for part in node.body for name in _names(part)]
                for base in map(ast.unparse, node.bases):
                    yield from ((owner.__name__, name) for name in names if (owner := owners.get(base, {}).get(name)))


def _names(part: ast.stmt) -> list[str]:
    if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
        return [part.name]
    return [ast.unparse(target) for target in part.targets] if isinstance(part, ast.Assign) else []


def calls(tree: ast.AST) -> set[tuple[str, str]]:
    return {(name, keyword) for name, keyword, _ in lines(tree)}


def lines(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """Return every attribute and every keyword of a call that the code names, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr, "", node.lineno
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            yield name, "", node.lineno
            yield from ((name, f"{one.arg}=", node.lineno) for one in node.keywords)
