import gzip
import hashlib
import json
import os
import select
import signal
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
import scipy.stats

from sensia_trainer.bitext import fingerprint, load_bitext
from sensia_trainer.curation import data_card, opus, pipeline
from sensia_trainer.curation import stages as stages_of
from sensia_trainer.curation.fetch import MissingCorpora
from sensia_trainer.curation.pipeline import build_bitext
from sensia_trainer.curation.recipe import load_recipe, parse_recipe
from sensia_trainer.curation.stages import draw_uniformly
from tests.sensia_trainer.curation.opus_server import make_index, moses_zip, serve


NUMBERS = "one two three four five six seven eight nine ten".split()
ANGKA = "satu dua tiga empat lima enam tujuh delapan sembilan sepuluh".split()


def sentence(words, n):
    return " ".join(words[(n * k + n // 7) % 10] for k in (1, 2, 3, 5)) + f" {words[n % 10]}."


def encoder(texts):
    """A vector for what a sentence says: the numbers in it, in either language."""
    counts = [
        [sum(w.strip(".") in (a, b) for w in text.split()) + 0.01 for a, b in zip(NUMBERS, ANGKA)] for text in texts
    ]
    vectors = np.array(counts, dtype=np.float64).reshape(len(texts), 10)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def fields(tmp_path):
    """A recipe of two corpora of 20 and 12 pairs with something for every filter."""
    rows = [(sentence(NUMBERS, n), sentence(ANGKA, n), "A" if n % 3 else "B", "open") for n in range(14)]
    rows += [rows[0], (rows[1][0].upper(), rows[1][1], "A", "open")]  # a duplicate and a near duplicate
    rows += [("short", "pendek", "A", "open"), (rows[2][0], "satu " * 30, "A", "open")]  # length, length ratio
    rows += [(rows[3][0], rows[3][0], "B", "open"), (rows[4][0], rows[9][1], "B", "nc")]  # identical, where
    rows += [("This sentence is from a test set.", "Kalimat ini dari sebuah set uji.", "A", "open")]  # contamination
    rows += [(sentence(NUMBERS, 31), sentence(ANGKA, 24), "B", "open")]  # similarity
    with gzip.open(tmp_path / "mixed.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("en\tid\tcorpus\tlicence\n" + "".join("\t".join(row) + "\n" for row in rows))
    with open(tmp_path / "more.jsonl", "w", encoding="utf-8") as file:
        for n in range(40, 52):
            file.write(json.dumps({"translation": {"en": sentence(NUMBERS, n), "id": sentence(ANGKA, n)}}) + "\n")
    (tmp_path / "test.txt").write_text("this sentence is from a TEST set\n")
    mixed = {"path": str(tmp_path / "mixed.tsv.gz"), "corpus_column": "corpus", "where": {"licence": "open"}}
    return {
        "source": "en",
        "target": "id",
        "sources": [mixed | {"licence": {"A": "CC0"}}, {"path": str(tmp_path / "more.jsonl"), "licence": "CC BY 4.0"}],
        "filters": {"source_length": [2, 64], "target_length": [2, 64]},
        "contamination": [str(tmp_path / "test.txt")],
        "semantic": {"encoder": "toy", "threshold": 0.95},
        "keep_columns": [],
        "tokenizer": None,
        "shard_size": 6,
    }


@pytest.fixture
def no_figure(monkeypatch):
    monkeypatch.setattr(data_card, "draw_lengths", lambda statistics, output: None)


def read_folder(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def build(fields, output, **options):
    return build_bitext(parse_recipe(fields), output, encoder=encoder, **options)


def test_every_pair_is_accounted_for(fields, tmp_path, caplog):
    caplog.set_level("INFO")
    statistics = build(fields, tmp_path / "out", command="build it")
    taken = {"where": 1, "length": 1, "length_ratio": 1, "identical": 1, "contamination": 1, "duplicate": 1}
    assert statistics["dropped"] == taken | {"near_duplicate": 1, "similarity": 1}
    assert statistics["read"] == 34 and statistics["pairs"] == 26
    assert statistics["normalised"] == 1  # a space at an end
    for corpus in statistics["corpora"]:
        assert corpus["read"] == sum(corpus["dropped"].values()) + corpus["kept"]
    assert [(one["name"], one["licence"]) for one in statistics["corpora"]] == [
        ("A", "CC0"),
        ("B", "not stated in the recipe"),
        ("more", "CC BY 4.0"),
    ]
    bitext = load_bitext(tmp_path / "out", "en", "id")
    assert bitext.column_names == ["translation", "corpus", "score"] and len(bitext) == 26
    assert min(bitext["score"]) >= 0.95 and Counter(bitext["corpus"])["more"] == 12
    assert fingerprint(bitext) == statistics["fingerprint"]
    for n, side in enumerate(("en", "id")):
        texts = [pair[side] for pair in bitext["translation"]]
        assert statistics["sides"][side]["bytes"] == sum(len(text.encode()) for text in texts)
        histogram = statistics["histograms"]["kept"][("source", "target")[n]]
        assert histogram == np.bincount([len(text.split()) for text in texts], minlength=97).tolist()
    assert sum(statistics["score_histogram"]) == 27
    assert [one.get("where") for one in statistics["corpora"]] == [{"licence": "open"}] * 2 + [None]
    card, recipe = ((tmp_path / "out" / name).read_text() for name in ("README.md", "recipe.yaml"))
    assert statistics["fingerprint"] in card and "build it" in card and "| **all** | 34 |" in card
    assert str(tmp_path) not in card + recipe + (tmp_path / "out" / "statistics.json").read_text()
    assert {"lengths.png", "lengths.svg", "statistics.md"} <= set(read_folder(tmp_path / "out"))
    assert not (tmp_path / "out" / "stages").exists()
    for stage in ("retrieve", "filter", "deduplicate", "score", "sample", "export"):
        assert sum(message.startswith(f"{stage}: ") for message in caplog.messages) == 1


@pytest.mark.parametrize("change", [{"num_proc": 2}, {"shard_size": 1000}])
def test_processes_do_not_change_a_byte_and_shards_not_a_pair(fields, tmp_path, no_figure, change):
    one = build(fields, tmp_path / "one")
    if "num_proc" in change:
        build(fields, tmp_path / "two", **change)
        assert read_folder(tmp_path / "two") == read_folder(tmp_path / "one")
    else:
        assert build(fields | change, tmp_path / "two")["fingerprint"] == one["fingerprint"]


def run_until_killed(fields, output, writes, **options):
    """Run the pipeline in a process that dies by SIGKILL instead of finishing its n-th file; True when it lived."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    status = 1
    try:
        replace, left, me = os.replace, [writes], os.getpid()

        def dying(source, target):
            if os.getpid() == me:
                left[0] -= 1
                if not left[0]:
                    os.kill(me, signal.SIGKILL)
            replace(source, target)

        os.replace = dying
        build(fields, output, **options)
        status = 0
    finally:
        os._exit(status)


@pytest.mark.parametrize("is_opus", [False, True])
def test_killed_at_every_file_of_every_stage_it_ends_with_the_same_bytes(
    fields, tmp_path, no_figure, opus_server, is_opus
):
    if is_opus:
        fields = opus_recipe(fields, opus_server, "Good", "Windows")
    build(fields, tmp_path / "whole")
    deaths, stages, downloads = 0, set(), set()
    # Each run finishes one more shard than the last one and is killed in the next.
    while not run_until_killed(fields, tmp_path / "killed", 2):
        deaths += 1
        assert deaths < 100, "no progress is made"
        assert not (tmp_path / "killed" / "state.json").exists() or deaths > 20
        stages |= {path.name for path in (tmp_path / "killed" / "stages").glob("*") if path.is_dir()}
        downloads |= {path.name for path in (tmp_path / "killed").glob("downloads/*.part")}
        if (tmp_path / "killed" / "stages" / "saved").exists():
            break
    assert {"filter", "deduplicate", "score", "sample"} <= stages and deaths > 20
    assert len(downloads) == (2 if is_opus else 0)
    # The export is made of several files in one go: it is killed at each of them.
    writes = 1
    while not run_until_killed(fields, tmp_path / "killed", writes):
        writes += 1
    assert writes > 5
    assert read_folder(tmp_path / "killed") == read_folder(tmp_path / "whole")


def test_the_workers_of_a_killed_run_end_and_the_next_run_goes_on(fields, tmp_path, no_figure):
    build(fields, tmp_path / "whole")
    reading, writing = os.pipe()  # open for writing as long as the run or one of its workers lives
    os.set_inheritable(writing, True)
    # The recipe, the evaluation texts and the list of corpora are written before the filters' workers start.
    assert not run_until_killed(fields, tmp_path / "killed", 4, num_proc=3)
    os.close(writing)
    assert select.select([reading], [], [], 60)[0] and os.read(reading, 1) == b""
    os.close(reading)
    assert list((tmp_path / "killed" / "stages" / "filter").glob("*.parquet"))
    build(fields, tmp_path / "killed", num_proc=3)
    assert read_folder(tmp_path / "killed") == read_folder(tmp_path / "whole")


def test_mistakes_show_before_anything_is_fetched(fields, tmp_path, no_figure, opus_server, monkeypatch):
    recipe = opus_recipe(fields, opus_server, "Good", "Goud")
    with pytest.raises(ValueError, match="no corpus 'Goud'"):
        build(recipe, tmp_path / "out")
    recipe["sources"] = recipe["sources"][:1]
    with pytest.raises(ValueError, match="no file or folder '/no/such'"):
        build(recipe | {"contamination": ["/no/such"]}, tmp_path / "out")
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="'toy' needs sentence_transformers"):
        patch.setattr("importlib.util.find_spec", lambda name: None)  # whether it is installed or not
        build_bitext(parse_recipe(recipe), tmp_path / "out")
    assert opus_server.requests == []
    # None of these runs did anything, so the folder is free.
    assert build(recipe, tmp_path / "out")["read"] == 9


def test_a_finished_folder_is_left_as_it_is_and_another_recipe_refused(fields, tmp_path, no_figure):
    first = build(fields, tmp_path / "out")
    before = read_folder(tmp_path / "out")
    assert build(fields, tmp_path / "out") == first and read_folder(tmp_path / "out") == before
    with pytest.raises(ValueError, match=r"another recipe or to other files \(other seed\); .*or delete this one"):
        build(fields | {"seed": 14}, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "full" / "recipe.json.7.part").write_text("of whom?")
    with pytest.raises(ValueError, match="is not empty"):
        build(fields, tmp_path / "full")
    assert (tmp_path / "full" / "recipe.json.7.part").is_file()


def test_only_its_own_partial_files_are_removed(fields, tmp_path, no_figure):
    for name in ("film.mkv.part", "model.safetensors.12.part"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("of another program")
        with pytest.raises(ValueError, match="is not empty"):
            build(fields, folder)
        assert (folder / name).read_text() == "of another program"
    out = tmp_path / "out"
    out.mkdir()
    (out / "recipe.json.12.part").write_text("{")  # what a killed run was writing
    build(fields, out)
    (out / "film.mkv.part").write_text("put here later")
    (out / "statistics.md.12.part").write_text("|")
    build(fields, out)
    assert [file.name for file in out.glob("*.part")] == ["film.mkv.part"]


def test_default_bounds_of_length_are_what_folders_of_old_were_made_with(fields, tmp_path, no_figure):
    explicit = fields | {"filters": {"source_length": [4, 64], "target_length": [4, 64]}}
    statistics = build(explicit, tmp_path / "out")
    assert statistics["filters"]["target_length"] == [4, 64]
    assert build(fields | {"filters": {}}, tmp_path / "out") == statistics


def test_files_that_have_changed_are_refused(fields, tmp_path, no_figure):
    statistics, more = build(fields, tmp_path / "out"), tmp_path / "more.jsonl"
    assert sorted(statistics["files"]) == [
        "contamination[0]/test.txt",
        "sources[0]/mixed.tsv.gz",
        "sources[1]/more.jsonl",
    ]
    assert statistics["files"]["sources[1]/more.jsonl"] == hashlib.sha256(more.read_bytes()).hexdigest()
    # The first shard of the filter is the fourth file that a run writes.
    assert not run_until_killed(fields, tmp_path / "killed", 5)
    for path in (more, tmp_path / "test.txt"):
        was = path.read_bytes()
        path.write_bytes(was.replace(b"e", b"a"))
        with pytest.raises(ValueError, match=rf"other files \(other {path}\); .*or delete this one"):
            build(fields, tmp_path / "out")
        with pytest.raises(ValueError, match=rf"\(other {path}\); .*or delete .*killed/stages to begin again"):
            build(fields, tmp_path / "killed")
        path.write_bytes(was)
    assert build(fields, tmp_path / "killed") == statistics
    more.unlink()
    assert build(fields, tmp_path / "out") == statistics  # of what is gone, nothing is known


def test_what_datasets_computes_does_not_change_a_saved_dataset(fields, tmp_path, no_figure):
    rows = [{"eng": sentence(NUMBERS, n), "ind": sentence(ANGKA, n)} for n in range(9)]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    recipe = fields | {"sources": [{"path": str(tmp_path / "saved")}]}
    assert build(recipe, tmp_path / "out") == build(recipe, tmp_path / "out")
    assert list((tmp_path / "saved").glob("cache-*"))


def test_caps_and_sample(fields, tmp_path, no_figure, caplog):
    statistics = build(fields | {"cap_per_corpus": 5, "cap_total": 12, "sample": 8}, tmp_path / "out")
    assert statistics["dropped"]["total_cap"] > 0 and statistics["dropped"]["sample"] == 4 and statistics["pairs"] == 8
    assert all(corpus["kept"] <= 5 for corpus in statistics["corpora"])
    again = build(fields | {"cap_per_corpus": 5, "cap_total": 12, "sample": 8, "seed": 99}, tmp_path / "other")
    assert again["fingerprint"] != statistics["fingerprint"]
    assert build(fields | {"sample": 100}, tmp_path / "all")["pairs"] == 26
    assert "sample=100 is more than the 26 pairs there are; all are kept" in caplog.messages


def test_only_so_many_are_scored(fields, tmp_path, no_figure):
    statistics = build(fields | {"semantic": fields["semantic"] | {"max_pairs": 10}}, tmp_path / "out")
    assert statistics["dropped"]["not_scored"] == 17 and sum(statistics["score_histogram"]) == 10


def test_draw_is_exactly_so_many_uniformly_and_spread_by_chance():
    sizes, count = [3, 0, 5, 2], 4
    drawn = Counter()
    for seed in range(2000):
        masks = draw_uniformly(sizes, count, np.random.default_rng(seed))
        assert [len(mask) for mask in masks] == sizes
        rows = np.flatnonzero(np.concatenate(masks))
        assert len(rows) == count
        drawn.update([tuple(rows)])
    # all 210 sets of 4 among 10 rows are equally likely
    assert len(drawn) == 210
    assert scipy.stats.chisquare(list(drawn.values())).pvalue > 0.001
    assert draw_uniformly(sizes, 10, np.random.default_rng(0)) == [None] * 4
    assert draw_uniformly(sizes, None, np.random.default_rng(0)) == [None] * 4


class OneOfTwo:
    """What the pipeline asks of an `accelerate.Accelerator`, for the second of two processes."""

    process_index, num_processes, is_main_process, device = 1, 2, False, "cpu"

    def wait_for_everyone(self):
        pass


def test_scores_are_shared_by_processes(fields, tmp_path, no_figure):
    build(fields, tmp_path / "whole", keep_files=True)
    recipe = parse_recipe(fields)
    done = tmp_path / "shared" / "stages"
    (tmp_path / "shared").mkdir()
    os.rename(tmp_path / "whole" / "stages", done)
    everything = read_folder(done / "score")
    for path in (done / "score").iterdir():
        path.unlink()
    stages_of.score_shards(recipe, done, encoder, OneOfTwo())
    names = sorted(everything)
    assert sorted(read_folder(done / "score")) == names[1::2]
    stages_of.score_shards(recipe, done, encoder, None)
    assert read_folder(done / "score") == everything


def test_the_shards_and_processes_do_not_change_a_margin(fields, tmp_path, no_figure, monkeypatch):
    monkeypatch.setattr(stages_of, "REFERENCE", 12)
    margin = fields | {"semantic": {"encoder": "toy", "mode": "margin", "threshold": 1.5}}

    def scores(fields, name, **options):
        build(fields, tmp_path / name, **options)
        rows = load_bitext(tmp_path / name, "en", "id")
        return {tuple(row["translation"].values()): row["score"] for row in rows}

    whole = scores(margin | {"shard_size": 1000}, "whole")
    assert 10 < len(whole) < 26
    assert scores(margin, "parts", keep_files=True) == pytest.approx(whole)
    some = scores(margin | {"semantic": margin["semantic"] | {"max_pairs": 15}}, "some")
    assert some and some == pytest.approx({pair: whole[pair] for pair in some})
    stages = tmp_path / "parts" / "stages"
    everything = read_folder(stages / "score")
    for path in (stages / "score").iterdir():
        path.unlink()
    for accelerator in (OneOfTwo(), None):
        stages_of.score_shards(parse_recipe(margin), stages, encoder, accelerator)
    assert read_folder(stages / "score") == everything
    with pytest.raises(ValueError, match="semantic.neighbours=27: .* less than the 27 pairs"):
        scores(margin | {"semantic": margin["semantic"] | {"neighbours": 27}}, "few")


def test_without_a_score(fields, tmp_path, no_figure):
    statistics = build(fields | {"semantic": None}, tmp_path / "out")
    assert statistics["pairs"] == 27 and statistics["score_histogram"] is None
    assert load_bitext(tmp_path / "out", "en", "id").column_names == ["translation", "corpus"]


def test_nothing_left_names_the_filter_that_took_it(fields, tmp_path, no_figure):
    with pytest.raises(ValueError, match=r"stage 'filter' left no pair of 34; taken by: length 33, where 1\. Loosen"):
        build(fields | {"filters": {"source_length": [90, 99]}}, tmp_path / "a")
    assert build(fields, tmp_path / "a")["pairs"] == 26
    with pytest.raises(ValueError, match="stage 'score' left no pair of 27; taken by: similarity 27"):
        build(fields | {"semantic": {"encoder": "toy", "threshold": 1.5}}, tmp_path / "b")


def test_an_empty_corpus_and_columns_that_are_not_there(fields, tmp_path, no_figure):
    (tmp_path / "empty.tsv").write_text("en\tid\n")
    with pytest.raises(ValueError, match="corpus 'empty' holds no pairs"):
        build(fields | {"sources": [{"path": str(tmp_path / "empty.tsv")}]}, tmp_path / "a")
    for n, change in enumerate(({"where": {"colour": "red"}}, {"corpus_column": "colour"})):
        with pytest.raises(ValueError, match="colour.*there are: corpus, licence"):
            build(fields | {"sources": [fields["sources"][0] | change]}, tmp_path / f"b{n}")
    # What adaptation refuses is refused here.
    rows = "".join(f"it’s {n}\tya {n}\n" for n in range(12))
    (tmp_path / "bytes.tsv").write_bytes(b"en\tid\n" + rows.encode("cp1252"))
    with pytest.raises(ValueError, match="bytes.tsv is not in UTF-8 .12 lines are none.*iconv -f CP1252"):
        build(fields | {"sources": [{"path": str(tmp_path / "bytes.tsv")}]}, tmp_path / "d")
    (tmp_path / "bad.tsv").write_text("en\tid\none\tsatu\n" + "alone\n" * 5)
    with pytest.raises(ValueError, match="bad.tsv' has 5 malformed lines beside 1 pairs"):
        build(fields | {"sources": [{"path": str(tmp_path / "bad.tsv")}]}, tmp_path / "e")
    with pytest.raises(ValueError, match="no such file or folder"):
        build(fields | {"sources": [{"path": "/no/such.tsv"}]}, tmp_path / "c")


def test_invalid_utf8_is_replaced_counted_and_reported(fields, tmp_path, no_figure, caplog):
    (tmp_path / "bad.tsv").write_bytes(b"en\tid\none two three \xff\tsatu dua tiga\n")
    recipe = fields | {"sources": [{"path": str(tmp_path / "bad.tsv")}], "semantic": None}
    statistics = build(recipe, tmp_path / "out")
    assert statistics["problems"] == {"bad": {"invalid_utf8": 1}} and "bad: invalid utf8: 1" in caplog.text
    assert "bad: invalid utf8: 1" in (tmp_path / "out" / "README.md").read_text()
    assert load_bitext(tmp_path / "out", "en", "id")[0]["translation"]["en"] == "one two three \ufffd"


def test_a_column_that_some_lines_lack(fields, tmp_path, no_figure):
    rows = [{"en": sentence(NUMBERS, n), "id": sentence(ANGKA, n)} for n in range(9)]
    rows = [row | ({"corpus": "A", "licence": "open"} if n < 7 else {}) for n, row in enumerate(rows)]
    (tmp_path / "ragged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"path": str(tmp_path / "ragged.jsonl")}
    recipe = fields | {"sources": [source | {"corpus_column": "corpus"}], "keep_columns": ["licence"]}
    build(recipe, tmp_path / "out")
    bitext = load_bitext(tmp_path / "out", "en", "id")
    assert bitext["corpus"] == ["A"] * 7 + ["ragged"] * 2 and bitext["licence"] == ["open"] * 7 + [None] * 2
    statistics = build(recipe | {"sources": [source | {"where": {"licence": "open"}}]}, tmp_path / "where")
    assert statistics["dropped"]["where"] == 2


def test_a_corpus_of_two_sources_has_the_licences_of_both(fields, tmp_path, no_figure):
    sources = []
    for n, licence in enumerate(["CC BY 4.0", "CC BY-NC 4.0"]):
        rows = [f"{sentence(NUMBERS, 20 * n + i)}\t{sentence(ANGKA, 20 * n + i)}\ttatoeba" for i in range(9)]
        (tmp_path / f"{n}.tsv").write_text("\n".join(["en\tid\tcorpus", *rows]))
        sources.append({"path": str(tmp_path / f"{n}.tsv"), "corpus_column": "corpus", "licence": licence})
    (corpus,) = build(fields | {"sources": sources}, tmp_path / "out")["corpora"]
    assert corpus["read"] == 18
    assert (corpus["licence"], corpus["origin"]) == ("CC BY 4.0; CC BY-NC 4.0", "0.tsv; 1.tsv")


def test_aligned_files_of_different_lengths_are_refused_however_few_pairs_are_read(fields, tmp_path, no_figure):
    paths = [str(tmp_path / "a.en"), str(tmp_path / "a.id")]
    for path, words, number in zip(paths, (NUMBERS, ANGKA), (12, 11)):
        Path(path).write_bytes(side(words, range(number)))
    with pytest.raises(ValueError, match="different lengths"):
        build(fields | {"sources": [{"path": paths, "max_pairs": 5}]}, tmp_path / "out")


def test_two_line_aligned_files_as_a_list(fields, tmp_path, no_figure):
    paths = [str(tmp_path / "a.en"), str(tmp_path / "a.id")]
    for path, words in zip(paths, (NUMBERS, ANGKA)):
        Path(path).write_bytes(side(words, range(9)))
    statistics = build(fields | {"sources": [{"path": paths}]}, tmp_path / "out")
    assert statistics["read"] == 9 and statistics["corpora"][0]["origin"] == "a.en,a.id"


def test_pairs_changed_by_normalisation_are_counted(fields, tmp_path, no_figure):
    rows = ["One, two, three.\tSatu, dua, tiga.", "four “five” six\tempat lima enam", "Seven  eight\tTujuh… delapan"]
    (tmp_path / "quotes.tsv").write_text("\n".join(["en\tid", *rows]), encoding="utf-8")
    recipe = fields | {"sources": [{"path": str(tmp_path / "quotes.tsv")}], "semantic": None}
    statistics = build(recipe, tmp_path / "out")
    assert statistics["normalised"] == statistics["corpora"][0]["normalised"] == 2
    assert load_bitext(tmp_path / "out", "en", "id")[1]["translation"]["en"] == 'four "five" six'


def test_the_recipe_to_share_makes_the_same_bitext(fields, tmp_path, no_figure, monkeypatch):
    statistics = build(fields | {"cap_per_corpus": 9, "sample": 20}, tmp_path / "out")
    monkeypatch.chdir(tmp_path)  # it gives the names of the files only
    recipe = load_recipe(tmp_path / "out" / "recipe.yaml")
    assert build_bitext(recipe, tmp_path / "again", encoder=encoder) == statistics


def test_a_saved_dataset_is_a_source(fields, tmp_path, no_figure):
    rows = [{"en": sentence(NUMBERS, n), "id": sentence(ANGKA, n)} for n in range(9)]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    recipe = fields | {"sources": [{"path": str(tmp_path / "saved"), "max_pairs": 7}]}
    assert build(recipe, tmp_path / "out")["read"] == 7
    kind = datasets.Features({"translation": {"en": datasets.Value("string"), "id": datasets.Value("string")}})
    nested = datasets.Dataset.from_dict({"translation": [*rows, None]}, features=kind)
    nested.save_to_disk(tmp_path / "nested")
    statistics = build(fields | {"sources": [{"path": str(tmp_path / "nested")}]}, tmp_path / "out of nested")
    assert statistics["read"] == 10 and statistics["pairs"] == 9


# --- OPUS ------------------------------------------------------------------------------------------------------------


def side(words, numbers, end="\n"):
    return end.join(sentence(words, n) for n in numbers).encode()


@pytest.fixture
def opus_server(tmp_path, monkeypatch):
    """Good, Windows (CRLF and BOM), Short (sides differ), Cut (truncated), Climber, Absent (404) and JW300 (gone)."""
    monkeypatch.setattr(opus.time, "sleep", lambda seconds: None)
    names = ["Good", "Windows", "Short", "Cut", "Climber", "Absent"]
    index = make_index(tmp_path / "index.db", [(name, "en", "id", "v1", 9, True) for name in names])
    monkeypatch.setattr(opus, "open_index", lambda open_index=opus.open_index: open_index(index))
    good = moses_zip("Good", "en", "id", side(NUMBERS, range(9)), side(ANGKA, range(9)))
    archives = {
        "Good": good,
        "Windows": moses_zip(
            "Windows",
            "en",
            "id",
            b"\xef\xbb\xbf" + side(NUMBERS, range(9, 18), "\r\n"),
            side(ANGKA, range(9, 18)) + b"\n",
        ),
        "Short": moses_zip("Short", "en", "id", side(NUMBERS, range(9)), side(ANGKA, range(8))),
        "Cut": good[:-40],
        "Climber": moses_zip("Climber", "en", "id", b"a\n", b"b\n", extra=[("../../../climbed", b"x")]),
    }
    with serve({f"/OPUS-{name}/v1/moses/en-id.txt.zip": data for name, data in archives.items()}) as server:
        yield server


def opus_recipe(fields, server, *names):
    return fields | {"sources": [{"opus": name} for name in names], "opus_url": server.address}


def test_opus_corpora_are_fetched_and_removed(fields, tmp_path, no_figure, opus_server):
    statistics = build(opus_recipe(fields, opus_server, "JW300", "Good", "Windows"), tmp_path / "out")
    assert [(one["name"], one["read"]) for one in statistics["corpora"]] == [("Good", 9), ("Windows", 9)]
    assert [statistics["corpora"][0][name] for name in ("release", "codes")] == ["v1", "en-id"]
    assert [one["name"] for one in statistics["missing"]] == ["JW300"]
    assert "JW300 en-id: withdrawn" in (tmp_path / "out" / "README.md").read_text()
    texts = [pair["en"] for pair in load_bitext(tmp_path / "out", "en", "id")["translation"]]
    assert not any("\ufeff" in text or "\r" in text for text in texts)
    assert not (tmp_path / "out" / "downloads").exists()


def test_missing_corpora_end_the_run_unless_they_are_allowed(fields, tmp_path, no_figure, opus_server):
    recipe = opus_recipe(fields, opus_server, "Good", "Short", "Cut", "Climber", "Absent")
    with pytest.raises(MissingCorpora) as error:
        build(recipe, tmp_path / "out")
    for part in (
        "4 of 5 corpora are missing",
        "Short.en-id.en has 9 lines, Short.en-id.id has 8",
        "not a sound archive",
        "climbs out",
        "HTTP 404",
        "--allow-missing",
    ):
        assert part in str(error.value)
    assert [path.name for path in (tmp_path / "out" / "downloads").iterdir()] == ["Good_v1_moses_en-id.txt.zip"]
    assert not list(tmp_path.rglob("climbed"))
    asked = len(opus_server.requests)
    statistics = build(recipe, tmp_path / "out", allow_missing=True, keep_files=True)
    assert len(statistics["missing"]) == 4 and statistics["read"] == 9
    assert sum("Good" in path for path, _ in opus_server.requests[asked:]) == 0
    assert (tmp_path / "out" / "downloads" / "Good_v1_moses_en-id.txt.zip").is_file()


def test_a_missing_corpus_is_tried_again_also_at_a_mirror(fields, tmp_path, no_figure, opus_server, monkeypatch):
    archives, absent = opus_server.files, "/OPUS-Absent/v1/moses/en-id.txt.zip"
    archive = moses_zip("Absent", "en", "id", side(NUMBERS, range(20, 29)), side(ANGKA, range(20, 29)))
    recipe = opus_recipe(fields, opus_server, "Good", "Absent")
    whole = [build(opus_recipe(fields, opus_server, "Good"), tmp_path / "good")]
    for folder in ("refused", "allowed"):
        with pytest.raises(MissingCorpora, match="1 of 2 corpora are missing"):
            build(recipe, tmp_path / folder)
    with monkeypatch.context() as patch:  # it goes on without the corpus, and is stopped before the end
        patch.setattr(pipeline, "_export", None)
        with pytest.raises(TypeError):
            build(recipe, tmp_path / "allowed", allow_missing=True)
    with pytest.raises(MissingCorpora, match="1 of 2 corpora are missing"):
        build(recipe, tmp_path / "allowed")
    with serve(archives | {absent: archive}) as mirror:
        whole.append(build(opus_recipe(fields, mirror, "Good", "Absent"), tmp_path / "whole"))
        asked = len(mirror.requests)
        for folder in ("refused", "allowed"):
            assert build(recipe | {"opus_url": mirror.address}, tmp_path / folder) == whole[1]
        assert [path for path, _ in mirror.requests[asked:]] == [absent] * 2
    assert [one["read"] for one in whole] == [9, 18]
    # A recipe without it is as good, and fetches nothing anew.
    with pytest.raises(MissingCorpora):
        build(recipe, tmp_path / "shorter")
    asked = len(opus_server.requests)
    assert build(opus_recipe(fields, opus_server, "Good"), tmp_path / "shorter") == whole[0]
    assert len(opus_server.requests) == asked


def test_nothing_can_be_had(fields, tmp_path, opus_server):
    recipe = opus_recipe(fields, opus_server, "Good")
    opus_server.shutdown()
    opus_server.server_close()
    with pytest.raises(MissingCorpora, match="could not be fetched in 5 attempts"):
        build(recipe, tmp_path / "out")
    with pytest.raises(MissingCorpora, match="every corpus is missing"):
        build(recipe, tmp_path / "out", allow_missing=True)
    with pytest.raises(ValueError, match="no corpus 'Goud'; near names are: Good"):
        build(opus_recipe(fields, opus_server, "Goud"), tmp_path / "other")
