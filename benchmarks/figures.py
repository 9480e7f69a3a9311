"""What was measured, beside what was to be reached; as plain data and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen


@frozen
class Figure:
    """One figure. `most` or `least` is what was to be reached; with neither it is only reported."""

    group: str
    name: str
    value: float
    unit: str
    against: str = ""
    most: float | None = None
    least: float | None = None
    detail: Mapping[str, object] = field(factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether it is what was to be reached; None when it is only reported."""
        if self.most is not None:
            return self.value <= self.most
        return self.value >= self.least if self.least is not None else None


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
    return f"| {figure.name} | {figure.against} | {_number(figure.value)} {figure.unit} | {goal} | {mark} | {detail} |"


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
