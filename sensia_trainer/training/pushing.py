"""How a trainer uploads: everything goes the way of `sensia publish`, checked and in one commit."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import CommitInfo, create_repo
from huggingface_hub.errors import HTTPError
from transformers import Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils import logging

from ..utils.files import METRICS_FILE, read_json, write_json
from .runs import SETTINGS_FILE, run_metrics


logger = logging.get_logger(__name__)

MODEL_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".py")
NOT_OF_THE_MODEL = ("trainer_state", "running_state", "manifest")  # JSON files of a checkpoint
PUSHED_FILE = ".pushed.json"  # of a finished run: the repository and the commit that hold it


class PublishingTrainer(Trainer):
    """
    [`~transformers.Trainer`] whose `push_to_hub`, and whose pushes of checkpoints, refuse what `sensia publish`
    refuses, and make private repositories unless `hub_private_repo` is false. Of a checkpoint the model is pushed:
    optimizer and random states are pickles and stay in `output_dir`.

    Raises:
        `ValueError`: for a `hub_strategy` that pushes whole checkpoints.
    """

    def init_hf_repo(self, token=None, private=None):
        if self.args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            raise ValueError(
                f"`hub_strategy` is {self.args.hub_strategy.value!r}, but optimizer and random states of checkpoints "
                "are pickles, which are not uploaded: use 'every_save' or 'end', and keep `output_dir` to resume from."
            )
        super().init_hf_repo(token, self.args.hub_private_repo is not False if private is None else private)

    def push_to_hub(
        self, commit_message="End of training", blocking=True, token=None, revision=None, private=None, **kwargs
    ):
        """
        Publishes `output_dir` with its card ([`create_model_card`]); it has arrived when this returns.

        Args:
            commit_message, blocking, token, revision, private: As those of [`~transformers.Trainer.push_to_hub`].
            kwargs: As those of [`~sensia_trainer.hub.publishing.publish`]: `license`, `base_model`, `title`, `tag`.

        Returns:
            `CommitInfo` on the first process, else `None`.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token, private)
        if not self._is_left_by_a_command():
            self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card()
        options = {"token": token, "revision": revision, **kwargs}
        commit = _publish(self.args, self.hub_model_id, self.args.output_dir, commit_message, **options)
        _note_pushed(self.args, commit)
        return commit

    def create_model_card(self, *args, **kwargs):
        """
        Makes `output_dir` whole and writes its card from `metrics.json`. Where no command has left that file, it is
        written from what the trainer knows ([`card_metrics`]). The arguments of
        [`~transformers.Trainer.create_model_card`] are not read: every line of the card comes from that file.
        """
        from ..hub.folders import finish_folder

        if self.is_world_process_zero():
            if not self._is_left_by_a_command():
                write_json(Path(self.args.output_dir) / METRICS_FILE, self.card_metrics())
            finish_folder(self.args.output_dir, repo_id=self.hub_model_id or self.args.hub_model_id)

    def _is_left_by_a_command(self) -> bool:
        return all((Path(self.args.output_dir) / name).is_file() for name in (METRICS_FILE, SETTINGS_FILE))

    def card_metrics(self) -> dict:
        """What `metrics.json` holds where no command writes it: settings and the last evaluation."""
        losses = [row["eval_loss"] for row in self.state.log_history if "eval_loss" in row]
        model = self.accelerator.unwrap_model(self.model)
        after = {"cross_entropy": losses[-1]} if losses else {}
        return run_metrics(self.args, kind="pretraining", model=model, state=self.state, data={}, after=after)

    def _push_from_checkpoint(self, checkpoint_folder):
        from ..hub.folders import finish_folder

        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        with TemporaryDirectory() as folder:
            for file in Path(checkpoint_folder).iterdir():
                if file.suffix in MODEL_SUFFIXES and not file.name.startswith(NOT_OF_THE_MODEL):
                    shutil.copyfile(file, Path(folder) / file.name)
            write_json(Path(folder) / METRICS_FILE, self.card_metrics())
            finish_folder(folder, repo_id=self.hub_model_id)
            try:
                _publish(self.args, self.hub_model_id, folder, f"Training in progress, step {self.state.global_step}")
            # The checkpoint is on the disk, training goes on. A failed upload of a large file is a RuntimeError.
            except (OSError, HTTPError, ValueError, RuntimeError) as error:
                logger.warning(f"The model of step {self.state.global_step} was not pushed: {error}")


def push_again(args) -> None:
    """
    Pushes the finished run in `args.output_dir`, on the first process, if it was to be pushed (`push_to_hub`) and the
    push did not arrive.
    """
    noted = Path(args.output_dir) / PUSHED_FILE
    wanted = args.push_to_hub and args.process_index == 0
    if wanted and not (noted.is_file() and read_json(noted).get("wanted") == args.hub_model_id):
        name = args.hub_model_id or Path(args.output_dir).absolute().name
        private = args.hub_private_repo is not False
        repo_id = create_repo(name, token=args.hub_token, private=private, exist_ok=True).repo_id
        print(f"The model was not pushed yet; it goes to {repo_id}.")
        _note_pushed(args, _publish(args, repo_id, args.output_dir, "Finished run"))


def _publish(args, repo_id, folder, message, *, token=None, revision=None, **options):
    from ..hub.publishing import publish

    options |= {"token": token or args.hub_token, "revision": revision or args.hub_revision}
    options["private"] = args.hub_private_repo is not False
    report = publish(folder, repo_id, message=message, **options)
    url = f"{report['url']}/commit/{report['commit']}"
    return CommitInfo(commit_url=url, commit_message=message, commit_description="", oid=report["commit"])


def _note_pushed(args, commit):
    write_json(Path(args.output_dir) / PUSHED_FILE, {"wanted": args.hub_model_id, "commit": commit.commit_url})
