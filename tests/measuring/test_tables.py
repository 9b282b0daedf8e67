import numpy as np
import pytest

from measuring import metrics, tables

COLUMNS = [c for c in metrics.MEASURES if c.key in ("mae_db", "convergence", "snr_db")]


def results_of(**rows):
    """Results from {row: {piece: mae_db}}."""
    results = []
    for row, values in rows.items():
        for piece, value in values.items():
            results.append((piece, row, {"mae_db": value}))
    return results


def test_summary_is_mean_deviation_and_count_of_what_is_finite():
    results = [
        ("a", "x", {"mae_db": 1.0, "convergence": np.inf}),
        ("a", "y", {"mae_db": 5.0}),
        ("b", "x", {"mae_db": 3.0, "convergence": 0.5}),
    ]
    summary = tables.summarise(results, COLUMNS)
    assert list(summary) == ["x", "y"]
    assert summary["x"]["mae_db"] == {"mean": 2.0, "spread": pytest.approx(np.sqrt(2)), "n": 2}
    assert summary["x"]["convergence"] == {"mean": 0.5, "spread": None, "n": 1}
    header, rows = tables.text_table(summary, COLUMNS)
    assert header == ["", "picture MAE, dB", "spectral convergence", "n"]
    assert rows == [["x", "2.00 ± 1.41", "0.500 (n = 1)", "2"], ["y", "5.00", "–", "1"]]


def test_differences_are_paired_by_piece():
    results = results_of(x={"a": 1.0, "b": 12.0, "c": 100.0}, y={"b": 10.0, "a": 2.0})
    found = tables.compare(results, [("x", "y"), ("x", "not there")], COLUMNS)
    assert list(found) == ["x − y"]
    cell = found["x − y"]["mae_db"]
    assert cell == {"mean": 0.5, "spread": pytest.approx(np.std([-1, 2], ddof=1)), "n": 2}


def test_markdown_has_one_width_and_keeps_its_columns():
    lines = tables.markdown(["", "long heading"], [["a | b", "1"], ["c", "22"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].count("---") == 2 and "a \\| b" in lines[2]


@pytest.mark.parametrize("width", [10, 40, 100])
def test_a_wide_table_is_cut_into_parts_that_fit(width):
    header = ["", *(f"measure {k}" for k in range(9))]
    rows = [[name, *(f"{k}.00 ± 0.10" for k in range(9))] for name in ("identity", "target")]
    parts = list(tables.split_columns(header, rows, width))
    assert [cell for part, _ in parts for cell in part[1:]] == header[1:]
    for part, cells in parts:
        assert [row[0] for row in cells] == ["identity", "target"]
        lines = tables.markdown(part, cells).splitlines()
        assert len(lines[0]) <= width or len(part) == 2
