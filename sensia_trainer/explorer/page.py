"""The page: five tabs over the functions of `views`, shown by those of `html`. All that needs Gradio is here."""

import functools
import threading
from pathlib import Path

import gradio as gr

from . import html, views
from .models import Explored


CSS = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
THEME = gr.themes.Default(
    primary_hue="blue",
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"],  # nothing is fetched
    font_mono=["ui-monospace", "Consolas", "monospace"],
)
INTRODUCTION = """
# Sense explorer

Each word has **{senses} senses**: vectors that do not depend on the sentence. The model writes the next word by adding
up the senses of all the words so far, each weighed by how much it matters here. So a sense can be read, measured,
silenced and boosted. {models}
"""
SENTENCES = {  # of everyday words; the same line is the same sentence
    "en": ["The sun and the moon are in the sky.", "My mother gave me a book.", "The river runs to the sea.",
           "Maria Santos has 25 books."],
    "id": ["Matahari dan bulan ada di langit.", "Ibu saya memberi saya sebuah buku.", "Sungai mengalir ke laut.",
           "Maria Santos punya 25 buku."],
    "et": ["Päike ja kuu on taevas.", "Mu ema andis mulle raamatu.", "Jõgi voolab merre.",
           "Maria Santosel on 25 raamatut."],
    "sw": ["Jua na mwezi ziko angani.", "Mama yangu alinipa kitabu.", "Mto unatiririka hadi baharini.",
           "Maria Santos ana vitabu 25."],
    "tr": ["Güneş ve ay gökyüzünde.", "Annem bana bir kitap verdi.", "Nehir denize akar.",
           "Maria Santos'un 25 kitabı var."],
    "zh": ["太阳和月亮在天上。", "我的母亲给了我一本书。", "河流入大海。", "Maria Santos 有 25 本书。"],
}  # fmt: skip
MAPPED = ("water", "book", "child", "house", "king", "sea", "day", "name", "eye", "city")
ALL_SENSES = "all, by their shares"


def build_page(models: list[Explored], before: Explored | None = None) -> gr.Blocks:
    """The page over some models.

    Args:
        models (`list[Explored]`): The first is shown at first.
        before (`Explored`, *optional*): The model that they began as; of two models, the first where it is not given.
    """
    known = {}
    for one in [*models, *([before] if before else [])]:
        if one not in known.values():
            known[one.name if one.name not in known else f"{one.name} ({len(known) + 1})"] = one
    names = {one: name for name, one in known.items()}
    first = models[0]
    if before is None and len(models) > 1:
        before, first = models[:2]
    most = max(one.model.config.num_senses for one in known.values())
    ask = Asking(known)
    with gr.Blocks(title="Sense explorer", analytics_enabled=False) as page:
        told = " and ".join(dict.fromkeys(first.language_name(side) for side in range(len(first.languages))))
        gr.Markdown(
            INTRODUCTION.format(senses=first.model.config.num_senses, models=f"Languages here: {told}."),
            elem_classes="sensia",
        )
        model = gr.Radio(
            list(known), value=names[first], label="Model", visible=len(known) > 1, elem_id="model", container=False
        )
        with gr.Tabs():
            with gr.Tab("Senses", id="senses"):
                _senses_tab(ask, model, first)
            with gr.Tab("Weights", id="weights"):
                _weights_tab(ask, model)
            with gr.Tab("Steering", id="steer"):
                _steer_tab(ask, model, most)
            with gr.Tab("Retrieval", id="retrieve"):
                _retrieve_tab(ask, model, first)
            with gr.Tab("Map", id="map"):
                _map_tab(ask, model, first, names.get(before), most)
    return page


def launch(page: gr.Blocks, **options):
    """Serve the page with its looks; nothing is sent anywhere, and no file of this machine is served."""
    # In the head, because Gradio's `css` reaches what is within the page alone, not the page's own margins.
    head = f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{CSS}</style>'
    return page.launch(theme=THEME, head=head, ssr_mode=False, quiet=True, footer_links=[], **options)


