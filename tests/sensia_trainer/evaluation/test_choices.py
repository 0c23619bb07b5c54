import json

import pytest

from sensia_trainer.evaluation.choices import load_choices
from sensia_trainer.evaluation.tasks import make_items


OWN = {"name": "quiz", "context": "{question}\\nAnswer:", "answers": [" {a}", " {b}", " {c}"]}


def test_columns_and_templates(tmp_path):
    file = tmp_path / "quiz.csv"
    text = 'question,a,b,c,label\n"Where, then?",here,"over ""there""",nowhere,B\n"two\nlines {x}",1,2,3,C\n'
    file.write_text(text, encoding="utf-8")
    data = load_choices(file, "ind_Latn", **OWN)
    items = make_items(data, "own")
    assert items[0].context == "Where, then?\nAnswer:"
    assert items[0].continuations == (" here", ' over "there"', " nowhere") and items[0].label == 1
    assert items[1].context == "two\nlines {x}\nAnswer:" and items[1].label == 2
    assert (data.task, data.language, data.kind, data.split) == ("quiz", "id", "own", "test")
    assert load_choices(file, "id", **OWN, max_items=1).rows == data.rows[:1]


def test_a_column_may_hold_the_list_of_choices(tmp_path):
    rows = [{"id": "x", "q": "Who\u2028?", "options": ["I", "you"], "answer": 2}]
    (tmp_path / "quiz.jsonl").write_text(json.dumps(rows[0], ensure_ascii=False) + "\n", encoding="utf-8")
    (tmp_path / "quiz.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "quiz.tsv").write_text('id\tq\toptions\tanswer\nx\tWho\u2028?\t"[""I"", ""you""]"\tyou\n')
    own = {"name": "quiz", "context": "{q}", "answers": [" {options}!"], "label": "answer", "first_label": 1}
    for suffix in ("jsonl", "json", "tsv"):
        (item,) = make_items(load_choices(tmp_path / f"quiz.{suffix}", "en", **own), "own")
        assert item == ("x", "Who\u2028?", (" I!", " you!"), 1)


@pytest.mark.parametrize(
    "change, row, message",
    [
        ({"context": "{topic}"}, {}, r"quiz.jsonl, item 1: the template '\{topic\}' wants the column 'topic'; it has"),
        ({"context": "{question"}, {}, "cannot be read"),
        ({"context": "{question.__class__}"}, {}, "wants the column"),
        ({"label": "gold"}, {}, "no column 'gold'"),
        ({}, {"label": 3}, r"neither the text nor the letter of one of its 3 choices, nor its number counted from 0"),
        ({}, {"label": "perhaps"}, "neither the text"),
        ({}, {"b": " "}, "choice 1 is empty"),
        ({"answers": [" {a"]}, {}, "cannot be read"),
        ({"answers": [" {a}"]}, {}, "wants one column that holds a list"),
    ],
)
def test_what_cannot_be_asked(tmp_path, change, row, message):
    file = tmp_path / "quiz.jsonl"
    file.write_text(json.dumps({"question": "Q", "a": "x", "b": "y", "c": "z", "label": 0} | row))
    with pytest.raises(ValueError, match=message):
        load_choices(file, "en", **OWN | change)


def test_items_of_another_number_of_choices_are_named(tmp_path):
    rows = [{"q": "Who?", "options": options, "answer": 1} for options in (["I", "you"], ["I", "you", "we"])]
    (tmp_path / "quiz.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = {"name": "quiz", "context": "{q}", "answers": [" {options}"], "label": "answer", "first_label": 1}
    with pytest.raises(ValueError, match="quiz.jsonl, item 2 has 3 choices, but the first has 2: give a file"):
        load_choices(tmp_path / "quiz.jsonl", "en", **own)


def test_choices_that_are_numbers_or_letters_themselves(tmp_path):
    own = {"name": "quiz", "context": "{q}", "answers": [" {options}"]}
    rows = [{"q": "2 + 1", "options": ["1", "2", "3", "4"], "label": label} for label in range(4)]
    (tmp_path / "quiz.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [row["label"] for row in load_choices(tmp_path / "quiz.jsonl", "en", **own).rows] == [0, 1, 2, 3]
    for label, index in (("2", None), ("4", 3), ("B", 1)):
        (tmp_path / "quiz.json").write_text(json.dumps([rows[0] | {"label": label}]))
        if index is None:
            with pytest.raises(
                ValueError, match="item 1: 'label' is '2', which is the number of choice C, the text of"
            ):
                load_choices(tmp_path / "quiz.json", "en", **own)
        else:
            assert load_choices(tmp_path / "quiz.json", "en", **own).rows[0]["label"] == index
    (tmp_path / "quiz.json").write_text(json.dumps([{"q": "?", "options": ["B", "A"], "label": "A"}]))
    with pytest.raises(ValueError, match="which is the text of choice B, the letter of choice A"):
        load_choices(tmp_path / "quiz.json", "en", **own)


def test_quotation_marks_of_a_tsv_are_part_of_its_text(tmp_path):
    own = {"name": "quiz", "context": "{q}", "answers": [" {a}", " {b}"]}
    first = ['"Hi, he said', '"Stop" and "go"', 'a 5" pipe', '"over ""there"""', '"plain"', '""', 'it"']
    lines = [f"{q}\tx{n}\ty\tA" for n, q in enumerate(first)]
    (tmp_path / "quiz.tsv").write_text(
        "q\ta\tb\tlabel\r\n" + "\r\n".join(lines) + "\r\n", encoding="utf-8", newline=""
    )
    rows = load_choices(tmp_path / "quiz.tsv", "en", **own).rows
    assert [row["context"] for row in rows] == [*first[:3], 'over "there"', "plain", "", 'it"']
    assert [row["choices"][0] for row in rows] == [f" x{n}" for n in range(7)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_leave_around_a_table(tmp_path, end):
    lines = ["q,a,b,label", "Q,x,y,A,", ",,,", '"R\r",x,y,B', ",,,,"]
    own = {"name": "quiz", "context": "{q}", "answers": [" {a}", " {b}"]}
    for name, delimiter in (("quiz.csv", ","), ("quiz.tsv", "\t")):
        (tmp_path / name).write_bytes((end.join(lines) + end).replace(",", delimiter).encode())
        rows = load_choices(tmp_path / name, "en", **own).rows
        assert [(row["context"].strip(), row["label"]) for row in rows] == [("Q", 0), ("R", 1)]
    (tmp_path / "quiz.csv").write_text('q,a,b,"label; 1; 2; 3"\nQ,x,y,A\n')
    assert len(load_choices(tmp_path / "quiz.csv", "en", **own, label="label; 1; 2; 3").rows) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "quiz.tsv",
            "q\ta\tb\tlabel\nQ\tx\ty\tA\nQ\tx\tx\ty\tA\n",
            "quiz.tsv, item 2 has 5 cells where the header names 4",
        ),
        ("quiz.csv", "q,a,b,label\nQ,x,y,A\nQ, well,x,y,A\n", "quiz.csv, item 2 has 5 cells where the header names 4"),
        ("quiz.csv", 'q,a,b,label\n"Q,x,y,A\nQ,x,y,A\n', "quiz.csv is no CSV: unexpected end of data"),
        ("quiz.csv", 'q,a,b,label\n"Q" he said,x,y,A\n', "quiz.csv is no CSV: "),
        ("quiz.csv", f"q,a,b,label\n{'Q' * 140_000},x,y,A\n", "quiz.csv is no CSV: field larger than"),
        ("quiz.csv", "q,a,b,label\nQ\xe4,x,y,A\n".encode("latin-1"), "quiz.csv' is not in UTF-8"),
        ("quiz.tsv", "q\ta\tb\tlabel\nQ\tx\ty\n", "item 1: there is no column 'label' with the right choice"),
    ],
)
def test_a_table_that_is_not_whole(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    own = {"name": "quiz", "context": "{q}", "answers": [" {a}", " {b}"]}
    with pytest.raises(ValueError, match=message):
        load_choices(tmp_path / name, "en", **own)


def test_a_csv_of_semicolons(tmp_path):
    (tmp_path / "quiz.csv").write_text("q;a;b;label\nWhere, then?;here;there;B\n", encoding="utf-8")
    own = {"name": "quiz", "context": "{q}", "answers": [" {a}", " {b}"]}
    (row,) = load_choices(tmp_path / "quiz.csv", "en", **own).rows
    assert (row["context"], row["choices"], row["label"]) == ("Where, then?", [" here", " there"], 1)


def test_a_space_behind_the_context_belongs_to_the_choice(tmp_path):
    (tmp_path / "quiz.jsonl").write_text('{"q": "Is it?", "a": "yes", "b": "no", "label": 1}\n', encoding="utf-8")
    own = {"name": "quiz", "context": "Q: {q}\\nA: ", "answers": ["{a} it is", "{b} it is"]}
    (row,) = load_choices(tmp_path / "quiz.jsonl", "en", **own).rows
    assert (row["context"], row["choices"]) == ("Q: Is it?\nA:", [" yes it is", " no it is"])


def test_cells_that_only_look_like_lists_or_numbers(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("question,options,answer\nWhich?,\"['a','b']\",a\n")
    with pytest.raises(ValueError, match="a.csv.*'options' is .*no list in JSON"):
        load_choices(file, "en", **OWN | {"answers": [" {options}"]}, label="answer")
    for label in ("--1", "²"):
        file.write_text(f"question,a,b,answer\nWhich?,x,y,{label}\n")
        with pytest.raises(ValueError, match="neither the text nor the letter"):
            load_choices(file, "en", **OWN | {"answers": [" {a}", " {b}"]}, label="answer")


def test_files_that_are_none(tmp_path):
    for name, text, message in (
        ("a.txt", "", "of the kinds .jsonl"),
        ("a.jsonl", "{", "is no JSONL"),
        ("a.json", "{}", "must hold objects"),
        ("a.csv", "question,a,b,c,label\n", "holds no items"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            load_choices(tmp_path / name, "en", **OWN)
    with pytest.raises(ValueError, match="is not a file"):
        load_choices(tmp_path / "nowhere.csv", "en", **OWN)
