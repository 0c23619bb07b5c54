"""A column of a table against another that grows along an axis."""

import pytest

from sensia_trainer.experiments.curves import draw_curves, lines
from sensia_trainer.experiments.matrix import Matrix, expand
from sensia_trainer.experiments.tables import table_rows


RECALL = "sense_recall_source_to_target"
COLUMNS = [{"label": "pairs", "metric": "metrics.pairs"}, {"label": "R@1", "metric": f"metrics.{RECALL}"}]
PANEL = {"axis": "pairs", "x": "pairs", "y": "R@1"}


def matrix(**fields):
    axes = {"language": {"id": {}, "sw": {}}, "pairs": {"much": {}, "few": {}}}
    return Matrix(title="t", axes=axes, columns=COLUMNS, curves=[PANEL], **fields)


def result(pairs, recall, **more):
    return {"metrics": {"pairs": pairs, RECALL: recall, **more}}


def test_a_line_for_each_language_in_the_order_of_pairs(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("sensia_trainer.experiments.curves.save_figure", lambda figure, path: drawn.append(figure))
    results = {
        "id-much": result(1000, 0.6, **{f"{RECALL}_interval": [0.5, 0.7], "overlap_recall_source_to_target": 0.3}),
        "id-few": result(100, 0.2, **{f"random_{RECALL}": 0.1}),
        "sw-few": result(90, 0.4),
    }
    draw_curves(matrix(), expand(matrix()), results, tmp_path)
    (plot,) = drawn[0].axes
    points = {(line.get_linestyle(), line.get_marker()): line.get_xydata().tolist() for line in plot.lines}
    named = {line.get_label(): line.get_xydata().tolist() for line in plot.lines}
    assert named["Indonesian"] == [[100, 0.2], [1000, 0.6]] and named["Swahili"] == [[90, 0.4]]
    assert points["--", "None"] == [[1000, 0.3]] and points[":", "None"] == [[100, 0.1]]
    assert [[1000, 0.5], [1000, 0.7]] in [line.get_xydata().tolist() for line in plot.lines]
    assert (plot.get_xscale(), plot.get_xlabel(), plot.get_title()) == ("log", "pairs", "R@1")


def test_rows_that_differ_in_the_axis_alone_are_one_line():
    rows = table_rows(matrix(), expand(matrix()), {})
    found = {name: [row["name"] for row in line] for name, line in lines(rows, "pairs").items()}
    assert found == {"Indonesian": ["id-much", "id-few"], "Swahili": ["sw-much", "sw-few"]}


def test_nothing_is_drawn_of_nothing(tmp_path):
    assert draw_curves(matrix(), expand(matrix()), {}, tmp_path / "curves") == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "panel",
    [
        {"axis": "seed", "x": "pairs", "y": "R@1"},
        {"axis": "pairs", "x": "steps", "y": "R@1"},
        {"axis": "pairs", "x": "pairs"},
        {**PANEL, "z": "R@1"},
    ],
)
def test_a_curve_of_unknown_columns_or_axes_is_refused(panel):
    with pytest.raises(ValueError, match=r"`curves` needs `axis` \(one of \['language', 'pairs'\]\), `x` and `y`"):
        Matrix(title="t", axes=matrix().axes, columns=COLUMNS, curves=[panel])


def test_a_curve_along_what_is_averaged_is_refused():
    with pytest.raises(ValueError, match="`curves` needs `axis`"):
        matrix(average="pairs")