class Asking:
    """What the tabs ask of the models, by name: one question at a time, because interventions change a model."""

    def __init__(self, known: dict[str, Explored]):
        self.known, self.lock = known, threading.Lock()

    def model(self, name) -> Explored:
        if name not in self.known:
            raise ValueError(f"There is no model {str(name)[:60]!r} here; choose one of {', '.join(self.known)}.")
        return self.known[name]

    def senses(self, name, word) -> str:
        explored = self.model(name)
        word = views.one_line(word)
        return html.senses_html(explored, word, views.senses_of(explored, word))

    def tokens(self, name, text) -> list[tuple[str, int]]:
        found = views.weights_on_next(self.model(name), text).tokens
        return [(token, place) for place, token in enumerate(found)]

    def weights(self, name, text, position, by) -> str:
        explored = self.model(name)
        return html.weights_html(explored, views.weights_on_next(explored, text, position), by)

    def steer(self, name, text, word, sense, factor, new_tokens) -> str:
        found = views.steer(self.model(name), text, word, sense, factor, new_tokens)
        done = "silenced" if factor == 0 else "left as it is" if factor == 1 else f"times {factor:g}"
        shown = views.one_line(text)[: 20 * views.MAX_TOKENS]
        return html.steered_html(shown, found, f"sense {int(sense)} of “{views.one_line(word)}” {done}")

    def retrieve(self, name, source, target) -> str:
        found = views.similarity(self.model(name), source, target)
        longest = max(len(views.lines_of(side, 10**6)) for side in (str(source), str(target)))
        left = html.note(f"The first {views.MAX_SENTENCES} lines of each side are compared.")
        return (left if longest > views.MAX_SENTENCES else "") + html.similarity_html(found)

    def map(self, before, after, pairs, sense) -> str:
        pairs, chosen = views.parse_pairs(pairs), None if sense == ALL_SENSES else int(sense)
        maps = []
        for title, name in (("Before", before), ("After", after)):
            if name:
                explored = self.model(name)
                if chosen is not None and not 0 <= chosen < explored.model.config.num_senses:
                    raise ValueError(f"{name} has the senses 0 to {explored.model.config.num_senses - 1}.")
                maps.append((f"{title}: {name}", views.map_of(explored, pairs, chosen)))
        if not maps:
            raise ValueError("Choose a model.")
        languages = self.model(after or before)
        sides = [languages.language_name(side) for side in range(len(languages.languages))] + ["translations"]
        return html.map_html(maps, tuple(sides[:2]), "all senses" if chosen is None else f"sense {chosen}")

    def shown(self, question, *given) -> str:
        """The answer as HTML, or what is wrong with the question."""
        try:
            with self.lock:
                return question(*given)
        except (ValueError, TypeError, OverflowError) as error:
            return html.note(str(error))


def _answers(ask: Asking, question, inputs, output, triggers, api_name):
    """Show the answer to `question` when one of the triggers fires, and at first."""
    output.value = ask.shown(question, *(component.value for component in inputs))

    @functools.wraps(question)
    def answer(*given):
        return ask.shown(question, *given)

    gr.on(triggers, answer, inputs, output, api_name=api_name, show_progress="minimal", trigger_mode="always_last")


def _view(name: str) -> gr.HTML:
    return gr.HTML(elem_id=f"{name}-view", elem_classes="view", render=False)


def _about(text: str):
    gr.Markdown(text, elem_classes="sensia")


def _senses_tab(ask, model, first):
    _about("The senses of a word, each told by the words whose same sense is nearest, in both languages.")
    with gr.Row(elem_classes="ask"):
        word = gr.Textbox("book", label="Word, of either language", elem_id="senses-word", scale=4, max_lines=1)
        show = gr.Button("Show", variant="primary", elem_id="senses-show", scale=1, min_width=80)
    pairs = dict(first.pairs)
    examples = [one for word in ("water", "sea", "child") if word in pairs for one in (word, pairs[word])]
    view = _view("senses")
    if examples:
        with gr.Row(elem_classes="examples"):
            for example in dict.fromkeys(examples):
                gr.Button(example, size="sm", min_width=70, variant="secondary").click(
                    lambda example=example: example, None, word, api_visibility="private", queue=False
                ).then(lambda *given: ask.shown(ask.senses, *given), [model, word], view, api_visibility="private")
    view.render()
    _answers(ask, ask.senses, [model, word], view, [show.click, word.submit, model.change], "senses")


