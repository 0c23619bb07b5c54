"""The page without a browser: what is on it at first, and what its functions answer over HTTP."""

import json
import threading

import pytest


pytest.importorskip("gradio")

from gradio_client import Client  # noqa: E402

from sensia_trainer.commands import explore  # noqa: E402
from sensia_trainer.explorer import page as pages  # noqa: E402

from .conftest import HOSTILE  # noqa: E402


@pytest.fixture(scope="module")
def page(explored, before):
    return pages.build_page([explored], before)


@pytest.fixture(scope="module")
def client(page):
    _, url, _ = pages.launch(page, server_name="127.0.0.1", prevent_thread_lock=True)
    client = Client(url, verbose=False)
    yield client
    client.close()
    page.close()


def views_of(page) -> dict[str, str]:
    return {one.elem_id: one.value for one in page.blocks.values() if str(one.elem_id).endswith("-view")}


def test_every_tab_shows_something_before_anything_is_asked(page):
    found = views_of(page)
    assert set(found) == {f"{name}-view" for name in ("senses", "weights", "steer", "retrieve", "map")}
    assert "The 4 senses of “book”" in found["senses-view"]
    assert "nats" in found["steer-view"] and "cosine" in found["retrieve-view"]
    assert found["map-view"].count("<svg") == 2 and "Before: tiny-en" in found["map-view"]


def test_nothing_is_fetched_from_elsewhere_and_nothing_is_told(page):
    assert page.analytics_enabled is False
    assert "http" not in json.dumps([str(font) for font in pages.THEME._font])
    assert "url(" not in pages.CSS and "@import" not in pages.CSS


def test_answers(client):
    assert "“kucing”" in client.predict("tiny-id", "kucing", api_name="/senses")
    assert "after “The”" in client.predict("tiny-id", "The cat", 0, "alpha", api_name="/weights")
    steered = client.predict("tiny-en", "The cat sleeps", "cat", 2, 0, 3, api_name="/steer")
    assert "sense 2 of “cat” silenced" in steered
    assert "senses find" in client.predict("tiny-id", "A cat.\nA sea.", "Kucing.\nLaut.", api_name="/retrieve")
    drawn = client.predict("tiny-en", "tiny-id", "cat = kucing\nsea = laut", "3", api_name="/map")
    assert drawn.count("<svg") == 2 and "sense 3" in drawn


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_input_is_answered_without_markup(page, text):
    ask = pages.Asking({"tiny-id": page_model(page)})
    answers = [
        ask.shown(ask.senses, "tiny-id", text),
        ask.shown(ask.weights, "tiny-id", text, 3, "alpha"),
        ask.shown(ask.steer, "tiny-id", text, text[:50], 0, 3, 2),
        ask.shown(ask.retrieve, "tiny-id", text, text),
        ask.shown(ask.map, None, "tiny-id", text, pages.ALL_SENSES),
    ]
    for answer in answers:
        assert answer and "<script" not in answer and "<img" not in answer
        assert len(answer) < 400_000


def page_model(page):
    import inspect

    for function in page.fns.values():
        found = inspect.getclosurevars(function.fn).nonlocals.get("ask")
        if found is not None:
            return next(iter(found.known.values()))
    raise AssertionError("no function of the page asks a model")


@pytest.mark.parametrize(
    ("question", "given", "problem"),
    [
        ("senses", ["tiny-id", ""], "Type a word"),
        ("senses", ["<b>other</b>", "cat"], "There is no model &#x27;&lt;b&gt;other"),
        ("senses", [None, "cat"], "There is no model"),
        ("weights", ["tiny-id", "", None, "alpha"], "Type a sentence"),
        ("steer", ["tiny-id", "The cat", "dog", 0, 2, 3], "Choose a word"),
        ("steer", ["tiny-id", "The cat", "cat", 99, 2, 3], "senses 0 to 3"),
        ("steer", ["tiny-id", "The cat", None, 0, 2, 3], "Choose a word"),
        ("steer", ["tiny-id", "The cat", "cat", None, None, None], "NoneType"),
        ("retrieve", ["tiny-id", "a", ""], "at least one sentence on each side"),
        ("map", ["", "tiny-id", "a = b", "3"], "at least two words"),
        ("map", ["", "tiny-id", "a = b\nc = d", "9"], "senses 0 to 3"),
        ("map", [None, None, "a = b\nc = d", "1"], "Choose a model"),
    ],
)
def test_what_is_wrong_is_said_in_one_note(explored, question, given, problem):
    ask = pages.Asking({"tiny-id": explored})
    answer = ask.shown(getattr(ask, question), *given)
    assert answer.startswith('<p class="note"') and problem in answer


def test_questions_at_the_same_time_do_not_change_each_others_model(explored):
    ask = pages.Asking({"tiny-id": explored})
    expected = ask.shown(ask.weights, "tiny-id", "The cat sleeps", None, "alpha")
    answers = []

    def boost():
        for _ in range(5):
            ask.shown(ask.steer, "tiny-id", "The cat sleeps", "cat", 0, 9, 5)

    def look():
        for _ in range(5):
            answers.append(ask.shown(ask.weights, "tiny-id", "The cat sleeps", None, "alpha"))

    threads = [threading.Thread(target=one) for one in (boost, look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) == {expected}


def test_two_models_are_before_and_after(explored, before):
    found = views_of(pages.build_page([before, explored]))
    assert found["map-view"].index("Before: tiny-en") < found["map-view"].index("After: tiny-id")


def test_without_gradio_one_line_says_how_to_get_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "sensia_trainer.explorer.page", raising=False)
    with pytest.raises(ValueError, match=r"pip install 'sensia\[explore\]'"):
        explore.main(["anything"])
