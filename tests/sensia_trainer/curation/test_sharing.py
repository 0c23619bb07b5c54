from sensia_trainer.curation.recipe import load_recipe, parse_recipe
from sensia_trainer.curation.sharing import recipe_yaml, shareable, without_folders


def test_paths_lose_their_folders_and_hub_ids_do_not(tmp_path, monkeypatch):
    for name in ("a.en", "b,c.tsv"):
        (tmp_path / name).touch()
    assert without_folders(f"{tmp_path}/a.en,{tmp_path}/a.en") == "a.en,a.en"
    assert without_folders(f"{tmp_path}/b,c.tsv") == "b,c.tsv"
    assert without_folders(f"{tmp_path}/") == tmp_path.name
    assert without_folders("Helsinki-NLP/opus-100") == "Helsinki-NLP/opus-100"
    monkeypatch.chdir(tmp_path)
    assert without_folders(".") == tmp_path.name


def test_a_recipe_to_share_is_the_same_but_for_its_paths(tmp_path):
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
