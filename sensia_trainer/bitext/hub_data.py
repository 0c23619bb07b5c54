"""Data sets of the Hub, also those that still hold a loading script: the Hub keeps a Parquet copy of them."""

EXPORT = "refs/convert/parquet"  # the branch of the copies, with CONFIGURATION/SPLIT/*.parquet


def load_hub(path: str, config: str | None = None, split: str | None = None):
    """
    The rows of one configuration: a `datasets.Dataset` of one split (`"train[:1000]"` takes its beginning), a
    `datasets.DatasetDict` of all of them for `None`.

    Raises:
        `ValueError`: if the data set lacks the configuration or the split (what exists is listed).
    """
    from datasets import load_dataset
    from huggingface_hub import hf_hub_download

    try:
        return load_dataset(path, config, split=split)
    except RuntimeError as error:
        _refuse_unless_script(error)
    files = _exported_files(path)
    present = sorted({file.rsplit("/", 1)[0] for file in files})
    configs = {place.split("/")[0] for place in present}
    config = configs.pop() if config is None and len(configs) == 1 else config
    name = split and split.partition("[")[0]
    splits = {place.split("/")[1]: place for place in present if place.split("/")[0] == config}
    if not splits or name not in (None, *splits):
        raise ValueError(f"The dataset {path} has no split {split!r} of {config!r}; it has {present}.")
    local = {
        one: [
            hf_hub_download(path, file, repo_type="dataset", revision=EXPORT)
            for file in files
            if file.startswith(f"{place}/")
        ]
        for one, place in splits.items()
        if name in (None, one)
    }
    return load_dataset("parquet", data_files=local, split=split)


def hub_configurations(path: str) -> list[str]:
    """The configurations of a data set, which for most multilingual ones are its languages."""
    from datasets import get_dataset_config_names

    try:
        return get_dataset_config_names(path)
    except RuntimeError as error:
        _refuse_unless_script(error)
    return sorted({file.split("/")[0] for file in _exported_files(path)})


def _refuse_unless_script(error: RuntimeError) -> None:
    if "script" not in str(error):
        raise error


def _exported_files(path: str) -> list[str]:
    from huggingface_hub import HfApi

    files = HfApi().list_repo_files(path, repo_type="dataset", revision=EXPORT)
    return [file for file in files if file.endswith(".parquet")]
