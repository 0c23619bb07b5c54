import pytest

from sensia_trainer.evaluation.dynamics import training_dynamics


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
