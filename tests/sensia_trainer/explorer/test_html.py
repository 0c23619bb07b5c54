"""What is shown: well-formed, without anything that was typed becoming markup, and legible without colour."""

import re
from html.parser import HTMLParser

import pytest

from sensia_trainer.explorer import html, views

from .conftest import HOSTILE, PAIRS


VOID = {"br", "img", "path", "use", "input"}


class Checker(HTMLParser):
    """Tags in order, with their attributes; complains about what is not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def shown(explored, text) -> dict[str, str]:
    """Every view of a text, as far as it has one."""
    answers = {}
    questions = {
        "senses": lambda: html.senses_html(explored, text, views.senses_of(explored, text)),
        "weights": lambda: html.weights_html(explored, views.weights_on_next(explored, text)),
        "logits": lambda: html.weights_html(explored, views.weights_on_next(explored, text), "logits"),
        "steered": lambda: html.steered_html(
            text, views.steer(explored, text, (views.words_of(text) or [""])[0], 0, 3, 2), text
        ),
        "similarity": lambda: html.similarity_html(views.similarity(explored, text, text)),
        "map": lambda: html.map_html(
            [(text, views.map_of(explored, [(text or "a", text or "b"), *PAIRS]))], (text, text), text
        ),
        "note": lambda: html.note(text),
    }
    for name, question in questions.items():
        try:
            answers[name] = question()
        except ValueError:
            pass
    return answers


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_is_typed_becomes_markup(explored, text):
    text = "".join(sign for sign in text if sign >= " ")[:2000]
    answers = shown(explored, text)
    assert {"map", "note"} <= set(answers)
    for name, answer in answers.items():
        found = Checker(answer)
        for tag, attributes in found.tags:
            assert tag not in ("script", "img", "iframe", "link", "style", "a"), name
            assert not [attribute for attribute in attributes if attribute.startswith("on")], name


def test_a_word_and_its_translations(explored):
    answer = html.senses_html(explored, "cat", views.senses_of(explored, "cat"))
    found = Checker(answer)
    assert "The 4 senses of “cat”" in found.text and "Nearest Indonesian words" in found.text
    assert len([tag for tag, _ in found.tags if tag == "tr"]) == 1 + 4
    assert set(re.findall(r"<mark[^>]*><bdi[^>]*>(.*?)</bdi></mark>", answer)) == {"kucing"}
    assert "Framed" in found.text and "<mark" in answer  # four others and five places: it is always among them


def test_weights_are_numbers_as_well_as_shades(explored):
    weights = views.weights_on_next(explored, "The cat sleeps on")
    found = Checker(html.weights_html(explored, weights))
    cells = [attributes for tag, attributes in found.tags if attributes.get("class", "").startswith("cell")]
    assert len(cells) == weights.alpha.size
    assert float(cells[0]["title"]) == pytest.approx(weights.alpha[0, 0], abs=1e-3)
    assert "Each column sums to 100" in found.text and "Likeliest words after “" in found.text
    logits = Checker(html.weights_html(explored, weights, "logits"))
    signs = [attributes["class"].split()[1] for _, attributes in logits.tags if "cell" in attributes.get("class", "")]
    assert signs == ["minus" if value < 0 else "plus" for value in weights.logits.T.flatten()]
    assert "Hatched: it takes away" in logits.text


def test_retrieval_says_what_it_found(explored):
    text = "The cat sleeps.\nThe sea."
    found = Checker(html.similarity_html(views.similarity(explored, text, text)))
    assert "senses find 2 of 2, contexts 2, shared tokens 2; by chance it would be 1" in found.text
    assert found.text.count("✓") == 1 * 2 * 3 + 3  # in the cells, and in the captions
    unequal = Checker(html.similarity_html(views.similarity(explored, text, "Laut.")))
    assert "✓" not in unequal.text and "by chance" not in unequal.text


def test_a_steered_text_names_what_was_done(explored):
    same = views.steer(explored, "The cat sleeps", "cat", 0, 1.0, 3)
    found = Checker(html.steered_html("The cat sleeps", same, "sense 0 of “cat” left as it is"))
    assert "The likeliest continuation stays the same" in found.text
    assert found.text.count("The cat sleeps") == 2 and "nats" in found.text


def test_a_map_is_one_picture_a_model_with_words_as_text(explored, before):
    maps = [("Before: a", views.map_of(before, PAIRS)), ("After: b", views.map_of(explored, PAIRS))]
    answer = html.map_html(maps, ("English", "Indonesian"), "all senses")
    found = Checker(answer)
    pictures = [attributes for tag, attributes in found.tags if tag == "svg"]
    assert len(pictures) == 2 and all(one["role"] == "img" and one["aria-label"] for one in pictures)
    assert found.text.count("kucing") == 2 and "first principal component of all senses" in found.text
    assert answer == html.map_html(maps, ("English", "Indonesian"), "all senses")
    assert html.BLUE.lower() in answer.lower() and html.VERMILION.lower() in answer.lower()
