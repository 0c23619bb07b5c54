"""
Give a model words of another language, without training it.

    sensia vocabulary backpack-micro-en --bitext pairs.tsv --target_language id --size 4096 --output_dir words-id

The tokenizer is continued on the target side of the pairs, and each new word starts with the embedding, and so with
the senses, of its translations. The folder holds a model to adapt or to use; `vocabulary.json` says what was learned.
`sensia adapt --vocabulary_size` does the same before the first step.
"""

from ..utils.arguments import Parser
from ..utils.files import check_new
from ..vocabulary.settings import METHODS


def parser():
    parser = Parser(prog="sensia vocabulary", description=__doc__)
    parser.add_argument("model", help="causal language model: folder, Hub id, or one that comes with the package")
    parser.add_argument("--bitext", nargs="+", required=True, help="parallel text, of any kind `sensia adapt` takes")
    parser.add_argument("--target_language", required=True, help="code of the language that gets words, e.g. id")
    parser.add_argument("--source_language", default="en", help="code of the model's language")
    parser.add_argument("--size", type=int, required=True, help="number of new words")
    parser.add_argument("--output_dir", required=True, help="folder to write, which must not exist")
    parser.add_argument("--transfer", choices=METHODS, default="translation", help="where new words start")
    parser.add_argument("--dictionary", help="word pairs besides: a file with two columns, the source language first")
    parser.add_argument(
        "--source_change", type=float, default=0.0, help="share of the source sentences that may be cut differently"
    )
    parser.add_argument("--seed", type=int, default=1234, help="of the pairs by which translations are judged")
    return parser


def main(argv):
    args = parser().parse_args(argv)
    check_new(args.output_dir)

    if args.dictionary and args.transfer != "translation":
        raise ValueError(
            f"`dictionary` is of translations, of which `transfer`={args.transfer!r} makes no use: leave one of them "
            "out."
        )

    from datasets import concatenate_datasets

    from ..bitext.pairs import chosen, parse_sources, read_source, shares_of_languages
    from ..evaluation.vectors import keep_vectors
    from ..hub.folders import complete_folder
    from ..hub.licences import keep_licence
    from ..languages import language
    from ..utils.files import check_writable, write_json, written_folder
    from ..utils.models import load_model, load_tokenizer
    from ..utils.recipes import expand_variables
    from ..vocabulary.extension import extend_vocabulary, with_earlier_words, with_votes

    check_writable(args.output_dir)  # before hours of learning
    languages = [language(code).code for code in (args.source_language, args.target_language)]
    read = [(read_source(source, languages)[0], source) for source in parse_sources(args.bitext)]
    parts = [chosen(one, source, args.seed).select_columns("translation") for one, source in read]
    pairs = concatenate_datasets(parts)
    if len(pairs):
        shares_of_languages(pairs, languages)
    model = load_model(args.model)
    tokenizer, report = extend_vocabulary(
        model,
        load_tokenizer(args.model, model),
        pairs,
        args.size,
        source_language=args.source_language,
        target_language=args.target_language,
        method=args.transfer,
        dictionary=args.dictionary and expand_variables(args.dictionary),
        max_source_change=args.source_change,
        seed=args.seed,
        progress=True,
    )
    report = with_earlier_words(with_votes(report, model, tokenizer, "before"), args.model)
    with written_folder(args.output_dir) as written:
        model.save_pretrained(written)
        tokenizer.save_pretrained(written)
        write_json(written / "vocabulary.json", report)
        keep_licence(args.model, written)
        keep_vectors(args.model, written)
        complete_folder(written)
    for word in report["words"]:
        found = ", ".join(f"{text} {share:.2f}" for text, share in word.get("translations", []))
        print(f"{word['word']:<20} {found}")
    sizes = report["target_bytes_per_token"]
    print(
        f"{report['new_tokens']} new words; {sizes['before']:.2f} bytes a token of the target language before, "
        f"{sizes['after']:.2f} after; {report['source_change']:.2%} of the source sentences are cut differently."
    )
    print(f"model folder: {args.output_dir}")
