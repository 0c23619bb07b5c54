"""What is gained against what it costs."""

import pytest

from sensia_trainer.experiments.frontier import draw_frontier, frontier, readable
from sensia_trainer.experiments.matrix import Matrix, expand
from tests.reference.experiments import frontier as plain_frontier


@pytest.mark.parametrize(
    "points, expected",
    [
        ([], []),
        ([(1.0, 1.0)], [0]),
        ([(2.0, 0.9), (1.0, 0.5), (1.5, 0.4), (3.0, 0.9), (2.5, 0.8)], [1, 0]),
        ([(1.0, 0.5), (1.0, 0.7), (1.0, 0.7)], [1, 2]),
    ],
)
def test_what_no_other_point_passes(points, expected):
    assert frontier(points) == expected
    assert sorted(frontier(points)) == plain_frontier(points)


def test_every_finished_row_is_a_numbered_point(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("sensia_trainer.experiments.frontier.save_figure", lambda figure, path: drawn.append(figure))
    columns = [{"label": "bits", "metric": "metrics.bits"}, {"label": "R@1", "metric": "metrics.recall"}]
    axes = {"run": {"base": {}, "other": {}, "late": {}}}
    matrix = Matrix(title="t", axes=axes, columns=columns, frontier=[{"cost": "bits", "gain": "R@1"}])
    runs = expand(matrix)
    results = {
        "base": {"metrics": {"bits": 2.0, "bits_interval": [1.9, 2.1], "recall": 0.5}},
        "other": {"metrics": {"bits": 3.0, "recall": 0.4}},
    }
    draw_frontier(matrix, runs, results, tmp_path)
    (axis,) = drawn[0].axes
    assert [text.get_text() for text in axis.texts] == ["1", "2", "1  base\n2  other"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("bits (less is better)", "R@1")
    assert draw_frontier(matrix, runs, {}, tmp_path) == []


def test_languages_have_frontiers_of_their_own(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("sensia_trainer.experiments.frontier.save_figure", lambda figure, path: drawn.append(figure))
    columns = [{"label": "bits", "metric": "metrics.bits"}, {"label": "R@1", "metric": "metrics.recall"}]
    panel = {"cost": "bits", "gain": "R@1", "within": "language"}
    axes = {"language": {"id": {}, "et": {}}, "method": {"a": {}, "b": {}}}
    matrix = Matrix(title="t", axes=axes, columns=columns, frontier=[panel])
    values = {"id-a": (2.0, 0.5), "id-b": (2.1, 0.6), "et-a": (2.8, 0.3), "et-b": (2.9, 0.2)}
    results = {name: {"metrics": {"bits": bits, "recall": recall}} for name, (bits, recall) in values.items()}
    draw_frontier(matrix, expand(matrix), results, tmp_path)
    found = [line.get_xydata().tolist() for line in drawn[0].axes[0].lines if line.get_linestyle() == "-"]
    assert found == [[[2.0, 0.5], [2.1, 0.6]], [[2.8, 0.3]]]


def test_numbers_are_not_written_upon_each_other():
    points = [(0.0, 0.0), (0.5, 0.5), (0.51, 0.51), (1.0, 1.0)]
    assert readable(points, [2]) == [2, 0, 3]
    assert readable([(1.0, 1.0)], []) == [0] and readable([], []) == []


def test_what_counting_tokens_and_random_weights_gain_stands_beside(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("sensia_trainer.experiments.frontier.save_figure", lambda figure, path: drawn.append(figure))
    recall = "sense_recall_source_to_target"
    columns = [{"label": "bits", "metric": "metrics.bits"}, {"label": "R@1", "metric": f"metrics.{recall}"}]
    panel = {"cost": "bits", "gain": "R@1"}
    matrix = Matrix(title="t", axes={"run": {"base": {}, "other": {}}}, columns=columns, frontier=[panel])
    values = {"bits": 2.0, recall: 0.5, "overlap_recall_source_to_target": 0.4, f"random_{recall}": 0.1}
    results = {"base": {"metrics": values}, "other": {"metrics": {"bits": 3.0, recall: 0.2}}}
    draw_frontier(matrix, expand(matrix), results, tmp_path)
    points = {line.get_marker(): line.get_xydata().tolist() for line in drawn[0].axes[0].lines}
    assert points["_"] == [[2.0, 0.4]] and points["x"] == [[2.0, 0.1]]


def test_a_frontier_of_unknown_columns_is_refused():
    columns = [{"label": "bits", "metric": "metrics.bits"}]
    for panel in ({"cost": "bits", "gain": "R@1"}, {"cost": "bits"}):
        with pytest.raises(ValueError, match="`frontier` needs `cost` and `gain`, each one of \\['bits'\\]"):
            Matrix(title="t", axes={"run": {"base": {}}}, columns=columns, frontier=[panel])
