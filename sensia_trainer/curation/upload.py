"""A built bitext on the Hub: Parquet files, data card, statistics, figure and recipe, in one commit."""

import tempfile
from pathlib import Path
from shutil import copyfile

import datasets
from huggingface_hub import HfApi


ROWS_A_FILE = 500_000
REPORT = ("README.md", "statistics.json", "statistics.md", "lengths.png", "lengths.svg", "recipe.yaml")


def push_bitext(folder, repo_id: str, *, private: bool = False) -> str:
    """Upload the folder that `build_bitext` wrote; returns the address of the dataset.

    Args:
        folder: output folder of `build_bitext`.
        repo_id: dataset repository, created where it is not there.
        private: visibility of a repository that is created.

    Raises ValueError when the folder holds no finished bitext.
    """
    folder = Path(folder)
    if not (folder / "state.json").is_file():
        raise ValueError(f"{folder} holds no finished bitext; build it first, with examples/build_bitext.py")
    dataset = datasets.load_from_disk(str(folder))
    api = HfApi()
    repository = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    files = -(-len(dataset) // ROWS_A_FILE)
    with tempfile.TemporaryDirectory() as staging:
        (Path(staging) / "data").mkdir()
        for n in range(files):
            shard = dataset.shard(files, n, contiguous=True)
            shard.to_parquet(f"{staging}/data/train-{n:05d}-of-{files:05d}.parquet")
        for name in REPORT:
            copyfile(folder / name, Path(staging) / name)
        api.upload_folder(
            repo_id=repository.repo_id,
            repo_type="dataset",
            folder_path=staging,
            commit_message=f"Upload {len(dataset):,} pairs",
            delete_patterns="data/*.parquet",
        )
    return str(repository)
