import pytest

from sensia_trainer.evaluation import dynamics
from sensia_trainer.evaluation.dynamics import training_dynamics, training_dynamics_of_several


def test_training_dynamics_writes_png_and_svg(tmp_path):
    history = [
        {"step": s, "sense_entropy_target": 2.5 - s / 200, "sense_recall_source_to_target": s / 250,
         "context_recall_source_to_target": s / 300, "sense_recall_target_to_source": None,
         "overlap_recall_source_to_target": 0.54, "source_bits_per_byte": 2 + s / 200}
        for s in range(0, 201, 50)
    ]  # fmt: skip
    named = {"phase_starts": [40, 100], "languages": ("English", "Indonesian")}
    files = training_dynamics(history, tmp_path / "figures" / "dynamics.png", **named)
    assert [f.name for f in files] == ["dynamics.png", "dynamics.svg"]
    text = files[1].read_text()
    assert files[0].read_bytes()[:4] == b"\x89PNG" and "<svg" in text
    for words in ("token overlap, no model", "English to Indonesian", "bits per byte", "polish"):
        assert f"{words} -->" in text  # a comment before each drawn text
    again = training_dynamics(history, tmp_path / "again", **named)
    assert again[1].read_bytes() == files[1].read_bytes()  # the same numbers, the same file


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
            {"step": step, "sense_recall_source_to_target": step / 10 + n, "overlap_recall_source_to_target": 0.5 + n}
            for step in (0, 1)
        ]
        + [{"step": 2, "target_bits_per_byte": 2.0 + n}]
        for n, name in enumerate(("Estonian", "Swahili"))
    }
    training_dynamics_of_several(histories, "nowhere", languages=("English", "target"))
    recall, bits, *others = drawn[0].axes
    assert recall.get_title() == "recall@1, English to target, sense vectors"
    solid, dashed = ([line for line in recall.lines if line.get_linestyle() == style] for style in ("-", "--"))
    assert [list(line.get_xydata()[:, 1]) for line in solid] == [[0, 0.1], [1, 1.1]]
    assert [line.get_ydata()[0] for line in dashed] == [0.5, 1.5]
    assert [line.get_color() for line in solid] == [line.get_color() for line in dashed]
    assert len({line.get_marker() for line in solid}) == 2
    assert bits.get_title() == "bits per byte, target" and not any(ax.axison for ax in others)
    names = [text.get_text() for text in others[-1].get_legend().get_texts()]
    assert names == ["Estonian", "Swahili", "token overlap, no model"]