def _weights_tab(ask, model):
    _about("How much each sense of each word so far weighs on the next word.")
    with gr.Row(elem_classes="ask"):
        text = gr.Textbox(
            "The king gave the book to his mother and", label="Sentence", elem_id="weights-text", scale=4, max_lines=4
        )
        show = gr.Button("Show", variant="primary", elem_id="weights-show", scale=1, min_width=80)
    choices = ask.tokens(model.value, text.value)
    position = gr.Radio(
        choices,
        value=len(choices) - 1,
        label="Tokens: choose the one behind which the next word is looked at",
        elem_id="weights-tokens",
        elem_classes="tokens",
    )
    by = gr.Radio(
        [("weight α", "alpha"), ("score it adds to the likeliest next word", "logits")],
        value="alpha",
        label="Show",
        elem_id="weights-by",
    )
    view = _view("weights").render()

    def tokens(name, sentence):
        try:
            found = ask.tokens(name, sentence)
        except ValueError:
            found = []
        return gr.Radio(found, value=len(found) - 1 if found else None)

    _answers(ask, ask.weights, [model, text, position, by], view, [position.input, by.input], "weights")
    gr.on([show.click, text.submit, model.change], tokens, [model, text], position, api_visibility="private").then(
        lambda *given: ask.shown(ask.weights, *given), [model, text, position, by], view, api_visibility="private"
    )


def _steer_tab(ask, model, most):
    _about(
        "A sense of a word is multiplied by a factor: 0 silences it, 1 leaves it, more boosts it. Models of a few "
        "million parameters write no usable text; look at what changes."
    )
    first = "Open the file in the"
    text = gr.Textbox(first, label="Beginning of a text", elem_id="steer-text", max_lines=4)
    with gr.Row():
        word = gr.Dropdown(
            views.words_of(first),
            value="file",
            label="Word",
            elem_id="steer-word",
            min_width=140,
            allow_custom_value=True,
        )
        sense = gr.Slider(0, most - 1, 0, step=1, label="Sense", elem_id="steer-sense", min_width=160)
        factor = gr.Slider(0, 10, 5, step=0.5, label="Factor", elem_id="steer-factor", min_width=160)
        length = gr.Slider(
            1, views.MAX_NEW_TOKENS, 15, step=1, label="Tokens to write", elem_id="steer-length", min_width=160
        )
    show = gr.Button("Write on", variant="primary", elem_id="steer-show")
    view = _view("steer").render()

    def words(sentence, chosen):
        found = views.words_of(sentence)[: views.MAX_TOKENS]
        return gr.Dropdown(found, value=chosen if chosen in found else found[-1] if found else None)

    text.change(words, [text, word], word, api_visibility="private", show_progress="hidden")
    inputs = [model, text, word, sense, factor, length]
    triggers = [show.click, text.submit, model.change, word.input, sense.release, factor.release]
    _answers(ask, ask.steer, inputs, view, triggers, "steer")


def _retrieve_tab(ask, model, first):
    _about("Does a sentence find its translation? By its senses, by its context, and by the tokens that both share.")
    sides = [code if code in SENTENCES else None for code in first.languages]
    names = [first.language_name(side) for side in range(len(sides))] + ["another language"]
    texts = ["\n".join(SENTENCES[code]) if code else "" for code in [*sides, None][:2]]
    with gr.Row():
        source, target = (
            gr.Textbox(
                text, lines=5, max_lines=8, label=f"Sentences, one a line: {name}", elem_id=f"retrieve-{side}",
                min_width=280,
            )
            for side, text, name in zip(("source", "target"), texts, names)
        )  # fmt: skip
    show = gr.Button("Compare", variant="primary", elem_id="retrieve-show")
    view = _view("retrieve").render()
    _answers(ask, ask.retrieve, [model, source, target], view, [show.click, model.change], "retrieve")


def _map_tab(ask, model, first, before, most):
    _about("Words and their translations, placed by their senses: near each other means alike.")
    pairs = [(one, other) for one, other in first.pairs if one in MAPPED] or first.pairs[: len(MAPPED)]
    with gr.Row():
        words = gr.Textbox(
            "\n".join(f"{one} = {other}" for one, other in pairs),
            lines=10,
            max_lines=10,
            label="Words and their translations, one pair a line",
            elem_id="map-words",
            min_width=280,
        )
        with gr.Column(min_width=240):
            choices = list(ask.known)
            earlier = gr.Dropdown(
                choices, value=before, label="Before", elem_id="map-before", visible=len(choices) > 1
            )
            later = gr.Dropdown(
                choices, value=model.value, label="After", elem_id="map-after", visible=len(choices) > 1
            )
            sense = gr.Dropdown(
                [ALL_SENSES, *map(str, range(most))], value=ALL_SENSES, label="Senses", elem_id="map-sense"
            )
    show = gr.Button("Draw the map", variant="primary", elem_id="map-show")
    view = _view("map").render()
    triggers = [show.click, earlier.input, later.input, sense.input]
    _answers(ask, ask.map, [earlier, later, words, sense], view, triggers, "map")
