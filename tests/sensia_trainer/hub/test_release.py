"""From a run to a Hub-ready folder: half-precision weights, one copy of the code, a card of reported results."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from sensia_trainer.commands.release import main
from sensia_trainer.hub.folders import CODE
from sensia_trainer.hub.release import release, reported, reported_tasks
from sensia_trainer.hub.validation import validate_card
from sensia_trainer.utils.errors import UsageError
from sensia_trainer.vocabulary.extension import words_added
from tests.tiny import tiny_trainer


def evaluation(recall, accuracy, fingerprint="f00"):
    """What `examples/evaluate.py` writes, as far as a card reads it."""
    flores = {"split": "devtest", "purpose": "reporting", "source": "eng_Latn", "target": "ind_Latn"}
    flores |= {"fingerprint": fingerprint, "sense_recall_source_to_target": recall, "target_perplexity": 50.0}
    flores |= {"sense_recall_source_to_target_interval": [recall - 0.03, recall + 0.03], "pairs": 1012}
    scores = {"cond": {"accuracy": accuracy, "interval": [accuracy - 0.04, accuracy + 0.04], "at_chance": True}}
    task = {"task": "xcopa", "language": "id", "template": "plain", "split": "test", "items": 500, "scores": scores}
    return {"kind": "evaluation", "complete": True, "flores": flores, "tasks": [task]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    trainer = tiny_trainer(folder, max_steps=4, eval_rows=8, eval_steps=4)
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A finished run with the metrics that it measured itself, to do with as one likes."""
    return shutil.copytree(trained, tmp_path / "run")


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))
    return folder / name


def test_the_folder_and_its_reported_results(run, tmp_path):
    rates = {"repetition": 0.25, "in_language": 0.875, "empty": 0.0, "words": 31.0}
    fluency = {"prompts": 200} | dict.fromkeys(("greedy", "sampled", "human"), rates)
    examples = [{"prompt": "Cuaca hari ini", "continuation": "cerah | *sekali*", "greedy": ""}]
    written = {"fluency": fluency, "generation": {"sampling": {}, "examples": examples}}
    files = {
        "after": evaluation(0.71, 0.52) | written,
        "before": evaluation(0.01, 0.50),
        "control": evaluation(0.02, 0.51),
    }
    files = {name: write(tmp_path, f"{name}.json", content) for name, content in files.items()}
    folder = release(run, tmp_path / "cards" / "backpack-tiny-id", license="cc0-1.0", title="Tiny", **files)

    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    code = {path.name for path in CODE.glob("*_backpack.py")}
    assert {path.name for path in folder.glob("*.py")} == code and "modeling_backpack.py" in code
    assert not [path for path in folder.iterdir() if path.is_symlink()]
    card = (folder / "README.md").read_text(encoding="utf-8")
    validate_card(card, to_publish=True)
    assert "\n# Tiny\n" in card and "license: cc0-1.0" in card
    assert "Measured on 1,012 sentence pairs of FLORES-200 devtest." in card
    assert "### What it writes" in card and "first words of 200 sentences" in card
    assert "| greedy | 0.250 | 0.875 | 0.000 | 31.0 |" in card
    assert "| Cuaca hari ini | (ends) | cerah \\| \\*sekali\\* |" in card
    recalls = "| 0.010 [-0.020, 0.040] | 0.710 [0.680, 0.740] | 0.020 [-0.010, 0.050] |"
    assert f"| recall@1 English → Indonesian, sense vectors {recalls}" in card
    scores = "0.500 [0.460, 0.540] | 0.520 [0.480, 0.560] | 0.510 [0.470, 0.550]"
    assert f"| XCOPA, Indonesian test | 500 | {scores} |" in card and "| before | this model | control |" in card
    assert "length-averaged log-likelihood, this model at chance |" in card
    assert "type: cambridgeltl/xcopa\n      config: id\n" in card
    assert "](training_dynamics.png)" in card and (folder / "training_dynamics.svg").is_file()
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["model_name"] == "backpack-tiny-id" and str(tmp_path) not in json.dumps(metrics)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert not {"is_local", "local_files_only", "name_or_path"} & tokenizer.keys()

    again = release(run, tmp_path / "cards" / "backpack-tiny-id")
    assert "FLORES" not in (again / "README.md").read_text(encoding="utf-8")  # what the run measured itself
    assert sorted(path.name for path in folder.parent.iterdir()) == ["backpack-tiny-id"]


