"""A push that did not arrive is made up for by the same command."""

from types import SimpleNamespace

import pytest

from sensia_trainer.training.pushing import push_again


@pytest.fixture
def sent(monkeypatch):
    """What was published; the first attempt fails."""
    sent = []

    def publish(folder, repo_id, **options):
        sent.append((repo_id, options))
        if len(sent) == 1:
            raise OSError("no network")
        return {"url": f"https://huggingface.co/{repo_id}", "commit": "abc"}

    def create_repo(name, **options):
        return SimpleNamespace(repo_id=f"owner/{name}")

    monkeypatch.setattr("sensia_trainer.hub.publishing.publish", publish)
    monkeypatch.setattr("sensia_trainer.training.pushing.create_repo", create_repo)
    return sent


def arguments(folder, **fields):
    hub = {"hub_model_id": None, "hub_token": None, "hub_private_repo": None, "hub_revision": None}
    return SimpleNamespace(**{"output_dir": str(folder), "push_to_hub": True, "process_index": 0, **hub, **fields})


def test_a_push_that_failed_is_repeated_and_one_that_arrived_is_not(tmp_path, sent, capsys):
    args = arguments(tmp_path / "my-model")
    (tmp_path / "my-model").mkdir()
    with pytest.raises(OSError, match="no network"):
        push_again(args)
    push_again(args)
    push_again(args)
    assert [name for name, _ in sent] == ["owner/my-model"] * 2
    assert sent[-1][1]["private"] and "owner/my-model" in capsys.readouterr().out


@pytest.mark.parametrize("fields", [{"push_to_hub": False}, {"process_index": 1}])
def test_nothing_is_pushed_that_was_not_to_be(tmp_path, sent, fields):
    push_again(arguments(tmp_path, **fields))
    assert not sent
