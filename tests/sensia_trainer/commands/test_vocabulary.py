import json

import pytest
from transformers import AutoTokenizer

from modeling_backpack import BackpackForCausalLM
from sensia_trainer import cli
from sensia_trainer.commands.vocabulary import main
from sensia_trainer.evaluation.vectors import vectors_of
from sensia_trainer.vocabulary.extension import keep_report, words_added
from tests.tiny import tiny_bitext, tiny_tokenizer


@pytest.fixture
def arguments(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokenizer, model = tiny_tokenizer(), tiny_model()
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained("base")
    tokenizer.save_pretrained("base")
    rows = [f"{pair['en']}\t{pair['id']}" for pair in tiny_bitext(60)["translation"]]
    (tmp_path / "pairs.tsv").write_text("en\tid\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return "base --bitext pairs.tsv --target_language id --size 10 --output_dir words".split()


def test_the_folder_holds_a_model_with_new_words(arguments, tmp_path, capsys):
    (tmp_path / "base" / "sentence_backpack.json").write_text('{"pooling": "mixture", "context_state": "combined"}')
    main(arguments)
    model, tokenizer = BackpackForCausalLM.from_pretrained("words"), AutoTokenizer.from_pretrained("words")
    report = json.loads((tmp_path / "words" / "vocabulary.json").read_text(encoding="utf-8"))
    assert model.config.vocab_size == len(tokenizer) == report["first_token"] + report["new_tokens"]
    assert {"modeling_backpack.py", "config.json"} <= {path.name for path in (tmp_path / "words").iterdir()}
    assert words_added("words") == range(report["first_token"], len(tokenizer)) and not words_added("base")
    assert cli.main(["convert", "words", "converted", "--tokenizer", "words"]) == 0
    assert words_added("converted") == words_added("words")
    for folder in ("words", "converted"):
        assert vectors_of(folder) == {"pooling": "mixture", "context_state": "combined"}
        assert (tmp_path / folder / "modules.json").is_file()
    assert "new words; " in capsys.readouterr().out
    with pytest.raises(ValueError, match="exists already"):
        main(arguments)


def test_words_of_several_calls_are_all_new(arguments):
    main(arguments)
    once = words_added("words")
    again = ["words" if word == "base" else "more" if word == "words" else word for word in arguments]
    main(["5" if word == "10" else word for word in again])
    assert words_added("more") == range(once.start, len(AutoTokenizer.from_pretrained("more")))
    assert len(words_added("more")) > len(once)


def test_pairs_are_of_any_sources_that_adaptation_takes(arguments, tmp_path):
    lines = (tmp_path / "pairs.tsv").read_text(encoding="utf-8").splitlines()
    for name, part in (("one.tsv", lines[1:30]), ("two.tsv", lines[30:])):
        (tmp_path / name).write_text("\n".join([lines[0], *part]) + "\n", encoding="utf-8")
    given = ["one.tsv", json.dumps({"path": "two.tsv", "name": "second"})]
    at = arguments.index("pairs.tsv")
    main([*arguments[:at], *given, *arguments[at + 1 :]])
    main(["whole" if word == "words" else word for word in arguments])
    reports = [json.loads((tmp_path / name / "vocabulary.json").read_text()) for name in ("words", "whole")]
    assert reports[0] == reports[1]
    (tmp_path / "file").write_text("")
    with pytest.raises((ValueError, OSError), match="file"):
        main(["file/words" if word == "words" else word for word in arguments])


def test_columns_that_are_no_languages_give_no_words(arguments, tmp_path):
    lines = (tmp_path / "pairs.tsv").read_text(encoding="utf-8").splitlines()[1:]
    numbered = [f"{number}\t" + line.split("\t")[0] for number, line in enumerate(lines)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["id\ten", *numbered]) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"the Indonesian \(id\) side of the bitext mostly has no words"):
        main(arguments)
    assert not (tmp_path / "words").exists()


def test_an_error_writes_nothing(arguments, tmp_path):
    with pytest.raises(ValueError, match="is not a file"):
        main([*arguments, "--dictionary", "none.tsv"])
    with pytest.raises(ValueError, match="`dictionary` is of translations, of which `transfer`='parts'"):
        main([*arguments, "--dictionary", "none.tsv", "--transfer", "parts"])
    assert {path.name for path in tmp_path.iterdir()} == {"base", "pairs.tsv"}


def test_which_words_are_new_goes_into_a_folder_made_of_the_model(arguments, tmp_path):
    main(arguments)
    for folder in ("made", "other"):
        (tmp_path / folder).mkdir()
    keep_report("words", "made")
    keep_report("base", "other")
    assert words_added("made") == words_added("words") and not list((tmp_path / "other").iterdir())