def test_what_a_run_measured_before_it_does_not_stand_beside_results_of_other_sentences(run, tmp_path):
    measured = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    write(run, "metrics.json", measured | {"before": measured["after"], "control": measured["after"]})
    after = write(tmp_path, "after.json", evaluation(0.71, 0.52))
    folder = release(run, tmp_path / "cards" / "backpack-tiny-id", after=after)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert not {"before", "control"} & set(metrics) and metrics["history"][0]["step"] == 0
    assert "|  | this model |" in (folder / "README.md").read_text(encoding="utf-8")


def test_scores_on_other_items_stand_on_no_card():
    def scored(accuracy, fingerprint):
        result = evaluation(0.5, accuracy)
        result["tasks"][0]["fingerprint"] = fingerprint
        return result

    results = {"after": scored(0.52, "a"), "before": scored(0.5, "a"), "control": scored(0.9, "b")}
    (row,) = reported_tasks(results)["benchmarks"]
    assert row["before"] == 0.5 and "control" not in row


COPIED_AND_LOADED = """
import json, sys
sys.modules.update(modeling_backpack=None, sensia_trainer=None)
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
    print(model(**tokenizer("sun sea", return_tensors="pt")).logits.sum().item())
"""


def test_a_copy_elsewhere_is_whole(run, tmp_path):
    """What `cp -r` copies of a run and of a release loads without the package and without what it came from."""
    released = release(run, tmp_path / "cards" / "tiny", "float32")
    (tmp_path / "elsewhere").mkdir()
    for folder in (run, released):
        subprocess.run(["cp", "-r", folder, tmp_path / "elsewhere" / folder.name], check=True)
        shutil.rmtree(folder)
    copies = [str(tmp_path / "elsewhere" / folder.name) for folder in (run, released)]
    done = subprocess.run(
        [sys.executable, "-c", COPIED_AND_LOADED, *copies], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split()
    assert first == second


def test_words_that_the_base_was_given_are_kept(run, tmp_path):
    (run / "vocabulary.json").write_text(json.dumps({"first_token": 300, "new_tokens": 5}))
    assert words_added(release(run, tmp_path / "released")) == range(300, 305)


def test_an_older_release_with_links_and_shards_is_replaced(run, tmp_path):
    code, folder = tmp_path / "code", tmp_path / "tiny"
    code.mkdir()
    folder.mkdir()
    (code / "modeling_backpack.py").write_text("# somebody's own")
    (folder / "modeling_backpack.py").symlink_to(code / "modeling_backpack.py")
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"old")
    (folder / "model.safetensors.index.json").write_text("{}")
    (folder / "notes.md").write_text("kept")
    (folder / "languages.png").write_bytes(b"of another run")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "old.jinja").write_text("of another run")
    (folder / "vocabulary.json").write_text('{"first_token": 1, "new_tokens": 2}')
    templates = run / "additional_chat_templates"
    templates.mkdir()
    (run / "chat_template.jinja").write_text("{{ messages }}")
    (templates / "tool_use.jinja").write_text("{{ tools }}")
    for _ in range(2):
        release(run, folder)
        assert [path.name for path in (folder / "additional_chat_templates").iterdir()] == ["tool_use.jinja"]
    assert not (folder / "languages.png").exists() and not (folder / "vocabulary.json").exists()
    assert (code / "modeling_backpack.py").read_text() == "# somebody's own"
    assert [path.name for path in folder.glob("*.safetensors*")] == ["model.safetensors"]
    assert (folder / "notes.md").read_text() == "kept"


def test_a_release_is_refreshed(run, tmp_path, real_pictures):
    folder = release(run, tmp_path / "tiny")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "modeling_backpack.py").write_text("# of an older version")
    for name in ("README.md", "modules.json", "sentence_backpack.py", "training_dynamics.png"):
        (folder / name).unlink()
    assert main(["--refresh", str(folder)]) is None
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_licence_of_text_beside_the_pairs_is_stated_afterwards(run, tmp_path):
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["data"] |= {"licence": "CC0", "replay source": {"name": "a.txt", "texts": 9}}
    write(run, "metrics.json", metrics)
    folder = release(run, tmp_path / "tiny")
    assert "\nlicense: unknown\n" in (folder / "README.md").read_text(encoding="utf-8")
    assert main(["--refresh", str(folder), "--text_licence", "CC BY-NC 4.0"]) is None
    assert "\nlicense: cc-by-nc-4.0\n" in (folder / "README.md").read_text(encoding="utf-8")
    kept = json.loads((folder / "metrics.json").read_text())["data"]
    assert kept["replay source"] == {"name": "a.txt", "texts": 9, "licence": "CC BY-NC 4.0"}
    folder = release(run, tmp_path / "other", text_licence="CC BY-SA")
    assert "\nlicense: cc-by-sa-4.0\n" in (folder / "README.md").read_text(encoding="utf-8")


