"""Put a model, an adapter or a dataset on the Hub: checked, in one commit, private unless `--public` is given.

The repository then holds what the folder holds: files that are gone from the folder are deleted there as well.

    sensia publish model_cards/backpack-micro-sensia-id owner/backpack-micro-sensia-id --dry-run
    sensia publish model_cards/backpack-micro-sensia-id owner/backpack-micro-sensia-id \\
        --tag v1.0 --collection "Sense adaptation"
    sensia publish outputs/bitext-id owner/bitext-id --repo-type dataset
    sensia publish model_cards/backpack-micro-sensia-id owner/senses-id --space

The token comes from `hf auth login` or HF_TOKEN. After a broken upload, run the same command again.
"""

from ..utils.arguments import Parser


def parser():
    parser = Parser(prog="sensia publish", description=__doc__)
    parser.add_argument("folder", help="what to upload: a model folder, an adapter folder or a dataset folder")
    parser.add_argument("repo_id", help="where to: owner/name; created if missing")
    parser.add_argument("--repo-type", choices=("model", "dataset"), default="model")
    parser.add_argument(
        "--space", action="store_true", help="publish the page of `sensia explore` for a model folder, as a Space"
    )
    parser.add_argument("--public", action="store_true", help="make a repository that is created public")
    parser.add_argument("--license", help="licence of the weights, such as cc-by-4.0, in place of what the card says")
    parser.add_argument(
        "--base-model", help="owner/name of the base model, where the card knows a folder's name alone"
    )
    parser.add_argument("--title", help="first line of the card, in place of the one made of size and languages")
    parser.add_argument("--tag", help="revision tag to put on the commit, such as v1.0")
    parser.add_argument("--collection", help="title of a collection of the same owner to list the repository in")
    parser.add_argument("--message", help="commit message")
    parser.add_argument("--dry-run", action="store_true", help="check, print the files and their sizes, send nothing")
    return parser


def main(argv):
    options = vars(parser().parse_args(argv))
    if options.pop("space"):
        options["repo_type"] = "space"

    from ..hub.publishing import publish

    report = publish(options.pop("folder"), options.pop("repo_id"), private=not options.pop("public"), **options)
    for path, size in report["files"]:
        print(f"{size:>14,}  {path}")
    print(f"{report['bytes']:>14,}  bytes in {len(report['files'])} files")
    for path in report["removed"] or []:
        print(f"{'deleted':>14}  {path}")
    if report["dry_run"]:
        unknown = "" if report["removed"] is not None else " (the Hub was not asked what it would have to delete)"
        print(f"Dry run: {report['repo_id']} would hold these files{unknown}; nothing was sent.")
    elif report["changed"]:
        print(f"Published as commit {report['commit'][:8]}: {report['url']}")
    else:
        print(f"Unchanged since commit {report['commit'][:8]}: {report['url']}")
