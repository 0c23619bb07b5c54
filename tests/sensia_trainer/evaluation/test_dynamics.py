import json

import pytest
from matplotlib.figure import Figure

from sensia_trainer.commands.evaluate import draw_runs
from sensia_trainer.evaluation import dynamics
from sensia_trainer.evaluation.dynamics import training_dynamics, training_dynamics_of_several
from sensia_trainer.training import by_pair
from sensia_trainer.training.adaptation import read_control
from sensia_trainer.utils.figures import save_figure


def test_training_dynamics_writes_png_and_svg(tmp_path):
    history = [
        {"step": s, "sense_entropy_target": 2.5 - s / 200, "sense_recall_source_to_target": s / 250,
         "context_recall_source_to_target": s / 300, "sense_recall_target_to_source": None,
         "overlap_recall_source_to_target": 0.54, "random_sense_recall_source_to_target": 0.1 if s == 0 else None,
         "random_context_recall_source_to_target": 0.2 if s == 0 else None,
         "sense_beyond_overlap_source_to_target": s / 400, "context_beyond_overlap_source_to_target": s / 500,
         "source_bits_per_byte": 2 + s / 200}
        for s in range(0, 201, 50)
    ]  # fmt: skip
    named = {"phase_starts": [40, 100], "languages": ("English", "Indonesian")}
    files = training_dynamics(history, tmp_path / "figures" / "dynamics.png", **named)
    assert [f.name for f in files] == ["dynamics.png", "dynamics.svg"]
    text = files[1].read_text()
    assert files[0].read_bytes()[:4] == b"\x89PNG" and "<svg" in text
    for words in (
        "token overlap, no model",
        "sense vectors of random weights",
        "context vectors of random weights",
        "senses, where overlap fails",
        "contexts, where overlap fails",
        "English to Indonesian",
        "bits per byte",
        "polish",
    ):
        assert f"{words} -->" in text  # a comment before each drawn text
    again = training_dynamics(history, tmp_path / "again", **named)
    assert again[1].read_bytes() == files[1].read_bytes()  # the same numbers, the same file


def test_the_legend_of_recalls_is_beside_the_panels(monkeypatch):
    drawn = []
    monkeypatch.setattr(dynamics, "save_figure", lambda figure, path: drawn.append(figure))
    recalls = dict.fromkeys(["sense_recall_source_to_target", "overlap_recall_target_to_source"], 0.5)
    training_dynamics([{"step": 0, "source_bits_per_byte": 2.0} | recalls], "nowhere")
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["sense vectors", "token overlap, no model"]
    assert [ax.get_legend() is not None for ax in drawn[0].axes] == [False, False, False, True]


def test_empty_history():
    with pytest.raises(ValueError, match="`history` is empty"):
        training_dynamics([], "nowhere")
    with pytest.raises(ValueError, match="`histories` are empty"):
        training_dynamics_of_several({"Swahili": []}, "nowhere")


def test_several_languages_on_one_axis_beside_overlap(monkeypatch):
    drawn = []
    monkeypatch.setattr(dynamics, "save_figure", lambda figure, path: drawn.append(figure))
    histories = {
        name: [
            {
                "step": step,
                "sense_recall_source_to_target": step / 10 + n,
                "overlap_recall_source_to_target": 0.5 + n,
                "sense_beyond_overlap_source_to_target": step / 20 + n,
            }
            for step in (0, 1)
        ]
        + [{"step": 2, "target_bits_per_byte": 2.0 + n, "random_sense_recall_source_to_target": 0.1 + n}]
        for n, name in enumerate(("Estonian", "Swahili"))
    }
    training_dynamics_of_several(histories, "nowhere", languages=("English", "target"))
    recall, bits, *others = drawn[0].axes
    assert recall.get_title() == "recall@1, English to target, sense vectors"
    solid, dashed = ([line for line in recall.lines if line.get_linestyle() == style] for style in ("-", "--"))
    assert [list(line.get_xydata()[:, 1]) for line in solid] == [[0, 0.1], [1, 1.1]]
    assert [line.get_ydata()[0] for line in dashed] == [0.5, 1.5]
    assert [line.get_ydata()[0] for line in recall.lines if line.get_linestyle() == ":"] == [0.1, 1.1]
    beyond = [line.get_xydata().tolist() for line in recall.lines if line.get_linestyle() == "-."]
    assert beyond == [[[0, 0], [1, 0.05]], [[0, 1], [1, 1.05]]]
    assert [line.get_color() for line in solid] == [line.get_color() for line in dashed]
    assert len({line.get_marker() for line in solid}) == 2
    assert bits.get_title() == "bits per byte, target" and not any(ax.axison for ax in others)
    names = [text.get_text() for text in others[-1].get_legend().get_texts()]
    assert names == ["Estonian", "Swahili", "token overlap, no model", "random weights", "where overlap fails"]


def _evaluated(step, **values):
    return {"step": step} | {f"eval_{name}": value for name, value in values.items()}


