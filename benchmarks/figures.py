"""What was measured, beside what was to be reached; as plain data and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen


@frozen
class Figure:
    """One figure. `most` or `least` is what was to be reached; with neither it is only reported.

    The value is None when it could not be measured: what was to be reached is missed then.
    """

    group: str
    name: str
    value: float | None
    unit: str
    against: str = ""
    most: float | None = None
    least: float | None = None
    detail: Mapping[str, object] = field(factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether it is what was to be reached; None when it is only reported."""
        if self.most is None and self.least is None:
            return None
        if self.value is None:
            return False
        return self.value <= self.most if self.most is not None else self.value >= (self.least or 0.0)


def shown(figure: Figure) -> str:
    """Return a figure as a row of a table in Markdown."""
    goal = (
        f"<= {figure.most:g}"
        if figure.most is not None
        else f">= {figure.least:g}"
        if figure.least is not None
        else "-"
    )
    mark = {True: "yes", False: "**no**", None: ""}[figure.reached]
    detail = "; ".join(f"{name} {_number(value)}" for name, value in figure.detail.items())
    value = "not measured" if figure.value is None else f"{_number(figure.value)} {figure.unit}"
    return f"| {figure.name} | {figure.against} | {value} | {goal} | {mark} | {detail} |"


def markdown(figures: Sequence[Figure]) -> str:
    """Return all figures as tables, one for each group."""
    parts = []
    for group in dict.fromkeys(figure.group for figure in figures):
        rows = [shown(figure) for figure in figures if figure.group == group]
        head = "| | against | measured | to reach | reached | of which |\n|---|---|---|---|---|---|"
        parts.append("\n".join([f"### {group}", "", head, *rows]))
    return "\n\n".join(parts)


def _number(value: object) -> str:
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )
