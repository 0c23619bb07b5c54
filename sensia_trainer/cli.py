"""The command `sensia`: a subcommand for each script, imported only when it is called."""

import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

from . import __version__
from .utils.arguments import Parser
from .utils.early import ends_early, without_torch
from .utils.errors import UsageError, did_you_mean, explain


# Name of a module of `commands`, with a `main(argv)`, and what it does. This is all that a new command needs.
COMMANDS = {
    "adapt": "adapt a Backpack to another language on parallel text",
    "vocabulary": "give a model words of another language that start from their translations",
    "induce": "give a pretrained language model senses, beginning with the very predictions it makes",
    "pretrain": "pretrain a Backpack, or a model to compare with, from scratch",
    "bitext": "build clean parallel text from OPUS or from files",
    "evaluate": "measure retrieval, perplexity and multiple choice; put results side by side",
    "analyze": "analyse the senses of an adapted model",
    "explore": "look at senses on a local web page",
    "reproduce": "run a matrix of experiments and render its tables",
    "release": "make a Hub-ready folder of a finished run",
    "delta": "write what distinguishes a model from its base, or put both together",
    "publish": "put a model, an adapter or a dataset on the Hub",
    "convert": "convert a published Backpack checkpoint",
}
TRAINING = ("adapt", "induce", "pretrain")  # one process for each device, as `accelerate launch` starts them
LAUNCHED = (*TRAINING, "bitext")  # these take the arguments of `accelerate launch` too
RESUMABLE = (*LAUNCHED, "evaluate", "reproduce")
# Seconds before a bar appears, of ours or of a library: what is quicker ("Loading weights", "Map") need not be told.
BAR_DELAY = "3"


def parser():
    lines = "\n".join(f"  {name:<11}{text}" for name, text in COMMANDS.items())
    overview = Parser(
        prog="sensia",
        usage="sensia [--debug] COMMAND [arguments]",
        description=f"Adapt a language model to another language, and keep its own.\n\ncommands:\n{lines}",
        epilog="`sensia COMMAND --help` shows what a command takes.",
    )
    overview.add_argument("--version", action="version", version=f"sensia {__version__}")
    overview.add_argument("--debug", action="store_true", help="show tracebacks, as SENSIA_DEBUG=1 does")
    overview.add_argument("command", nargs="?", help="one of the above")
    return overview


def main(argv=None) -> int:
    """Run one command. Returns the exit code: 0, 1 for an error, 2 for a command line, 130 after Ctrl-C."""
    os.environ.setdefault("TQDM_DELAY", BAR_DELAY)  # read when tqdm is imported, also by the processes started here
    if argv is None:
        sys.argv[0] = "sensia"  # what a run notes as its command, however it was started
        argv = sys.argv[1:]
    first = next((n for n, argument in enumerate(argv) if not argument.startswith("-")), len(argv))
    name = argv[first] if first < len(argv) else None
    try:
        options = parser().parse_args(argv[:first])
        if name is None:
            parser().print_help()
            return 0
        if name not in COMMANDS:
            raise UsageError(f"There is no command {name!r}.{did_you_mean(name, COMMANDS)} `sensia --help` lists all.")
        rest, debug = list(argv[first + 1 :]), options.debug
        if rest[-1:] == ["--debug"]:  # in the middle it is a field of `TrainingArguments`
            rest, debug = rest[:-1], True
        if debug:
            os.environ["SENSIA_DEBUG"] = "1"  # also for the processes that are started
        return run(name, rest)
    except UsageError as error:
        return complain("sensia", error)


def run(name, argv) -> int:
    """Run the command `name`. What the user can mend is told in one line, what is a fault of ours by its traceback."""
    try:
        early = name in TRAINING and ends_early(argv, recipe=name != "induce")
        if early:
            without_torch()
        module = import_module(f".commands.{name}", __package__)
        if name in LAUNCHED and not early:
            from .utils.launching import launch, split_arguments, wants_launcher

            launcher, argv = split_arguments(argv, module.parser())
            if wants_launcher(launcher, training=name in TRAINING, argv=argv):
                return launch(launcher, name, argv)
        if name in TRAINING and not early:
            from .utils.memory import keep_freed_memory

            keep_freed_memory()
        return module.main(argv) or 0
    except KeyboardInterrupt:
        if os.environ.get("SENSIA_DEBUG"):
            raise
        again = " The same command goes on from what was saved." if name in RESUMABLE else ""
        print(f"\nsensia {name}: interrupted.{again}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who read the output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return complain(f"sensia {name}", error)


def complain(who, error) -> int:
    """Print the one line that explains `error` and return the exit code; raise what has no explanation."""
    line = explain(error)
    if line is None or os.environ.get("SENSIA_DEBUG"):
        raise error
    usage = isinstance(error, UsageError)
    if usage and os.environ.get("LOCAL_RANK", "0") != "0":
        return 2  # the first process says it for all
    where = traceback.extract_tb(error.__traceback__)[-1].filename
    elsewhere = "" if Path(where).is_relative_to(Path(__file__).parent) else " (SENSIA_DEBUG=1 shows where)"
    print(f"{who}: {line}{elsewhere}", file=sys.stderr)
    return 2 if usage else 1
