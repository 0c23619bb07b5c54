"""Markdown that is written shows what it was given: read back by a parser, no name becomes markup."""

import ast

import pytest
from markdown_it import MarkdownIt

from sensia_trainer.utils.markdown import bold, code, escape, number, quoted, table, with_interval


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<!-- hidden",
    "</td><script>alert(1)</script>",
    "&lt;b&gt; &#x41; R&D",
    "[click](javascript:alert(1))",
    "![pixel](https://example.org/a.png)",
    "[click][1]",
    "[1]: https://example.org",
    "**bold** _italic_ __both__ *one ~~gone~~ snake_case_name 3*4*5",
    "`code` ``two`` \\`not",
    "a|b||c \\| d",
    "ends with a backslash\\",
    "two\nlines\r\n\n# heading\n\n| a | b |\n|---|---|",
    "```\nprint(1)\n```",
    "\u202etxt.exe and \u200bzero\x00nul",
    "en–id → 3 × 4, l’été 日本語 العربية",
    "-1.5",
]
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(markdown: str) -> list[str]:
    """The texts of inline content, in order; fails where anything but text is in it."""
    texts = []
    for token in PARSER.parse(markdown):
        assert not token.type.startswith("html"), token
        if token.type == "inline":
            kinds = {child.type for child in token.children}
            assert kinds <= {"text"}, (kinds, token.content)
            texts.append("".join(child.content for child in token.children))
    return texts


def on_one_line(text: str) -> str:
    for unseen in "\x00\u202e\u200b":
        text = text.replace(unseen, " ")
    return " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_shows_as_it_is(text):
    assert shown(f"Trained on {escape(text)}, and more.") == [f"Trained on {on_one_line(text)}, and more."]
    assert shown(f"# The model {escape(text)}.") == [f"The model {on_one_line(text)}."]
    assert escape(escape(text)) == escape(text)


def test_a_table_shows_its_cells():
    rows = [[text, 1.5] for text in HOSTILE]
    found = shown(table(["name <b>", "val|ue"], rows))
    assert found[:2] == ["name <b>", "val|ue"]
    assert found[2::2] == [on_one_line(text) for text in HOSTILE] and set(found[3::2]) == {"1.5"}


def test_code_and_bold_show_what_they_hold():
    for text in HOSTILE:
        (inline,) = (token for token in PARSER.parse(f"By {code(text)}.") if token.type == "inline")
        kinds = [child.type for child in inline.children]
        assert kinds == ["text", "code_inline", "text"], text
        assert inline.children[1].content == on_one_line(text).replace("|", "\\|"), text
    (inline,) = (token for token in PARSER.parse(bold("a*b<i>")) if token.type == "inline")
    assert [child.type for child in inline.children if child.type != "text"] == ["strong_open", "strong_close"]


def test_quoted_text_is_a_literal_that_stays_in_its_block():
    for text in HOSTILE:
        literal = quoted(text)
        assert ast.literal_eval(literal) == text and "`" not in literal and "\n" not in literal


def test_columns_of_numbers_are_flush_right():
    rows = [["a", 12345, 0.00054321, "–"], ["b", 2, 48.1239, "1 [0, 2]"]]
    assert table(["", "n", "x", "y"], rows) == (
        "|  | n | x | y |\n| --- | ---: | ---: | ---: |\n| a | 12,345 | 0.0005432 | – |\n| b | 2 | 48.12 | 1 [0, 2] |"
    )
    assert table(["a"], []) == ""
    with pytest.raises(ValueError, match="2 cells and the table 1 columns"):
        table(["a"], [[1, 2]])


def test_numbers_are_written_for_readers():
    values = (12345, 0.00054321, 48.1239, 12345.6, True, "x", 1e85)
    assert [number(x) for x in values] == ["12,345", "0.0005432", "48.12", "12,346", "True", "x", "1e+85"]
    assert with_interval(0.75123, [0.7211, 0.7812]) == "0.751 [0.721, 0.781]"
    assert with_interval(0.75123, [None, None]) == "0.751"
    assert with_interval(2345.678, None, 1) == "2,345.7" and with_interval(None) == "–"
    assert with_interval(3.5e10, [3e10, 4e10], 1, "*") == "3.5e+10* [3.0e+10, 4.0e+10]"
