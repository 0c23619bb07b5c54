"""Starting a command on several processes, on GPUs or on the CPU: arguments of `accelerate launch` pass through."""

import logging
import os
import signal
import subprocess
from argparse import ArgumentParser
from contextlib import contextmanager

import psutil

from .errors import UsageError
from .recipes import RECIPES, read_recipe


# Exit codes of a run that was stopped and has lost nothing; the same command goes on.
EXIT_PREEMPTED = 75  # by SIGTERM: EX_TEMPFAIL of sysexits.h
EXIT_INTERRUPTED = 130  # by Ctrl-C, as shells have it
# Seconds that processes have to write it, where nothing else is said: torch's own 30 are too few for large models.
SHUTDOWN_TIMEOUT = "600"


def is_launched() -> bool:
    """Whether `accelerate launch` or `torchrun` has started this process."""
    return "LOCAL_RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ


def split_arguments(argv, own: ArgumentParser) -> tuple[list[str], list[str]]:
    """
    Part the arguments of `accelerate launch` from those of a command, whose own names go first.

    Args:
        argv (`list[str]`): Both, in any order.
        own (`ArgumentParser`): The command's parser.

    Returns:
        `tuple[list[str], list[str]]`: The launcher's and the rest. `--config_file` may name a configuration that comes
        with the package (`one_node_ddp`).
    """
    if all(argument.partition("=")[0] in own._option_string_actions for argument in argv if argument[:2] == "--"):
        return [], list(argv)  # without the import of accelerate, which takes a second
    from accelerate.commands.launch import launch_command_parser

    options = launch_command_parser()._option_string_actions
    launcher: list[str] = []
    rest: list[str] = []
    taker, waiting = rest, False  # for the value of the last option
    for argument in argv:
        name, equals, _ = argument.partition("=")
        if name.startswith("--"):
            taker = launcher if name in options and name not in own._option_string_actions else rest
            waiting = taker is launcher and not equals and options[name].nargs != 0
            taker.append(argument)
        elif waiting:
            launcher.append(argument)
            waiting = False
        else:
            rest.append(argument)
    return [_packaged(before, argument) for before, argument in zip(["", *launcher], launcher)], rest


def _packaged(before, argument):
    option, equals, value = argument.rpartition("=")
    if "--config_file" not in (before, option):
        return argument
    file = RECIPES / "accelerate" / f"{value}.yaml"
    return f"{option}{equals}{file}" if file.is_file() and not os.path.exists(value) else argument


def wants_launcher(launcher, training, argv=()) -> bool:
    """Whether a command goes through the launcher: told to, configured to, or with several devices to train on, unless
    `argv`, or the recipe that it names, says `use_cpu`."""
    if is_launched():
        return False
    if launcher or not training:
        return bool(launcher)
    import torch
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    is_configured, on_cpu = os.path.isfile(default_config_file), uses_cpu(argv)
    if is_configured and on_cpu:
        return bool(load_config_from_file(default_config_file).use_cpu)
    return is_configured or (torch.accelerator.device_count() > 1 and not on_cpu)


def uses_cpu(argv) -> bool:
    """Whether a command line, or else the recipe that it names first, says `use_cpu`."""
    said = False
    if argv and not argv[0].startswith("-"):
        try:
            said = bool(read_recipe(argv[0]).get("use_cpu"))
        except UsageError:
            pass  # no recipe, but a model; or one that the command will refuse
    for argument, following in zip(argv, [*argv[1:], ""]):
        name, equals, value = argument.replace("-", "_").partition("=")
        if name in ("__use_cpu", "__no_use_cpu"):
            value = value if equals else following
            said = name == "__use_cpu" and value.lower() not in ("false", "no", "n", "f", "0")
    return said


def launch(launcher, name, argv) -> int:
    """
    Run `sensia NAME ARGV` under `accelerate launch LAUNCHER`. On a machine without accelerators, where accelerate
    starts one process whatever it is told, several are started by `torchrun`.

    Returns:
        `int`: The exit code. The processes have said themselves what was wrong.
    """
    import torch
    from accelerate.commands.launch import launch_command, launch_command_parser
    from accelerate.utils import patch_environment
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    command = ["--module", "sensia_trainer", name, *argv]
    arguments = launch_command_parser().parse_args([*launcher, *command])
    processes = arguments.num_processes or 1
    for chatter in ("torch.distributed.elastic", "accelerate.commands.launch"):
        logging.getLogger(chatter).setLevel(logging.CRITICAL)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_TIMEOUT)
    try:
        with signals_handed_on():
            if processes > 1 and (arguments.cpu or not torch.accelerator.is_available()):
                threads = os.environ.get("OMP_NUM_THREADS", max(1, (os.cpu_count() or 1) // processes))
                with patch_environment(accelerate_use_cpu=True, omp_num_threads=threads):
                    torchrun(["--standalone", "--nproc_per_node", str(processes), *command])
            else:
                launch_command(arguments)
    except subprocess.CalledProcessError as error:
        return error.returncode
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    except SignalException as error:
        return EXIT_PREEMPTED if error.sigval == signal.SIGTERM else EXIT_INTERRUPTED
    return 0


@contextmanager
def signals_handed_on():
    """
    Within, this process stays until those it starts have ended: they save, and their exit codes say what became of
    them. Ctrl-C reaches them by itself, SIGTERM is handed on (torchrun does so on its own).
    """
    before = set(psutil.Process().children())

    def hand_on(number, _):
        started = set(psutil.Process().children()) - before
        for process in started:
            process.send_signal(number)
        if not started:
            raise SystemExit(EXIT_PREEMPTED)

    handlers = {signal.SIGINT: lambda *_: None, signal.SIGTERM: hand_on}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
