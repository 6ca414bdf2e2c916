"""Draw a table as horizontal bars, in plain SVG, light or dark as the reader's page is."""

from html import escape

from benchmarks.report import Table, bars, shown

_ROW, _BAR = 18, 12  # pixels
_LABELS, _BARS, _NUMBERS = 300, 420, 80
_COLOURS = ("#4c78a8", "#f58518", "#54a24b")
_STYLE = "text{font:12px sans-serif;fill:#222}@media(prefers-color-scheme:dark){text{fill:#ddd}}"


def svg(table: Table) -> str:
    """Return the chart that the table asks for.

    Raises:
        ValueError: it asks for none, or has no numbers.
    """
    drawn = list(bars(table))
    if table.chart is None or not drawn:
        raise ValueError(f"{table.title}: there is nothing to draw")
    columns = table.chart.columns
    longest = max(number for _, _, number in drawn)
    width, height = _LABELS + _BARS + _NUMBERS, (len(drawn) + 2) * _ROW + 4
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<style>{_STYLE}</style>",
        f'<text x="4" y="14" style="font-weight:bold">{escape(table.title)}: {escape(table.chart.unit)}</text>',
    ]
    for position, (label, column, number) in enumerate(drawn, start=1):
        name = label if len(columns) == 1 else f"{label}, {column}"
        top, length = position * _ROW + 6, max(1, round(_BARS * max(0, number) / longest))
        colour = _COLOURS[columns.index(column) % len(_COLOURS)]
        lines += [
            f'<text x="{_LABELS - 6}" y="{top + 10}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LABELS}" y="{top}" width="{length}" height="{_BAR}" fill="{colour}"/>',
            f'<text x="{_LABELS + length + 5}" y="{top + 10}">{shown(number)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
