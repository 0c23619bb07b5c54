"""Freed memory stays with the process in commands that train."""

import platform
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sensia_trainer import cli
from sensia_trainer.utils import memory


FAULTS = """
import resource, sys
from sensia_trainer.utils.memory import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
def use():
    for block in [bytearray(4 * 2**20) for _ in range(8)]:
        block[::4096] = b"x" * len(block[::4096])
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's")


def page_faults(*arguments):
    environment = {"PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", FAULTS, *arguments]
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def test_the_same_memory_is_used_again():
    pages = 20 * 8 * 4 * 2**20 // resource.getpagesize()
    assert page_faults() > pages / 2  # given back and faulted in anew each time
    assert page_faults("keep") < pages / 20


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not memory.keep_freed_memory()


@pytest.mark.parametrize(("name", "keeps"), [("adapt", True), ("induce", True), ("convert", False)])
def test_commands_that_train_keep_it(name, keeps, monkeypatch):
    called = []
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: called.append(True))
    command = SimpleNamespace(main=lambda argv: 0, parser=lambda: None)
    monkeypatch.setattr(cli, "import_module", lambda *_: command)
    monkeypatch.setattr("sensia_trainer.utils.launching.split_arguments", lambda argv, own: ([], argv))
    monkeypatch.setattr("sensia_trainer.utils.launching.wants_launcher", lambda *_, **__: False)
    assert cli.run(name, []) == 0
    assert bool(called) == keeps


RETURNED = """
import psutil, sys
from types import SimpleNamespace
from sensia_trainer.utils import memory
memory.keep_freed_memory()
before = psutil.Process().memory_info().rss
blocks = [bytes(range(256)) * 2**14 for _ in range(32)]  # 128 MB
del blocks
kept = memory.kept_memory()
assert 2**27 <= kept < 2**29, kept
left = {"little": (0.8e9, 8e9), "much": (1.6e9, 8e9), "less than is kept": (0.8 * kept, 4 * kept)}
available, total = left[sys.argv[1]]
memory.psutil.virtual_memory = lambda: SimpleNamespace(available=available, total=total)
given = memory.return_freed_memory()
print(given, psutil.Process().memory_info().rss - before)
"""


def test_the_limit_of_a_control_group_counts(tmp_path, monkeypatch):
    machine = SimpleNamespace(available=100, total=1000)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUP", tmp_path / "own")
    assert memory.memory_left() == (100, 1000)  # no such file
    for name, limit, used in (("job", "90", 40), ("job/step", "max", 40), ("other", "10", 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "memory.max").write_text(f"{limit}\n")
        (tmp_path / name / "memory.current").write_text(f"{used}\n")
        (tmp_path / name / "memory.stat").write_text("anon 30\ninactive_file 5\n")
    (tmp_path / "own").write_text("4:memory:/elsewhere\n0::/job/step\n")
    assert memory.memory_left() == (55, 90)  # of the group above, which limits those within
    machine.available = 20
    assert memory.memory_left() == (20, 1000)


@pytest.mark.parametrize("left", ["little", "much", "less than is kept"])
def test_where_little_is_left_it_is_given_back(left):
    command = [sys.executable, "-c", RETURNED, left]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    given, held = output.split()
    assert given == str(left != "much")
    assert (int(held) < 2**25) == (left != "much")
