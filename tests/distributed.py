"""Run a function in a process of its own, or on several that talk over gloo as the ranks of one training do."""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from accelerate.state import AcceleratorState, DistributedType, PartialState


# Processes are forked from a server that has done the slow imports once (a name that cannot be imported is skipped).
multiprocessing.set_forkserver_preload(["tests.quickened", "sensia_trainer.training.checkpointing"])
ROOT = Path(__file__).resolve().parents[1]


def run_on_processes(function: Callable, *args, num_processes: int = 2) -> list:
    """What `function(*args)` returns on each rank, in rank order.

    `function` must be at the top level of a module, its arguments and result made of tensors, numbers, strings, lists
    and dicts. The process group exists when it is called, and so do the environment variables of `torchrun`. An
    exception on any rank fails the caller with that rank's traceback.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = (num_processes, free_port(), folder, function, args)
        start_server()
        mp.start_processes(_worker, arguments, nprocs=num_processes, start_method="forkserver")
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(num_processes)]


def run_in_process(function: Callable, *args) -> int:
    """The exit code of a process of its own that calls `function(*args)`; minus the signal that killed it."""
    start_server()
    process = multiprocessing.get_context("forkserver").Process(target=function, args=args)
    process.start()
    process.join()
    return process.exitcode


def start_server() -> None:
    """Starts the server, if it is not there, where it finds these tests: it looks in its working directory alone."""
    with contextlib.chdir(ROOT):
        multiprocessing.forkserver.ensure_running()


def allow_fsdp_on_cpu() -> None:
    """Accelerate shards on accelerators only and silently falls back to DDP on the CPU; here it is told to shard."""
    make = AcceleratorState.__init__

    def make_sharded(self, *args, fsdp_plugin=None, **kwargs):
        make(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = make_sharded


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _worker(rank, num_processes, port, folder, function, args):
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(num_processes),
        LOCAL_WORLD_SIZE=str(num_processes),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        torch.save(function(*args), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
