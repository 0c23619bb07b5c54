"""Starting a command on several processes, on GPUs or on the CPU: arguments of `accelerate launch` pass through."""

import logging
import os
import signal
import subprocess
from argparse import ArgumentParser

from .recipes import RECIPES


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


def wants_launcher(launcher, training) -> bool:
    """Whether a command goes through the launcher: told to, configured to, or with several devices to train on."""
    if is_launched():
        return False
    if launcher or not training:
        return bool(launcher)
    import torch
    from accelerate.commands.config.config_args import default_config_file

    return os.path.isfile(default_config_file) or torch.accelerator.device_count() > 1


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
    previous = signal.signal(signal.SIGINT, _wait)
    try:
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
    except SignalException:
        return 130
    finally:
        signal.signal(signal.SIGINT, previous)
    return 0


def _wait(*_):
    """Ctrl-C reaches the processes too, which save and say how to go on; the launcher stays until they have."""
