"""The command `fullrank`: a table of verbs, each a module of `commands/` that is imported when it is asked for.

`fullrank --help` reads this table alone, so it is there at once; `fullrank VERB --help` loads what the verb needs.
Errors of ours are one line on standard error and exit code 2; `--debug`, anywhere, shows where they came from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType

from fullrank import __version__
from fullrank.schema_checks import did_you_mean


@dataclass(frozen=True)
class Verb:
    """`main(args, prog)` of the module `fullrank.commands.MODULE` is the verb."""

    help: str
    module: str


VERBS: dict[str, Verb] = {
    "demo": Verb("real data, trained and compared in minutes, with a page to look at", "demo"),
    "schema infer": Verb(
        "guess a first schema from a Parquet or CSV log, with a reason for every guess", "schema_infer"
    ),
    "prepare": Verb("turn logs into prepared data, or append a new day or late labels to it", "prepare"),
    "train": Verb("train a ranker on prepared data; run again to resume", "train"),
    "evaluate": Verb("the metrics of a run on a split of prepared data, also by slice", "evaluate"),
    "calibrate": Verb("fit a run's probabilities on the valid rows, so that they mean what they say", "calibrate"),
    "report": Verb("one page on a run: its data, how good it is, where it is weak", "report"),
    "diagnose": Verb("one page on how a run's tables and layers use their space", "diagnose"),
    "compare": Verb("several recipes with several seeds on the same rows; which differences are noise", "compare"),
    "tune": Verb("search a ranker's settings at random, giving up early what falls behind", "tune"),
    "predict": Verb("probabilities of rows in the log's own columns by a run", "predict"),
    "recommend": Verb("the best items for a user by a run", "recommend"),
    "explain": Verb("how a run's answer changes when something is hidden from it", "explain"),
    "bench": Verb("time this machine beside what others use; needs a checkout", "bench"),
    "doctor": Verb("versions, the machine, and whether data and runs are whole", "doctor"),
    "forget": Verb("remove a user's rows, history and key from prepared data", "forget"),
    "data get": Verb("obtain a public data set", "data_get"),
    "data list": Verb("the public data sets that `data get` knows", "data_list"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (that of the process if None) and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    words = [word for word in given if word != "--debug"]
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (`head`, a pager) has seen enough. Python would complain when it flushes again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        if debug:
            raise
        return 130
    except Exception as error:
        if debug or not _is_ours(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"fullrank {__version__}")
        return 0
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in VERBS and len(words) >= length:
            return import_module(f"fullrank.commands.{VERBS[name].module}").main(words[length:], f"fullrank {name}")
    group = [name for name in VERBS if name.startswith(f"{words[0]} ")]
    if (group and len(words) == 1) or (group and words[1].startswith("-")):
        print(_table(group))
        return 0
    asked = " ".join(words[:2]) if group else words[0]
    near = did_you_mean(asked, list(VERBS))
    known = ", ".join(group or VERBS)
    print(f"error: expected one of {known}; got {asked!r}.{near} Try: fullrank --help", file=sys.stderr)
    return 2


def _overview() -> str:
    return "\n".join(
        [
            "usage: fullrank VERB [options]",
            "",
            "An open advertising recommender: from a platform's logs to ranked ads.",
            "",
            _table(list(VERBS)),
            "",
            "fullrank VERB --help shows the options of a verb; --debug, with any, shows where an error came from.",
        ]
    )


def _table(names: list[str]) -> str:
    width = max(map(len, names))
    return "\n".join(f"  {name:<{width}}  {VERBS[name].help}" for name in names)


def _is_ours(error: Exception) -> bool:
    """Raised on purpose, for a person to read: an error class of the package, an OSError (a file that is not there, a
    full disk), or a ValueError or RuntimeError that the package itself raised."""
    if type(error).__module__.startswith("fullrank.") or isinstance(error, OSError):
        return True
    return isinstance(error, ValueError | RuntimeError) and _raised_in_package(error.__traceback__)


def _raised_in_package(traceback: TracebackType | None) -> bool:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and str(traceback.tb_frame.f_globals.get("__name__")).startswith("fullrank.")
