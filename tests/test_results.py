"""results/RESULTS.md is what its own command renders from the committed results."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from sensia_trainer.cli import main


ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "results" / "RESULTS.md"


@pytest.mark.parametrize("note", sorted(REPORT.parent.glob("*/note.txt")), ids=lambda note: note.parent.name)
def test_reports_say_what_is_to_be_known_of_them_first(note):
    (report,) = note.parent.glob("*.md")
    title, text, _ = report.read_text(encoding="utf-8").split("\n\n", 2)
    assert title.startswith("# ") and text == note.read_text(encoding="utf-8").strip()


@pytest.mark.slow
@pytest.mark.skipif(not REPORT.exists(), reason="results/RESULTS.md is not here")
def test_the_report_is_rendered_from_the_results(tmp_path, monkeypatch):
    """By its own command, but that figures are not drawn, which takes most of its time."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: Path(file).write_bytes(b""))
    monkeypatch.chdir(ROOT)
    text = REPORT.read_text(encoding="utf-8")
    command = shlex.split(re.search(r"```bash\n(python examples/reproduce.py .*?)\n```", text, flags=re.DOTALL)[1])
    shutil.copytree(REPORT.parent, tmp_path / "results")
    moved = [re.sub("^results", f"{tmp_path}/results", word) for word in command[1:]]
    assert moved[0] == "examples/reproduce.py" and main(["reproduce", *moved[1:]]) == 0
    assert (tmp_path / "results" / "RESULTS.md").read_text(encoding="utf-8") == text


def test_no_picture_is_large():
    pictures = [file for folder in ("results", "docs", "model_cards") for file in (ROOT / folder).rglob("*.png")]
    assert len(pictures) > 50 and not [file for file in pictures if file.stat().st_size >= 1_000_000]
