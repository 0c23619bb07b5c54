import importlib
import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import BertConfig, BertModel, BertTokenizer


SCRIPT = Path(__file__).parents[2] / "examples" / "analyze.py"
SOURCE = ["The cat sleeps on Java.", "A cat sleeps near the river.", "Java is a river island.", "The river runs."]
TARGET = ["Kucing tidur di Java.", "Kucing tidur dekat sungai.", "Java ialah pulau sungai.", "Sungai mengalir."]


@pytest.fixture
def arguments(tiny_model, tokenizer, tmp_path):
    """Tiny models, a random encoder and two files of sentences, as command-line arguments."""
    pytest.importorskip("simalign")
    for seed, name in enumerate(("model", "control", "base")):
        torch.manual_seed(seed)
        tiny_model(num_senses=4).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    words = sorted({word for text in SOURCE + TARGET for word in text.lower().rstrip(".").split()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "."]
    vocabulary = {token: index for index, token in enumerate([*special, *words])}
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16)
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(tmp_path / "encoder")
    BertTokenizer(vocab=vocabulary).save_pretrained(tmp_path / "encoder")
    (tmp_path / "en.txt").write_text("\n".join(SOURCE), encoding="utf-8")
    (tmp_path / "id.txt").write_text("\n".join(TARGET), encoding="utf-8")
    paths = {name: str(tmp_path / name) for name in ("model", "control", "base", "encoder")}
    paths |= {"source_file": str(tmp_path / "en.txt"), "target_file": str(tmp_path / "id.txt")}
    paths |= {
        "output": str(tmp_path / "out" / "en-id.json"),
        "cache_dir": str(tmp_path / "cache"),
        "target_language": "id",
    }
    return paths | {"layer": 1, "minimum_count": 1, "iterations": 50}


def run(arguments):
    argv = [str(part) for name, value in arguments.items() for part in (f"--{name}", value)]
    importlib.import_module("sensia_trainer.commands.analyze").main(argv)


def test_it_writes_results_report_and_figures_and_redraws_them(arguments):
    run(arguments)
    out = Path(arguments["output"]).parent
    result = json.loads((out / "en-id.json").read_text(encoding="utf-8"))
    assert result["models"] == {"model": "model", "control": "control", "base": "base"}
    assert result["topology"]["all"]["items"] > 0 and result["versions"]["torch"]
    report = (out / "README.md").read_text(encoding="utf-8")
    assert "## Sense topology (Table 3)" in report and str(out) not in report
    assert len(list(Path(arguments["cache_dir"]).iterdir())) == 1
    figures = {file.name: file.read_bytes() for file in (out / "figures").glob("*.svg")}
    assert len(figures) == 8
    (out / "README.md").unlink()
    (out / "other.json").write_text("{}")  # results of another kind may lie beside
    importlib.import_module("sensia_trainer.commands.analyze").main(["render", str(out)])
    assert (out / "README.md").read_text(encoding="utf-8") == report

    # As the result of a matrix: below its table stand the same sections, with their figures.
    columns = [{"label": "Δρ", "metric": "evaluation.topology.all.difference.mean"}]
    axes = {"language": {"id": {"train": False, "evaluation": {"model": "model"}}}}
    recipe = {"title": "Senses", "evaluation": "analyze.yaml", "evaluation_script": "analyze"}
    (out / "analyze.yaml").write_text("seed: 1\n")
    (out / "senses.yaml").write_text(yaml.safe_dump(recipe | {"axes": axes, "columns": columns}))
    (out / "senses").mkdir()
    (out / "senses" / "id.json").write_text(json.dumps({"evaluation": result}))
    render = ["--results_dir", str(out), "--render_only"]
    importlib.import_module("sensia_trainer.commands.reproduce").main([str(out / "senses.yaml"), *render])
    text = (out / "senses" / "README.md").read_text(encoding="utf-8")
    assert f"| id | 1 | {result['topology']['all']['difference']['mean']:.3f} [" in text
    assert report.partition("\n\n")[2].strip() in text
    assert {file.name: file.read_bytes() for file in (out / "senses" / "figures").glob("*.svg")} == figures
    assert {file.name: file.read_bytes() for file in (out / "figures").glob("*.svg")} == figures


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"output": "result"}, "must be a .json file"),
        ({"minimum_count": 50}, "No aligned content words"),
        ({"layer": 9}, "layers"),
        ({"max_sentences": 2, "target_file": "short"}, "has 4 lines and .* 3"),
    ],
)
def test_bad_input_is_named(arguments, changed, message, tmp_path):
    if changed.get("target_file"):
        (tmp_path / "short").write_text("\n".join(TARGET[:-1]), encoding="utf-8")
        changed = changed | {"target_file": str(tmp_path / "short")}
    with pytest.raises(ValueError, match=message):
        run(arguments | changed)


def test_languages_by_any_code_and_lines_of_any_editor(arguments):
    """Of a byte order mark, carriage returns and characters that end no line, nothing is left."""
    for side, texts in (("source_file", SOURCE), ("target_file", TARGET)):
        texts = [texts[0].replace(" ", "\u2028", 1), *texts[1:]] if side == "source_file" else texts
        Path(arguments[side]).write_bytes(b"\xef\xbb\xbf" + "\r\n".join(texts).encode() + b"\r\n")
    run(arguments | {"source_language": "eng_Latn", "target_language": "ind"})
    output = Path(arguments["output"])
    result = json.loads(output.read_text(encoding="utf-8"))
    assert (result["source_language"], result["target_language"]) == ("en", "id")
    assert "for 'en')" in result["corpus"]["source_filter"] and "for 'id')" in result["corpus"]["target_filter"]
    assert result["corpus"]["sentences"] == len(SOURCE)


