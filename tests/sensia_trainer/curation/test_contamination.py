import gzip
import json
import zipfile

import datasets
import numpy as np
import pytest

from sensia_trainer.bitext import hub_data
from sensia_trainer.bitext.near import is_uncontaminated, near_keys
from sensia_trainer.curation.contamination import evaluation_keys


def has(keys, *texts):
    return np.isin(near_keys(list(texts)), keys).tolist()


def test_texts_of_files_and_folders_and_their_sentences(tmp_path):
    (tmp_path / "flores").mkdir()
    (tmp_path / "flores/est_Latn.dev").write_text("See on lause siin.\nYes\n", encoding="utf-8")
    (tmp_path / "flores/README").write_text("Do not read this file\n")
    (tmp_path / "flores/.DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1\xff")
    (tmp_path / "flores/.git").mkdir()
    (tmp_path / "flores/.git/index").write_bytes(b"DIRC\x00\xfe")
    with gzip.open(tmp_path / "belebele.jsonl.gz", "wt") as file:
        row = {
            "passage": "The first one is here. The second one is 12 km long.",
            "answers": ["No", "They all went home"],
        }
        file.write(json.dumps(row) + "\n")
    (tmp_path / "flores/zho_Hans.dev").write_text("他们昨天去了北京。短。\n", encoding="utf-8")
    keys, counts = evaluation_keys((str(tmp_path / "flores"), str(tmp_path / "belebele.jsonl.gz")))
    assert has(keys, "see on lause siin", "The second one is 13 km long", "They all went home.") == [True] * 3
    assert has(keys, "他们昨天去了北京") == [True]
    assert has(keys, "Yes", "No", "Do not read this file", "短", "passage") == [False] * 5
    # named without the folders above them
    assert counts == {"flores": {"texts": 3, "exempt": 1}, "belebele.jsonl.gz": {"texts": 4, "exempt": 1}}
    assert (np.diff(keys.astype(object)) > 0).all()


@pytest.mark.parametrize(
    "text, is_key",
    [
        ("Alipoteza fahamu.", True),  # "He lost consciousness"
        ("Ceplerimi boşalttım", True),  # "I emptied my pockets"
        ("厨师把它冷冻了。", True),  # "the cook froze it"
        ("她说，很好。", True),
        ("그는 잤다", True),  # "he slept"
        ("เขาหลับไปแล้ว", True),  # "he has fallen asleep"
        ("很好。", False),
        ("ปารีส", False),  # "Paris"
        ("Two days", False),
        ("2020", False),
    ],
)
def test_a_text_is_evidence_by_the_letters_it_holds(tmp_path, text, is_key):
    (tmp_path / "texts.txt").write_text(f"{text}\nThe man lost his keys.\n", encoding="utf-8")
    keys, counts = evaluation_keys((str(tmp_path / "texts.txt"),))
    assert has(keys, text) == [is_key]
    assert counts == {"texts.txt": {"texts": 1 + is_key, "exempt": 1 - is_key}}


def test_tables_and_names(tmp_path):
    (tmp_path / "xcopa").mkdir()
    (tmp_path / "story.csv").write_text('id,text\n1,"She smiled, and\twent away."\n')
    (tmp_path / "story.tsv").write_text('id\ttext\n1\tHe "sat" down again.\n')
    rows = [{"premise": "The man lost his keys.", "choices": ["He was very late."], "label": 1}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "xcopa" / "et.parquet")
    names = ("story.csv", "story.tsv", "xcopa/et.parquet")
    keys, counts = evaluation_keys(tuple(str(tmp_path / name) for name in names))
    assert has(keys, "She smiled and went away", "he sat down again", "He was very late") == [True] * 3
    found = [list(counts[name].values()) for name in names]
    assert found == [[1, 3], [1, 3], [2, 0]]
    (tmp_path / "archive.zip").write_bytes(b"PK\0\0")
    with pytest.raises(ValueError, match="archive.zip is not a text; give its texts a line each"):
        evaluation_keys((str(tmp_path / "archive.zip"),))


STORIES = [{"story": "She smiled, and went away.", "label": 1}, {"parts": ["He sat; down again.", {"x": "All left."}]}]


