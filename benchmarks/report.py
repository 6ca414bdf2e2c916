"""What was measured, as tables: for a terminal, for Markdown and for JSON. Knows nothing of what the numbers mean."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Cell = str | float | None

AT_MOST = "at most"


@dataclass(frozen=True)
class Chart:
    """How a table is drawn: into `file`, a bar a row for the number in each of `columns`, measured in `unit`."""

    file: str
    columns: tuple[str, ...]
    unit: str


@dataclass(frozen=True)
class Table:
    """Numbers under a title. `failure` says what is wrong with them, where something is.

    `limited` is the column whose numbers should not be greater than those in the column "at most".
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    note: str = ""
    chart: Chart | None = None
    failure: str = ""
    limited: str = ""

    def column(self, name: str) -> list[Cell]:
        """Return the cells of one column."""
        position = self.columns.index(name)
        return [row[position] for row in self.rows]

    def missed(self, row: tuple[Cell, ...]) -> bool:
        """Tell whether a row's number is greater than it should be, in the digits that are shown."""
        cells = dict(zip(self.columns, row, strict=True))
        number, at_most = cells.get(self.limited), cells.get(AT_MOST)
        return isinstance(number, (int, float)) and isinstance(at_most, (int, float)) and round(number, 2) > at_most


def say(text: str) -> None:
    """Print one line of progress. It goes to stderr: stdout is for the tables."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def shown(cell: Cell) -> str:
    """Return a cell as text: three digits that mean something, whole numbers as they are."""
    match cell:
        case None:
            return ""
        case float() if abs(cell) < 100:
            return f"{cell:.2f}"
        case float() | int():
            return f"{cell:,.0f}"
    return cell


def as_text(table: Table) -> str:
    """Return a table for a terminal."""
    body = _body(table)
    widths = [max(map(len, column)) for column in zip(table.columns, *body, strict=True)]
    lines = [_aligned(row, widths) for row in (table.columns, *body)]
    return "\n".join([f"{table.title}", *lines, *([table.note] if table.note else [])])


def as_markdown(table: Table) -> str:
    """Return a table for a page, under a heading."""
    lines = [f"## {table.title}", ""]
    if table.chart is not None:
        lines += [f"![{table.title}]({table.chart.file})", ""]
    lines += [_piped(table.columns), _piped(["---"] + ["---:"] * (len(table.columns) - 1))]
    lines += [_piped(row) for row in _body(table)]
    return "\n".join(lines + (["", table.note] if table.note else []))


def as_json(table: Table) -> dict[str, Any]:
    """Return a table as what JSON can hold: an object a row."""
    rows: list[dict[str, Any]] = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    if table.limited:
        rows = [cells | {"missed": table.missed(row)} for cells, row in zip(rows, table.rows, strict=True)]
    return {"title": table.title, "rows": rows}


def bars(table: Table) -> Iterator[tuple[str, str, float]]:
    """Return what a table's chart shows: row, column and number. Rows without a number are left out."""
    if table.chart is None:
        return
    for row in table.rows:
        cells = dict(zip(table.columns, row, strict=True))
        for name in table.chart.columns:
            if isinstance(number := cells[name], (int, float)):
                yield str(row[0]), name, number


def _body(table: Table) -> list[list[str]]:
    return [
        [
            f"{shown(cell)}, missed" if name == AT_MOST and table.missed(row) else shown(cell)
            for name, cell in zip(table.columns, row, strict=True)
        ]
        for row in table.rows
    ]


def _aligned(cells: Sequence[str], widths: list[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