RUNS = {
    "one": {
        "languages": {"source": "en", "target": "id"},
        "before": {"sense_entropy_target": 2.0},
        "history": [_evaluated(5, sense_entropy_target=1.0)],
    },
    "several": {
        "languages": {"source": "en", "targets": ["sw", "zh"], "pairs": ["en-sw", "en-zh"]},
        "by_pair": {"en-sw": {"before": {"sense_entropy_target": 4.0}, "after": {}}, "en-zh": {"after": {}}},
        "history": [
            _evaluated(5, **{"en-sw_sense_entropy_target": 3.0}),
            _evaluated(5, **{"en-zh_sense_entropy_target": 2.5}),
        ],
    },
    "pretrained": {"history": [_evaluated(5, loss=3.0)]},
}


def test_runs_of_one_pair_and_of_several_share_a_figure(tmp_path, monkeypatch, caplog):
    drawn = []
    monkeypatch.setattr(dynamics, "save_figure", lambda figure, path: drawn.append(figure) or [path])
    monkeypatch.setattr(by_pair.logger, "propagate", True)
    assert by_pair.draw_dynamics_of_runs(RUNS, "nowhere") == ["nowhere"]
    assert [record.getMessage().partition(" is not drawn")[0] for record in caplog.records] == ["pretrained"]
    entropy, *_, legend = drawn[0].axes
    assert [line.get_xydata().tolist() for line in entropy.lines] == [[[0, 2], [5, 1]], [[0, 4], [5, 3]], [[5, 2.5]]]
    names = [text.get_text() for text in legend.get_legend().get_texts()]
    assert names[:3] == ["Indonesian", "Swahili", "Chinese"]
    by_pair.draw_dynamics_of_runs(RUNS | {"again": RUNS["one"]}, "nowhere")
    names = [text.get_text() for text in drawn[1].axes[-1].get_legend().get_texts()]
    assert names[:4] == ["one", "several, en-sw", "several, en-zh", "again"]


def test_a_pair_without_the_source_language_keeps_both_its_names():
    run = {"languages": {"source": "en", "targets": ["id", "sw"], "pairs": ["en-id", "id-sw"]}}
    values = {"sense_recall_target_to_source": 0.5, "sense_recall_source_to_target": 0.5, "pairs": 9}
    values |= {"target_bits_per_byte": 2.0, "source_bits_per_byte": 2.0}
    run["by_pair"] = {pair: {"before": values, "after": values} for pair in run["languages"]["pairs"]}
    run["history"] = [_evaluated(5, **{f"{pair}_sense_entropy_target": 1.0 for pair in run["by_pair"]})]
    names = {line: names for line, (_, names) in by_pair._lines_of_run("run", run).items()}
    assert names == {"run, en-id": ("English", "Indonesian"), "run, id-sw": ("Indonesian", "Swahili")}
    words = "\n".join(by_pair.closing_words(run))
    assert "English and Indonesian sentences" in words and "Indonesian and Swahili sentences" in words
    assert words.count("a control (`--method lm-only`)") == 2


def test_each_pair_stands_beside_that_of_the_control(tmp_path):
    values = {"sense_recall_target_to_source": 0.5, "sense_recall_source_to_target": 0.5, "pairs": 9}
    run = {"languages": {"source": "en", "targets": ["id", "sw"], "pairs": ["en-id", "en-sw"]}}
    run |= {"after": values, "by_pair": dict.fromkeys(("en-id", "en-sw"), {"before": values, "after": values})}
    control = {"after": {}, "by_pair": {"en-id": {"after": values | {"sense_recall_target_to_source": 0.25}}}}
    (tmp_path / "metrics.json").write_text(json.dumps(control))
    words = by_pair.closing_words(run | {"control": read_control(str(tmp_path / "metrics.json"))})
    assert ["the control (38%)" in line for line in words if "chance" in line] == [True, False]
    assert "--control" not in "\n".join(words)


def test_runs_without_languages_are_no_dynamics(tmp_path):
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(RUNS["pretrained"]))
    with pytest.raises(ValueError, match="none has evaluations during training between two languages"):
        draw_runs([str(file), "--output", str(tmp_path / "figure.png")])


@pytest.mark.parametrize(
    "name, stem",
    [("rate-0.5", "rate-0.5"), ("rate-0.7.png", "rate-0.7"), ("rate-0.7.SVG", "rate-0.7"), ("all.pdf", "all")],
)
def test_only_the_suffix_of_a_picture_is_replaced(tmp_path, name, stem):
    files = save_figure(Figure(figsize=(1, 1)), tmp_path / name)
    assert [file.name for file in files] == [f"{stem}.png", f"{stem}.svg"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in files)


SCHEDULE = {"steps": 100, "polish_freeze": "none", "w_sense": None} | {
    f"{phase}_weights": [0.1, 0.25, 0.65] for phase in ("align", "joint", "polish")
}


@pytest.mark.parametrize(
    "change, starts",
    [
        ({}, []),
        ({"polish_freeze": "modules"}, [20, 50]),
        ({"align_weights": [0.5, 0.4, 0.1]}, [20, 50]),
        ({"tau_sense_end": 0.01}, [20, 50]),
        ({"align_fraction": 0.1, "joint_fraction": 0.1, "polish_fraction": 0.8, "polish_freeze": "modules"}, [10, 20]),
    ],
)
def test_phases_are_drawn_where_they_differ(change, starts):
    assert by_pair.phase_starts(SCHEDULE | change) == starts
