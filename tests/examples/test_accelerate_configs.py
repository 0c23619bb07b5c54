"""Every accelerate configuration under sensia_trainer/recipes is one that `accelerate launch` takes."""

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from sensia_trainer.utils.recipes import RECIPES as RECIPES_FOLDER


FOLDER = RECIPES_FOLDER / "accelerate"
EXPECTED = {
    "cpu.yaml": (DistributedType.NO, 1, 1, True),
    "one_gpu.yaml": (DistributedType.NO, 1, 1, False),
    "one_node_ddp.yaml": (DistributedType.MULTI_GPU, 1, 8, False),
    "several_nodes_fsdp.yaml": (DistributedType.FSDP, 2, 16, False),
}


def test_all_are_expected():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_reads_it(name):
    config = load_config_from_file(str(FOLDER / name))  # refuses unknown keys
    assert isinstance(config, ClusterConfig)
    kind, machines, processes, cpu = EXPECTED[name]
    assert (config.distributed_type, config.num_machines, config.num_processes, config.use_cpu) == (
        kind,
        machines,
        processes,
        cpu,
    )
    assert name in (FOLDER / name).read_text()  # the command in its comment names this file


def test_fsdp_settings_are_fields_of_the_plugin():
    settings = load_config_from_file(str(FOLDER / "several_nodes_fsdp.yaml")).fsdp_config
    fields = FullyShardedDataParallelPlugin.__dataclass_fields__
    renamed = {"fsdp_offload_params": "cpu_offload"}
    for name in settings:
        assert renamed.get(name, name.removeprefix("fsdp_")) in fields or name in fields, name