def test_a_report_shows_the_figures_that_there_are(arguments):
    run(arguments)
    folder = Path(arguments["output"]).parent
    assert "![Sense drift]" in (folder / "README.md").read_text() and (folder / "figures" / "drift.png").is_file()
    run({name: value for name, value in arguments.items() if name != "base"})
    assert "![Sense drift]" not in (folder / "README.md").read_text()
    assert "![Recall@1 by sense]" in (folder / "README.md").read_text()
    assert not list((folder / "figures").glob("drift.*"))


def test_models_with_too_few_senses_are_refused_before_anything_long(arguments, tiny_model):
    tiny_model(num_senses=2).save_pretrained(arguments["model"])
    with pytest.raises(ValueError, match="takes three of them, but a model has 2"):
        run(arguments)


def test_models_of_other_tokenizers_are_refused(arguments, tokenizer):
    """The same number of tokens is not enough: equal ids must be equal tokens."""
    file = Path(arguments["base"]) / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[100:102]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="`model` and `base` have different vocabularies"):
        run(arguments)


def test_rendering_nothing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no results"):
        importlib.import_module("sensia_trainer.commands.analyze").main(["render", str(tmp_path)])


def test_benchmarks_of_the_senses_by_a_field(arguments, tmp_path):
    (tmp_path / "wsd").mkdir()
    for word in ("cat", "river"):
        folder = tmp_path / "wsd" / word
        folder.mkdir()
        (folder / "classes_map.txt").write_text('{"0": "one", "1": "two"}')
        for split in ("train", "test"):
            (folder / f"{split}.data.txt").write_text(f"1\tThe {word} sleeps\n2\tWhere is {word} ?\n" * 2)
            (folder / f"{split}.gold.txt").write_text("0\n1\n" * 2)
    swords = {
        "contexts": {"c": {"context": SOURCE[0]}},
        "targets": {"t": {"context_id": "c", "target": "sleeps", "offset": 8}},
        "substitutes": {"a": {"target_id": "t", "substitute": "runs"}, "b": {"target_id": "t", "substitute": "is"}},
        "substitute_labels": {"a": ["TRUE"], "b": ["FALSE"]},
    }
    (tmp_path / "swords.json").write_text(json.dumps(swords))
    output = tmp_path / "out" / "senses.json"
    argv = ["--model", arguments["model"], "--output", str(output), "--iterations", "20"]
    argv += ["--coarsewsd", str(tmp_path / "wsd"), "--swords", str(tmp_path / "swords.json"), "--benchmarks"]
    main = importlib.import_module("sensia_trainer.commands.analyze").main
    main([*argv, "disambiguation", "substitution", "steering"])
    result = json.loads(output.read_text(encoding="utf-8"))
    assert result["kind"] == "sense_benchmarks" and result["model"] == "model" and str(tmp_path) not in str(result)
    report = (output.parent / "README.md").read_text(encoding="utf-8")
    for title in ("Disambiguation: CoarseWSD-20", "Lexical substitution: SWORDS", "Steering"):
        assert f"### {title}" in report
    result["steering"]["scale"] = "as it was"
    del result["substitution"]
    output.write_text(json.dumps(result), encoding="utf-8")
    main([*argv, "disambiguation", "substitution", "steering"])  # interrupted between two of them: the others are kept
    again = json.loads(output.read_text(encoding="utf-8"))
    assert again["steering"]["scale"] == "as it was" and "substitution" in again
    # On other data, only what was measured on them is measured again.
    swords["substitute_labels"] = {"a": ["FALSE"], "b": ["TRUE"]}
    (tmp_path / "swords.json").write_text(json.dumps(swords))
    main([*argv, "substitution"])
    other = json.loads(output.read_text(encoding="utf-8"))
    assert other["steering"]["scale"] == "as it was" and other["data"]["steering"] == again["data"]["steering"]
    assert other["data"]["substitution"] != again["data"]["substitution"]
    assert other["substitution"] != again["substitution"]
    (tmp_path / "wsd/cat/test.gold.txt").write_text("1\n0\n" * 2)
    main([*argv, "disambiguation", "steering"])
    last = json.loads(output.read_text(encoding="utf-8"))
    assert last["steering"]["scale"] == 3.0 and last["data"]["steering"] != again["data"]["steering"]
    assert last["disambiguation"] != again["disambiguation"] and last["substitution"] == other["substitution"]
    again["steering"]["scale"] = "as it was"
    output.write_text(json.dumps(again | {"weights": "others"}), encoding="utf-8")
    main([*argv, "steering"])
    assert json.loads(output.read_text(encoding="utf-8"))["steering"]["scale"] == 3.0
    main([*argv, "disambiguation", "substitution", "steering"])
    mean = result["disambiguation"]["average"]["all"]["contributions"]["mean"]
    assert f"| model | sense contributions | all | {mean:.3f}" in report
    with pytest.raises(ValueError, match=r"`benchmarks` may hold .*got 'riddles'"):
        main([*argv, "riddles"])
    with pytest.raises(ValueError, match="`swords` is not set"):
        main([*argv[:6], "--benchmarks", "substitution"])
    with pytest.raises(ValueError, match="`source_file` is not set"):
        main(argv[:6])


@pytest.mark.slow
def test_a_report_replaces_no_other_readme_and_reads_results_alone(arguments, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("# My project\n")
    with pytest.raises(ValueError, match="would replace its README.md, which is of something else"):
        run(arguments)
    assert (out / "README.md").read_text() == "# My project\n" and len(list(out.iterdir())) == 1
    (out / "README.md").unlink()
    (out / "modules.json").write_text("[]")
    (out / "broken.json").write_text("{")
    run(arguments)
    run(arguments)
    assert (out / "README.md").read_text(encoding="utf-8").startswith("# Sense analyses")
