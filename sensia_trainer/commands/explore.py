"""Look at senses on a local web page: those of a word, their weights in a sentence, what follows when one is silenced
or boosted, sentences that find their translations, and a map of words before and after adaptation.

    sensia explore model_cards/backpack-micro-sensia-id
    sensia explore owner/backpack-sensia-sw --words my_words.tsv
    sensia explore my-model --target_language haw --base my-base

The page needs Gradio: pip install 'sensia[explore]'. It is served to this machine alone; Ctrl-C ends it.
`sensia publish MODEL owner/name --space` puts it on the Hub.
"""

from ..utils.arguments import Parser


def parser():
    parser = Parser(prog="sensia explore", description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folder or Hub id of a model with senses")
    parser.add_argument(
        "--base", help="the model before adaptation; by default what the first model names, if at hand"
    )
    parser.add_argument(
        "--target_language", help="code of the other language, where a model does not say it or has several"
    )
    parser.add_argument(
        "--words", help="a bitext of words to compare with, such as a TSV file whose first line names the languages"
    )
    parser.add_argument("--port", type=int, help="port of the page; by default the first free one from 7860")
    parser.add_argument("--no-browser", action="store_true", help="print the address and open no browser")
    return parser


def main(argv):
    args = parser().parse_args(argv)
    try:
        from ..explorer.page import build_page, launch
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ValueError("The page needs Gradio, which is not installed: pip install 'sensia[explore]'.") from None
    from ..explorer.models import load_explored

    options = {"target_language": args.target_language, "words": args.words, "base": args.base}
    models, before = load_explored(args.models, **options)
    page = build_page(models, before)
    options = {"server_name": "127.0.0.1", "server_port": args.port, "inbrowser": not args.no_browser}
    try:
        _, url, _ = launch(page, prevent_thread_lock=True, **options)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"No page can be served at the port {args.port or 'from 7860 on'}: give another by `--port`."
        ) from error
    print(f"The page is at {url} (Ctrl-C ends it).", flush=True)
    page.block_thread()
