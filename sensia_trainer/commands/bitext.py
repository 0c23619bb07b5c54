"""Build the parallel data of Appendix D: retrieve, filter, deduplicate, score, sample and account for bitext.

    sensia bitext bitext/et --output_dir en-et --num_proc 8
    sensia bitext bitext/et --output_dir en-et --num_processes 8  # score on eight GPUs
    sensia bitext bitext/id --output_dir en-id-100k --sample 100000  # Table 8
    sensia bitext bitext/sw --list  # what OPUS has of it, offline

A run that was stopped goes on where it was when the same command is given again. The output folder is a `datasets`
folder with its data card; `sensia adapt` takes it as bitext.
"""

import logging

from ..utils.arguments import Parser
from ..utils.errors import UsageError
from ..utils.files import portable
from ..utils.launching import is_launched
from ..utils.secrets import command_line


def parser() -> Parser:
    parser = Parser(prog="sensia bitext", description=__doc__)
    parser.add_argument("recipe", help="YAML recipe; sensia_trainer/recipes/bitext/ has those of the paper")
    parser.add_argument("--output_dir", help="folder of the dataset; by default bitext-<source>-<target>")
    parser.add_argument("--num_proc", type=int, default=1, help="processes that filter")
    parser.add_argument("--sample", type=int, help="draw so many pairs uniformly from the final corpus")
    parser.add_argument("--seed", type=int, help="of every draw, in place of the recipe's")
    parser.add_argument("--opus_url", help="where OPUS' files are, in place of the recipe's")
    parser.add_argument("--allow-missing", action="store_true", help="go on without corpora that cannot be had")
    parser.add_argument("--keep-files", action="store_true", help="keep downloads and intermediate shards")
    parser.add_argument("--list", action="store_true", help="only list what OPUS has of the recipe's corpora, offline")
    parser.add_argument("--push_to_hub", metavar="REPO", help="upload the dataset and its card to this Hub repository")
    parser.add_argument("--public", action="store_true", help="make a repository that is created public")
    return parser


def main(argv) -> None:
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.num_proc < 1:
        raise UsageError(f"`--num_proc` is {arguments.num_proc}, but must be 1 or more.")

    from ..curation.opus import list_corpora
    from ..curation.pipeline import build_bitext
    from ..curation.recipe import load_recipe
    from ..hub.publishing import publish

    recipe = load_recipe(arguments.recipe, sample=arguments.sample, seed=arguments.seed, opus_url=arguments.opus_url)
    if arguments.list:
        print(list_corpora(recipe.sources, recipe.source, recipe.target))
        return
    accelerator = None
    if is_launched():
        from datetime import timedelta

        from accelerate import Accelerator, InitProcessGroupKwargs

        # The other processes wait while the first one filters, which may take days.
        accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=14))])
    output_dir = arguments.output_dir or "bitext-{}-{}".format(*recipe.sides)
    statistics = build_bitext(
        recipe,
        output_dir,
        num_proc=arguments.num_proc,
        allow_missing=arguments.allow_missing,
        keep_files=arguments.keep_files,
        accelerator=accelerator,
        command=portable(command_line(["sensia", "bitext", *argv])),
    )
    if accelerator is None or accelerator.is_main_process:
        if arguments.push_to_hub:
            message = f"Upload {statistics['pairs']:,} pairs"
            options = {"repo_type": "dataset", "private": not arguments.public, "message": message}
            print(publish(output_dir, arguments.push_to_hub, **options)["url"])
        print(f"{statistics['pairs']:,} pairs in {output_dir}; its README.md has the table of filters")
