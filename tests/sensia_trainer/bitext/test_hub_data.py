"""Loading from a Hub: one on the loopback interface, with a data set as old ones are, a script and a Parquet copy."""

import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sensia_trainer.utils.recipes import RECIPES as RECIPES_FOLDER
from tests.hub_server import HubServer, Repo


RECIPE = RECIPES_FOLDER / "lm_eval" / "xstorycloze_id.yaml"
SCRIPT = """
import json, sys
import datasets, yaml
from sensia_trainer.bitext.flores import load_flores
from sensia_trainer.evaluation.tasks import load_task

found = {"ids": [row["id"] for row in load_task("xstorycloze", "id", "test").rows]}
found["flores"] = load_flores("some/flores", "devtest", ["en", "id"], purpose="reporting")
for name, call in {
    "task": lambda: load_task("xstorycloze", "tr", "test"),
    "flores": lambda: load_flores("some/flores", "devtest", ["tr"], purpose="reporting"),
}.items():
    try:
        call()
    except ValueError as error:
        found["no " + name] = str(error)
recipe = yaml.safe_load(open(sys.argv[1]))
rows = datasets.load_dataset(recipe["dataset_path"], **recipe["dataset_kwargs"], split="eval")
found["harness"] = rows["story_id"][:]
print(json.dumps(found))
"""


def parquet(rows) -> tuple[bytes, bool]:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue(), True


def with_script(name, tables) -> Repo:
    repo = Repo(private=False)
    export = {f"{folder}/0000.parquet": parquet(rows) for folder, rows in tables.items()}
    repo.tags["refs/convert/parquet"] = repo.commit("copy", export)
    repo.commit("script", {f"{name}.py": (b"raise ValueError", False), "README.md": (b"# old", False)})
    return repo


@pytest.mark.slow
def test_data_sets_with_a_script_are_read_from_their_parquet_copy(tmp_path):
    story = {f"input_sentence_{i}": f"S{i}." for i in range(1, 5)} | {"sentence_quiz1": "A.", "sentence_quiz2": "B."}
    stories = [story | {"story_id": f"s{i}", "answer_right_ending": 1} for i in range(3)]
    with HubServer() as hub:
        tables = {"id/train": stories[:1], "id/eval": stories[1:], "sw/eval": stories}
        hub.repos["datasets/juletxara/xstory_cloze"] = with_script("xstory_cloze", tables)
        tables = {f"{code}/devtest": [{"id": 1, "sentence": f"in {code}"}] for code in ("eng_Latn", "ind_Latn")}
        hub.repos["datasets/some/flores"] = with_script("flores", tables)
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(RECIPE)],
            env=os.environ | hub.environment(tmp_path),
            capture_output=True,
            text=True,
        )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["ids"] == found["harness"] == ["s1", "s2"]
    assert found["flores"] == {"en": ["in eng_Latn"], "id": ["in ind_Latn"]}
    assert "no split 'eval' of 'tr'; it has ['id/eval', 'id/train', 'sw/eval']" in found["no task"]
    assert "lacks ['tur_Latn']; it has ['eng_Latn', 'ind_Latn']" in found["no flores"]