@pytest.mark.parametrize(
    "name, text",
    [
        ("set.json", json.dumps(STORIES, indent=1)),
        ("set.json", "\ufeff" + json.dumps({"data": STORIES})),
        ("set.json", "\n".join(map(json.dumps, STORIES)) + "\n"),
        ("set.ndjson", "\n".join(map(json.dumps, STORIES))),
        ("SET.JSONL", "\n".join(map(json.dumps, STORIES))),
        ("set.CSV", 'id;story\n1;She smiled, and went away.\n2;"He sat; down again."\n'),
        ("set.csv", 'id,story\n1,"She smiled, and\nwent away."\n2,He sat; down again.\n'),
        ("set.tab", "She smiled, and went away.\tHe sat; down again.\n"),
        (
            "set.tmx",
            "<tmx><body><tu><tuv xml:lang='en'><seg>She smiled, and went <ph>1</ph>away.</seg></tuv>"
            "<tuv xml:lang='id'><seg>He sat; down again.</seg></tuv></tu></body></tmx>",
        ),
        (
            "set.tmx",
            "<tmx><body><tu><tuv xml:lang='en'><seg>She smiled, and went away.</seg></tuv>"
            "<tuv xml:lang='en'><seg>He sat; down again.</seg></tuv></tu></body></tmx>",
        ),
        ("set.csv", '"Yes; no; so",x\n"She smiled, and went away.",He sat; down again.\n'),
    ],
)
def test_every_kind_of_file_gives_its_texts(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with gzip.open(tmp_path / f"{name}.GZ", "wt", encoding="utf-8") as file:
        file.write(text)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.write(tmp_path / name, name)
    for file in (name, f"{name}.GZ", "archive.zip"):
        keys, _ = evaluation_keys((str(tmp_path / file),))
        assert has(keys, "she smiled and went away", "he sat down again") == [True, True]


@pytest.mark.parametrize("kind", [".xml", ".po", ".XLSX", ".docx", ".sgm", ".zip", ".yaml"])
def test_a_file_whose_lines_are_not_its_texts_is_refused(tmp_path, kind):
    file = tmp_path / f"set{kind}"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("one.txt", "She smiled, and went away.\n")
        archive.writestr("two.txt", "He sat down again.\n")
    with pytest.raises(ValueError, match=rf"set{kind} is a {kind.lower()} file; give its texts a line each"):
        evaluation_keys((str(file),))


@pytest.mark.parametrize(
    "name, text",
    [
        ("set.json", "[{"),
        ("set.jsonl", "{}\n{"),
        ("set.csv", "a,b\n" + "x" * 140_000),
        ("set.csv", 'a,b\n1,"She smiled\n2,He sat down.\n'),
        ("set.parquet", "She smiled, and went away.\n"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"contamination: {name} is not {name[3:]}: "):
        evaluation_keys((str(tmp_path / name),))


@pytest.mark.parametrize("name", ["set.txt", "set.tsv", "set.csv", "set.json", "set.jsonl", "set.tmx"])
def test_text_in_another_encoding_is_refused(tmp_path, name):
    """Read as UTF-8 with replacements, it would protect nothing."""
    text = "Kõik läksid koju, nüüd."
    text = f"<tmx><tu><tuv><seg>{text}</seg></tuv></tu></tmx>" if name.endswith("tmx") else f'["{text}"]\n'
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"contamination: {name} is not (in UTF-8; convert it|.json: 'utf-8' codec)"):
        evaluation_keys((str(tmp_path / name),))


def test_hub_id_with_configuration(monkeypatch):
    asked = []

    def load_dataset(path, config=None, split=None, data_files=None):
        asked.append((path, config or data_files))
        if path != "parquet":
            raise RuntimeError("Dataset scripts are no longer supported, but found xcopa.py")
        rows = datasets.Dataset.from_list(
            [{"premise": "The man lost his keys.", "label": 1, "choices": ["He was very late."]}]
        )
        return datasets.DatasetDict(test=rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub_data, "_exported_files", lambda path: ["et/test/0000.parquet", "id/test/0000.parquet"])
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda path, file, **options: f"/cache/{file}")
    keys, counts = evaluation_keys(("cambridgeltl/xcopa:et",))
    copy = {"test": ["/cache/et/test/0000.parquet"]}
    assert asked == [("cambridgeltl/xcopa", "et"), ("parquet", copy)]
    assert counts == {"cambridgeltl/xcopa:et": {"texts": 2, "exempt": 0}}
    assert has(keys, "he was very late") == [True]


def test_what_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no file or folder '/no/such/place'"):
        evaluation_keys(("/no/such/place",))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no text"):
        evaluation_keys((str(tmp_path / "empty"),))
    assert len(evaluation_keys(())[0]) == 0


def test_monolingual_text_is_checked_sentence_by_sentence(tmp_path):
    (tmp_path / "test.txt").write_text("The man turned on the faucet.\n" + "那个女人打开门走进了花园。\n")
    keys, _ = evaluation_keys((str(tmp_path / "test.txt"),))
    clean = ["A man turned on a lamp. It was dark.", "", "Yes.", "那个男人打开门走进了房间。他很累。"]
    shared = ["It was late. The MAN turned on the faucet! He drank.", "the man turned on the faucet"]
    shared += ["他来了。那个女人打开门走进了花园。", "他说：“是的。”那个女人打开门走进了花园。"]
    shared += ['"It was late." The man turned on the faucet.', "(“It was late!”) The man turned on the faucet."]
    assert is_uncontaminated(clean + shared, keys).tolist() == [True] * 4 + [False] * 6
    assert is_uncontaminated([], keys).tolist() == []
    assert is_uncontaminated(shared, np.zeros(0, np.uint64)).all()


@pytest.mark.parametrize(
    ("before", "sentence", "after"),
    [
        ("वह घर गया।", "राजधानी एक बहुत बड़ा शहर है", "। यह समुद्र के किनारे है।"),
        ("کیا وہ گیا؟", "دارالحکومت ایک بہت بڑا شہر ہے", "۔ یہ سمندر کے کنارے ہے۔"),
        ("هل ذهب؟", "العاصمة مدينة كبيرة جدا في البلاد", "؟ نعم."),
        ("እሱ ሄደ።", "ዋና ከተማዋ በጣም ትልቅ ከተማ ናት", "። በባሕር ዳርቻ ላይ ትገኛለች።"),
        ("သူသွားတယ်။", "မြို့တော်သည် အလွန်ကြီးသော မြို့ဖြစ်သည်", "။ ပင်လယ်ကမ်းမှာ ရှိသည်။"),
        ("Նա գնաց։", "Մայրաքաղաքը շատ մեծ քաղաք է", "։ Ծովի ափին է։"),
    ],
)
def test_sentences_end_in_every_script(tmp_path, before, sentence, after):
    (tmp_path / "test.txt").write_text(sentence + "\n")
    keys, _ = evaluation_keys((str(tmp_path / "test.txt"),))
    texts = [f"{before} {sentence}{after}", f"{before}{sentence}{after}", f"{before} {after}"]
    assert is_uncontaminated(texts, keys).tolist() == [False, False, True]
