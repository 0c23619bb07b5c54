import json

import pytest

from sensia_trainer.evaluation.results import Parts, is_whole, items_file, parts_file, read_result, write_result


RESULT = {"kind": "evaluation", "name": "a", "tasks": [], "missing": float("nan")}


def test_a_result_is_read_as_it_was_written(tmp_path):
    written = write_result(tmp_path / "a.json", RESULT, {"flores": {"hits": (1, 0)}})
    assert "NaN" not in (tmp_path / "a.json").read_text() and written["missing"] is None
    assert read_result(tmp_path / "a.json") == written and is_whole(tmp_path / "a.json")
    assert read_result(tmp_path / "a.json", with_items=True)["items"] == {"flores": {"hits": [1, 0]}}


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"kind": "evaluation", "name": "a"}', "did not finish"),
        ('{"kind": "analysis"}', "is not a result of an evaluation"),
        ("[1]", "is not a result of an evaluation"),
        ('{"kind": "evaluation", "compl', "not a whole JSON file"),
    ],
)
def test_what_is_not_whole_is_refused(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_result(tmp_path / "a.json")
    assert not is_whole(tmp_path / "a.json") and not is_whole(tmp_path / "nowhere.json")


def test_items_of_another_result_are_refused(tmp_path):
    write_result(tmp_path / "a.json", RESULT, {"flores": 1})
    items_file(tmp_path / "a.json").write_text('{"flores": 2}')
    with pytest.raises(ValueError, match=r"a\.items\.json belongs to another result"):
        read_result(tmp_path / "a.json", with_items=True)


def test_parts_are_measured_once_and_go_on_behind_a_cut_line(tmp_path):
    measured = []

    def part(value):
        measured.append(value)
        return {"value": value}, [value]

    output = tmp_path / "deep" / "a.json"
    parts = Parts(output, {"seed": 1})
    assert parts.measured("first", lambda: part(1)) == ({"value": 1}, [1])
    parts.measured("second", lambda: part(2))
    file = parts_file(output)
    file.write_bytes(file.read_bytes()[:-9])  # killed while the second part was written
    again = Parts(output, {"seed": 1})
    assert again.measured("first", lambda: part(1)) == ({"value": 1}, [1])
    again.measured("second", lambda: part(2))
    assert measured == [1, 2, 2]
    assert all(json.loads(line) for line in file.read_text().splitlines())  # nothing of the cut line is left
    again.finish()
    assert not file.exists()


def test_parts_of_other_settings_are_not_used(tmp_path):
    Parts(tmp_path / "a.json", {"seed": 1}).measured("first", lambda: ({}, None))
    assert Parts(tmp_path / "a.json", {"seed": 1}).done and not Parts(tmp_path / "a.json", {"seed": 2}).done
