"""Tables of measures: means over pieces, paired differences, Markdown. Pure functions.

The input is *results*, a list of (piece, row, measures): the piece's name, the system
that is a row of the table, and {measure's key: value}. Columns are a list of `metrics.Measure`.
"""

import numpy as np

MINUS = " − "  # between the names of two compared rows


def summarise(results, columns):
    """Mean, standard deviation and number over pieces, of each row and column.

    Values that are not finite are left out.

    Returns:
        {row: {key: cell}} with cells from `spread_of`; rows in order of appearance.
    """
    summary = {}
    for row in rows_of(results):
        summary[row] = {}
        for column in columns:
            values = list(_values(results, row, column.key).values())
            if values:
                summary[row][column.key] = spread_of(values)
    return summary


def rows_of(results):
    """Names of all rows, in order of appearance."""
    return list(dict.fromkeys(row for _, row, _ in results))


def spread_of(values):
    """Make a cell {"mean", "spread", "n"}; spread: standard deviation (n - 1), None for n = 1."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "spread": spread, "n": len(values)}


def average(tables_of):
    """Average several tables {row: {key: cell}}, cell by cell, with equal weights.

    A cell's spread is that of the tables' means, its n the sum of theirs. Missing cells are
    left out.
    """
    means = {}
    for row in tables_of[0]:
        means[row] = {}
        for key in tables_of[0][row]:
            cells = [table[row][key] for table in tables_of if key in table.get(row, {})]
            cell = spread_of([cell["mean"] for cell in cells])
            means[row][key] = cell | {"n": sum(cell["n"] for cell in cells)}
    return means


def compare(results, comparisons, columns):
    """Compute paired differences of two systems on the same pieces.

    Only pieces of both systems count, so a difference never compares means over different
    pieces.

    Args:
        comparisons: list of (row, other row).

    Returns:
        {"row − other row": {key: cell}}; a cell's mean and spread are those of the differences.
    """
    differences = {}
    for row, other in comparisons:
        cells = {}
        for column in columns:
            values = _values(results, row, column.key)
            others = _values(results, other, column.key)
            found = [values[piece] - others[piece] for piece in values if piece in others]
            if found:
                cells[column.key] = spread_of(found)
        if cells:
            differences[row + MINUS + other] = cells
    return differences


def _values(results, row, key):
    """Finite values of one row and column: {piece: value}."""
    found = {}
    for piece, name, measures in results:
        value = measures.get(key)
        if name == row and value is not None and np.isfinite(value):
            found[piece] = value
    return found


def text_table(summary, columns):
    """Format a summary as text: (header, rows), without empty columns.

    Each cell is mean ± spread. The last column is the row's n; a cell with another n shows it.
    """
    known = set().union(*summary.values())  # keys of any row
    there = [column for column in columns if column.key in known]
    rows = []
    for row, cells in summary.items():
        count = max((cell["n"] for cell in cells.values()), default=0)
        texts = [cell_text(cells.get(column.key), column.digits, count) for column in there]
        rows.append([row, *texts, str(count)])
    headings = [column.heading for column in there]
    return ["", *headings, "n"], rows


def cell_text(cell, digits, usual_n=None):
    """Format a cell: mean ± spread, with its n if that differs from ``usual_n``."""
    if not cell:
        return "–"
    text = f"{cell['mean']:.{digits}f}"
    if cell["spread"] is not None:
        text += f" ± {cell['spread']:.{digits}f}"
    if usual_n is not None and cell["n"] != usual_n:
        text += f" (n = {cell['n']})"
    return text


def split_columns(header, rows, width):
    """Cut a table of text into tables whose Markdown is at most ``width`` characters wide.

    Each has the first column, and at least one more. Yields (header, rows).
    """
    columns = list(zip(header, *rows))
    widths = [3 + max(map(len, column)) for column in columns]
    taken = []
    for place in range(1, len(columns)):
        if taken and 1 + widths[0] + sum(widths[k] for k in [*taken, place]) > width:
            yield _pick_columns(columns, [0, *taken])
            taken = []
        taken.append(place)
    yield _pick_columns(columns, [0, *taken])


def _pick_columns(columns, places):
    header, *rows = zip(*[columns[place] for place in places])
    return list(header), [list(row) for row in rows]


def markdown(header, rows):
    """Format a Markdown table with aligned columns."""
    alignment = ["---"] + ["---:"] * (len(header) - 1)
    lines = []
    for line in (header, alignment, *rows):
        lines.append([cell.replace("|", "\\|") for cell in line])
    widths = []
    for column in zip(*lines):
        widths.append(max(len(cell) for cell in column))
    texts = []
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths)]
        texts.append("| " + " | ".join(cells) + " |")
    return "\n".join(texts)