def test_weights_that_float16_cannot_hold(run, tmp_path):
    weights = load_file(run / "model.safetensors")
    name = next(name for name in weights if name.endswith("c_attn.weight"))
    weights[name][0, 0] = 1e5
    save_file(weights, run / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"float16.*{name}.*infinity.*bfloat16"):
        release(run, tmp_path / "a", "float16")
    assert not (tmp_path / "a").exists()
    folder = release(run, tmp_path / "a")
    assert load_file(folder / "model.safetensors")[name].dtype == torch.bfloat16
    weights[name][0, 0] = float("nan")
    save_file(weights, run / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"{name}.*NaN or infinity"):
        release(run, tmp_path / "b", "float32")
    del weights[name]
    save_file(weights, run / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"missing keys: .*{name}"):
        release(run, tmp_path / "b")
    assert load_file(folder / "model.safetensors")[name].isfinite().all()


def test_a_model_without_senses(tmp_path, tokenizer):
    run = tmp_path / "run"
    GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=64)).save_pretrained(run)
    tokenizer.save_pretrained(run)
    metrics = {"kind": "pretraining", "after": {"perplexity": 61.25}, "data": {"sources": ["books.txt"]}, "config": {}}
    write(run, "metrics.json", metrics)
    folder = release(run, tmp_path / "gpt2-tiny-en")
    card = (folder / "README.md").read_text(encoding="utf-8")
    validate_card(card)
    assert "backbone of a Backpack without its senses" in card and not (folder / "modules.json").exists()
    assert "trust_remote_code" not in card and "get_senses" not in card and "custom_code" not in card


def test_the_folder_of_another_run_is_not_written_over(run, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match="is the folder of a run, which would lose its weights"):
        release(run, tmp_path / "other")
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["settings.json"]


def test_what_cannot_be_released(run, tmp_path):
    with pytest.raises(ValueError, match="`dtype` is 'int8'"):
        release(run, tmp_path / "a", "int8")
    with pytest.raises(ValueError, match="the run is not finished"):
        release(tmp_path, tmp_path / "a")
    (tmp_path / "link").symlink_to(run)
    before = (run / "model.safetensors").read_bytes()
    for same in (run, tmp_path / "link", tmp_path / "x" / ".." / "run"):
        with pytest.raises(ValueError, match="the run's own folder"):
            release(run, same)
    assert (run / "model.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match="not of the same sentences"):
        reported(evaluation(0.7, 0.5), control=evaluation(0.1, 0.5, "bar"))
    english = evaluation(0.7, 0.5)
    english["flores"]["target"] = "swh_Latn"
    with pytest.raises(ValueError, match="`after` is of en and sw, but the run is of en and id: give the results"):
        release(run, tmp_path / "a", after=write(tmp_path, "sw.json", english))
    with pytest.raises(ValueError, match="`before` and `control` stand beside the results .*: give `after` too"):
        release(run, tmp_path / "a", control=write(tmp_path, "control.json", evaluation(0.1, 0.5)))
    metrics = json.loads((run / "metrics.json").read_text())
    write(run, "metrics.json", {name: value for name, value in metrics.items() if name != "languages"})
    with pytest.raises(ValueError, match="`after` is of translated sentences, but .* is about one language"):
        release(run, tmp_path / "a", after=write(tmp_path, "id.json", evaluation(0.7, 0.5)))
    with pytest.raises(UsageError, match="Two folders are needed"):
        main([str(run)])
    with pytest.raises(UsageError, match="--refresh takes folders alone, not --dtype"):
        main(["--refresh", str(run), "--dtype", "float16"])


def test_results_on_a_bitext_of_your_own_are_reported():
    own = evaluation(0.7, 0.5)
    own |= {"flores": None, "bitexts": {"news": own["flores"] | {"split": "test"}}}
    entries = reported(own)
    assert entries["after"]["sense_recall_source_to_target"] == 0.7
    assert entries["evaluation"] == {"name": "news", "split": "test"}
    with pytest.raises(ValueError, match="`after` holds no results on sentence pairs"):
        reported(own | {"bitexts": {}})
