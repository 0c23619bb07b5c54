"""How many pairs there are, and some of them."""

import gzip

import pytest
from datasets import Dataset

from sensia_trainer.bitext.counting import count_pairs, some_pairs
from sensia_trainer.bitext.pairs import PairSource


LANGUAGES = "en", "id"


def sources(folder):
    rows = [(f"word {n}", f"kata {n}") for n in range(7)]
    with gzip.open(folder / "pairs.tsv.gz", "wt") as file:
        file.write("".join(f"{left}\t{right}\n" for left, right in [("en", "id"), *rows]))
    (folder / "a.csv").write_text("".join(f"{left},{right}\n" for left, right in [("en", "id"), *rows]))
    (folder / "text.en").write_text("".join(f"{left}\n" for left, _ in rows))
    (folder / "text.id").write_text("".join(f"{right}\n" for _, right in rows))
    Dataset.from_dict({"translation": [dict(zip(LANGUAGES, row)) for row in rows]}).save_to_disk(folder / "saved")
    return {"tsv": "pairs.tsv.gz", "csv": "a.csv", "aligned": ["text.en", "text.id"], "saved": "saved"}


@pytest.mark.parametrize("kind", ["tsv", "csv", "aligned", "saved"])
def test_pairs_of_files_are_counted(tmp_path, kind):
    path = sources(tmp_path)[kind]
    path = [str(tmp_path / one) for one in path] if isinstance(path, list) else str(tmp_path / path)
    source = PairSource(path)
    assert count_pairs(source, LANGUAGES) == 7
    assert some_pairs(source, LANGUAGES, 3) == [(f"word {n}", f"kata {n}") for n in (0, 2, 4)]
    assert len(some_pairs(source, LANGUAGES, 100)) == 7


def test_a_data_set_of_the_hub_is_not_fetched():
    source = PairSource("nobody/nothing")
    assert count_pairs(source, LANGUAGES) is None and some_pairs(source, LANGUAGES, 3) == []
