"""The command `sensia`: what it imports, what it says when something is wrong, what it passes to the launcher."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import sensia_trainer
from sensia_trainer import cli
from sensia_trainer.utils import launching
from sensia_trainer.utils.arguments import Parser
from sensia_trainer.utils.errors import UsageError, explain


ROOT = Path(__file__).parents[2]
SLOW = ("torch", "transformers", "matplotlib", "scipy", "datasets", "accelerate")


def python(*arguments, **environment):
    command = [sys.executable, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("program", ["import sensia_trainer", "from sensia_trainer import cli; cli.main([])"])
def test_nothing_slow_is_imported_before_it_is_needed(program):
    done = python("-c", f"import json, sys\n{program}\nprint(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert not {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])} & set(SLOW)


def test_public_names():
    from sensia_trainer.trainer import SensiaTrainer

    assert sensia_trainer.SensiaTrainer is SensiaTrainer
    assert all(getattr(sensia_trainer, name) for name in sensia_trainer.__all__)
    assert set(sensia_trainer.__all__) <= set(dir(sensia_trainer))
    with pytest.raises(AttributeError, match="no attribute 'SensiaTrainr'"):
        sensia_trainer.SensiaTrainr  # noqa: B018


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_a_module_and_help(name, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    assert left.value.code == 0
    assert f"sensia {name} " in capsys.readouterr().out  # its usage, and an example in its description


def test_what_a_command_takes_stands_under_a_heading_of_one_sentence(capsys):
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--help"])
    assert "\nWhat to evaluate:\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "heading", "option"),
    [
        ("induce", "The language model that gets senses, and the text they are trained on:", "--text_files "),
        ("adapt", "What of a model is trained:", "--train "),
    ],
)
def test_what_a_command_inherits_from_another_of_ours_is_described(name, heading, option, capsys):
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    ours, of_library = capsys.readouterr().out.split("\nFields of transformers' TrainingArguments")
    assert f"\n{heading}\n" in ours and f"\n  {option}" in ours
    assert option.strip(" -") not in of_library.split()


def test_version_and_overview(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"sensia {sensia_trainer.__version__}\n"
    assert cli.main([]) == 0
    overview = capsys.readouterr().out
    assert cli.COMMANDS and all(f"  {name} " in overview for name in cli.COMMANDS)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["adpt"], "no command 'adpt'. Did you mean 'adapt'"),
        (["--verson"], "no option '--verson'. Did you mean `version`"),
        (["adapt", "quikstart"], "recipe 'quikstart' does not exist.*Did you mean 'quickstart'"),
        (["adapt", "quickstart", "--learning_rat", "1"], "no option '--learning_rat'. Did you mean `learning_rate`"),
        (["adapt", "quickstart", "--max_steps", "ten"], "`max_steps` is 'ten', but must be a whole number"),
        (["publish", "folder"], "required: repo_id"),
        (["publish", "a", "b", "--dryrun"], "no option '--dryrun'. Did you mean `dry-run`"),
        (["publish", "a", "b", "--repo-type", "modl"], "invalid choice: 'modl'"),
        (["evaluate", "compare", "a.json"], "required: --output"),
        (["analyze", "render"], "required: folder"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(argv, message, capsys):
    assert cli.main(argv) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("sensia") and printed.count("\n") == 1
    assert re.search(message, printed), printed


def fails(monkeypatch, error, name="convert"):
    def main(argv):
        raise error

    monkeypatch.setattr(cli, "import_module", lambda *_: SimpleNamespace(main=main, parser=Parser))
    return cli.main([name, "x"])


def test_what_a_user_can_mend_is_one_line_and_code_1(monkeypatch, capsys):
    monkeypatch.delenv("SENSIA_DEBUG", raising=False)
    assert fails(monkeypatch, FileNotFoundError(2, "No such file or directory", "pairs.tsv")) == 1
    assert fails(monkeypatch, ValueError("two\n\tlines of\n it")) == 1
    assert capsys.readouterr().err.splitlines() == [
        "sensia convert: pairs.tsv: No such file or directory (SENSIA_DEBUG=1 shows where)",
        "sensia convert: two lines of it (SENSIA_DEBUG=1 shows where)",
    ]
    with pytest.raises(ZeroDivisionError):  # a fault of the program keeps its traceback
        fails(monkeypatch, ZeroDivisionError())


def test_tracebacks_are_shown_when_asked_for(monkeypatch):
    for argv in (["--debug", "adapt", "quikstart"], ["adapt", "quikstart", "--debug"]):
        monkeypatch.setenv("SENSIA_DEBUG", "")
        with pytest.raises(UsageError):
            cli.main(argv)
    assert os.environ["SENSIA_DEBUG"] == "1"  # for the processes that a command starts
    with pytest.raises(ValueError, match="torn"):
        fails(monkeypatch, ValueError("torn"))


def test_one_process_complains_of_a_command_line_for_all(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert fails(monkeypatch, UsageError("what?")) == 2 and fails(monkeypatch, ValueError("no")) == 1
    assert capsys.readouterr().err == "sensia convert: no (SENSIA_DEBUG=1 shows where)\n"


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert fails(monkeypatch, KeyboardInterrupt(), "adapt") == 130
    assert "The same command goes on from what was saved" in capsys.readouterr().err
    assert fails(monkeypatch, KeyboardInterrupt(), "convert") == 130
    assert capsys.readouterr().err == "\nsensia convert: interrupted.\n"


def test_errors_of_libraries_are_told_by_their_home():
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import EntryNotFoundError
    from safetensors import SafetensorError

    for kind in (DatasetNotFoundError, SafetensorError, EntryNotFoundError, ImportError, EOFError):
        try:
            error = kind("the way out")
        except TypeError:
            continue
        assert explain(error) == "the way out"
    assert explain(RuntimeError("shapes")) is None and explain(ValueError()) == "ValueError"


def test_arguments_of_the_launcher_pass_through():
    own = Parser()
    for name in ("--max_steps", "--use_cpu", "--debug"):
        own.add_argument(name)
    argv = "r.yaml --num_processes 2 --max_steps 9 --config_file=one_node_ddp --debug x --multi_gpu --oops"
    launcher, rest = launching.split_arguments(argv.split(), own)
    file = ROOT / "sensia_trainer/recipes/accelerate/one_node_ddp.yaml"
    assert launcher == ["--num_processes", "2", f"--config_file={file}", "--multi_gpu"]
    assert rest == "r.yaml --max_steps 9 --debug x --oops".split()
    assert launching.split_arguments(["--config_file", "one_gpu"], own)[0][1] == str(file.with_stem("one_gpu"))
    assert launching.split_arguments(["--config_file", "mine.yaml"], own)[0] == ["--config_file", "mine.yaml"]
    assert launching.split_arguments(["r.yaml", "--max_steps", "9"], own) == ([], ["r.yaml", "--max_steps", "9"])


def test_a_signal_is_handed_on_to_what_was_started():
    saves = (
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\nprint(flush=True)\nsignal.pause()"
    )
    with launching.signals_handed_on():
        process = subprocess.Popen([sys.executable, "-c", saves], stdout=subprocess.PIPE)
        process.stdout.readline()
        os.kill(os.getpid(), signal.SIGTERM)
        assert process.wait() == launching.EXIT_PREEMPTED
        with pytest.raises(SystemExit, match="75"):
            os.kill(os.getpid(), signal.SIGTERM)
    process.stdout.close()


def test_when_a_launcher_is_wanted(monkeypatch, tmp_path):
    for name in ("LOCAL_RANK", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    assert launching.wants_launcher(["--num_processes", "2"], training=False)
    assert not launching.wants_launcher([], training=False)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 2)
    monkeypatch.setattr("accelerate.commands.config.config_args.default_config_file", str(tmp_path / "none.yaml"))
    assert launching.wants_launcher([], training=True)  # never `nn.DataParallel`
    assert launching.wants_launcher([], True, ["adapt"])
    assert launching.wants_launcher([], True, ["quickstart", "--use_cpu", "false"])
    for argv in (["quickstart"], ["adapt", "--use_cpu", "true"], ["org/model", "--use-cpu"], ["--use_cpu=True"]):
        assert not launching.wants_launcher([], True, argv)
    for on_cpu in (True, False):  # what `accelerate config` left
        configured = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "NO", "use_cpu": on_cpu}
        file = tmp_path / f"{on_cpu}.yaml"
        file.write_text(yaml.safe_dump(configured | {"mixed_precision": "no", "num_processes": 2}))
        monkeypatch.setattr("accelerate.commands.config.config_args.default_config_file", str(file))
        assert launching.wants_launcher([], True, ["adapt"])
        assert launching.wants_launcher([], True, ["quickstart"]) == on_cpu
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not launching.wants_launcher(["--num_processes", "2"], training=True)


@pytest.mark.distributed
def test_two_processes_on_a_cpu_and_their_exit_code():
    """As many as asked for, where accelerate itself would start one; the error comes once and without a traceback."""
    done = python("-m", "sensia_trainer", "adapt", "quikstart", "--num_processes", "2", OMP_NUM_THREADS="1")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("'quikstart' does not exist") == 1 and "Traceback" not in done.stderr


def test_help_of_commands_without_training_loads_nothing_slow():
    names = ["vocabulary", "bitext", "evaluate", "analyze", "reproduce", "release", "publish"]
    script = (
        "import sys, contextlib, io\nfrom sensia_trainer.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    for name in {names}:\n"
        "        try:\n            main([name, '--help'])\n        except SystemExit:\n            pass\n"
        "print(sorted({'torch', 'datasets', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
