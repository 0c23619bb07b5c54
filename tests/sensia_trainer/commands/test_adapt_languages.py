"""`sensia adapt` with several languages, from a recipe to the card, and one more language on top of them."""

import json

import pytest
from transformers import AutoTokenizer

from modeling_backpack import BackpackForCausalLM
from sensia_trainer.commands.adapt import main
from sensia_trainer.hub.release import refresh, release
from sensia_trainer.hub.validation import validate_card
from sensia_trainer.utils.files import read_json
from sensia_trainer.vocabulary.extension import keep_report, words_added
from tests.tiny import tiny_bitext, tiny_model, tiny_tokenizer


FIELDS = "--max_steps 4 --per_device_train_batch_size 8 --logging_steps 2 --eval_strategy steps --eval_steps 2"
FIELDS += " --save_strategy no --use_cpu true --report_to none --disable_tqdm true --licence CC0"


def write(folder, name, source, target, of):
    pairs = enumerate(tiny_bitext(60)["translation"])
    rows = [f"{pair['en' if source == 'en' else 'id']} {n}\t{of(pair['id'])} {n}" for n, pair in pairs]
    held_out, rows = rows[:6], rows[6:]
    header = f"{source}\t{target}\n"
    (folder / f"held-{name}").write_text(header + "\n".join(held_out) + "\n", encoding="utf-8")
    (folder / name).write_text(header + "\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of English, Indonesian and Swahili in `out`, and one that learned Turkish on top in `more`."""
    folder = tmp_path_factory.mktemp("languages")
    tokenizer = tiny_tokenizer()
    for part in (tiny_model(tokenizer), tokenizer):
        part.save_pretrained(folder / "base")
    write(folder, "id.tsv", "en", "id", str)
    write(folder, "sw.tsv", "en", "sw", lambda text: text[::-1])
    write(folder, "tr.tsv", "en", "tr", str.upper)
    (folder / "recipe.yaml").write_text(
        "model: base\nbitext:\n  id: id.tsv\n  sw: {path: sw.tsv, max_pairs: 40}\n"
        "eval_bitext: {id: held-id.tsv, sw: held-sw.tsv}\nvocabulary_size: 12\noutput_dir: out\n"
    )
    held_out = {code: f"held-{code}.tsv" for code in ("id", "sw", "tr")}
    bitext = {"tr": "tr.tsv", "id": {"path": "id.tsv", "max_pairs": 30}, "sw": {"path": "sw.tsv", "max_pairs": 30}}
    more = ["--model", "out", "--bitext", json.dumps(bitext), "--output_dir", "more", "--vocabulary_size", "6"]
    more += ["--vocabulary_languages", "tr", "--language_temperature", "1", "--source_lm_weight", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["recipe.yaml", *FIELDS.split()])
        main([*more, *FIELDS.split(), "--eval_bitext", json.dumps(held_out)])
    return folder


def test_new_words_of_every_run_are_known_to_the_next(folder):
    sizes = [len(AutoTokenizer.from_pretrained(folder / name)) for name in ("base", "out", "more")]
    assert words_added(folder / "out") == range(sizes[0], sizes[1])
    assert words_added(folder / "more") == range(sizes[0], sizes[2])
    assert not words_added(folder / "base")
    (folder / "kept").mkdir()
    keep_report(folder / "more", folder / "kept")
    assert words_added(folder / "kept") == words_added(folder / "more")


def test_every_language_is_in_metrics_card_and_figure(folder):
    metrics = read_json(folder / "out" / "metrics.json")
    assert metrics["languages"] == {"source": "en", "targets": ["id", "sw"], "pairs": ["en-id", "en-sw"]}
    assert list(metrics["by_pair"]) == ["en-id", "en-sw"]
    for one in metrics["by_pair"].values():
        assert one["after"]["pairs"] == 6 and one["data"]["fingerprint"]
        assert one["before"]["target_bits_per_byte"] != one["after"]["target_bits_per_byte"]
        assert "random_sense_recall_source_to_target" in one["after"]
    given = read_json(folder / "out" / "given.json")["result"]  # before there were new words
    for name, one in metrics["by_pair"].items():
        assert one["before"]["source_bits_per_byte"] == given[f"before_{name}_source_bits_per_byte"]
    values = [one["after"]["target_bits_per_byte"] for one in metrics["by_pair"].values()]
    assert metrics["after"]["target_bits_per_byte"] == pytest.approx(sum(values) / 2)
    assert metrics["data"]["pairs"] == sum(metrics["data"]["pairs by languages"].values())
    assert metrics["data"]["licence"] == "CC0"
    assert any("loss_lm_en-sw" in row for row in metrics["history"])
    card = (folder / "out" / "README.md").read_text(encoding="utf-8")
    validate_card(card, to_publish=True)
    assert "English–Indonesian and Swahili" in card and "- id\n- sw\n" in card
    assert "| English–Swahili | this model |" in card and "| batch languages | mixed |" in card
    assert (folder / "out" / "training_dynamics.png").is_file()


def test_each_language_gets_its_share_of_the_words(folder):
    reports = read_json(folder / "out" / "metrics.json")["vocabulary"]["languages"]
    assert {code: report["new_tokens"] for code, report in reports.items()} == {"id": 6, "sw": 6}
    rows = len(BackpackForCausalLM.from_pretrained(folder / "out").get_input_embeddings().weight)
    assert rows == reports["sw"]["first_token"] + 6 == reports["id"]["first_token"] + 12


def test_one_more_language_is_measured_beside_the_earlier_ones(folder):
    before, metrics = (read_json(folder / name / "metrics.json") for name in ("out", "more"))
    assert list(metrics["by_pair"]) == ["en-tr", "en-id", "en-sw"]
    assert list(metrics["vocabulary"]["languages"]) == ["tr"]
    assert metrics["vocabulary"]["languages"]["tr"]["source_change"] == 0  # English and the earlier languages
    # The model before is the one after the first adaptation, on the same held-out sentences.
    key = "sense_recall_source_to_target"
    assert metrics["by_pair"]["en-id"]["before"][key] == before["by_pair"]["en-id"]["after"][key]
    assert any("loss_lm_source_en-id" in row for row in metrics["history"])


def test_a_release_shows_the_matrix(folder, tmp_path):
    codes = ["en", "id", "sw"]
    values = {f"{one}-{other}": 0.25 for one in codes for other in codes if one != other}
    matrix = {
        "languages": codes,
        "source": "en",
        "sentences": 9,
        "split": "devtest",
        "fingerprint": "f",
        "context": values,
    }
    matrix |= {"sense": values | {"zero_shot": 0.125, "zero_shot_interval": [0.1, 0.15]}}
    matrix |= {"bits_per_byte": {"en": 1.0, "id": 2.0, "sw": 3.0, "sw_interval": [2.5, 3.5]}}
    matrix |= {"sense_beyond_overlap": {"en-sw": 0.0625, "from_source": 0.0625}}
    scores = {"cond": {"accuracy": 0.53, "interval": [0.5, 0.56], "at_chance": False}}
    task = {"task": "xcopa", "language": "sw", "template": "plain", "split": "test", "items": 500, "scores": scores}
    rates = {"repetition": 0.25, "in_language": 0.875, "empty": 0.0, "words": 31.0}
    written = {"fluency": {"prompts": 7} | dict.fromkeys(("greedy", "sampled", "human"), rates)}
    after = tmp_path / "after.json"
    measured = {"kind": "evaluation", "complete": True, "matrix": matrix, "tasks": [task]} | written
    after.write_text(json.dumps(measured))
    made = release(folder / "out", tmp_path / "released", after=after)
    card = (made / "README.md").read_text(encoding="utf-8")
    validate_card(card)
    assert (
        "Between two languages other than English, which never met in training, recall@1 is 0.125 [0.100, 0.150]"
        in card
    )
    assert "| English–Swahili | this model | 0.250 | 0.250 |" in card and "3.000 [2.500, 3.500]" in card
    assert "where overlap fails, sense R@1 →" in card and " 0.062 |" in card
    assert "| XCOPA, Swahili test | 500 | 0.530 [0.500, 0.560] |" in card and "first words of 7 sentences" in card
    assert "](languages.png)" in card and (made / "languages.svg").is_file()
    metrics = read_json(made / "metrics.json")
    assert metrics["after"]["target_bits_per_byte"] == 2.5
    assert refresh(made).read_text(encoding="utf-8") == card
    matrix["languages"] = ["en", "id"]
    after.write_text(json.dumps({"kind": "evaluation", "complete": True, "matrix": matrix, "tasks": []}))
    with pytest.raises(ValueError, match="results of `after` have no matrix with 'sw'"):
        release(folder / "out", tmp_path / "again", after=after)
