"""See backpropagation through time: pictures of recurrent networks, their gates and their gradients.

examples:
  minigrad hello                                              an LSTM learns "hello": tables and pictures
  minigrad see model.onnx --input x.npz --target y.npz        your own trained model, as a gallery
  minigrad see book.txt --out gallery                         RNN, LSTM, GRU and JANET learn your text
  minigrad train book.txt --layers 2 --resume book.run        a character model; the same line goes on
  minigrad compare --task copy --steps 1000                   all networks on one task
  minigrad equations lstm                                     a cell's equations, forward and backward
"""

# Here stands what all commands share: which there are, and how they end. Only the one that is asked for is imported,
# so that help is there at once.

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from .. import __version__
from ..errors import MinigradError
from ..names import shown
from ..parallel import said_elsewhere
from .given import UsageError, add_language

COMMANDS = {
    "hello": 'an LSTM learns to write "hello", with pictures',
    "see": "a gallery of pictures: of a trained model (.onnx), or of four cells that learn a text",
    "train": "train a character model on a text, and go on where it stopped",
    "compare": "the networks of the lecture side by side on one task",
    "equations": "the equations of a cell, forward and backward",
    "check": "try a cell of your own: what works, and what does not",
    "cache": "where compiled programs are kept, and how much room they take",
}
DRAWING = ("hello", "see", "train", "compare")  # what they write is in the language that --language chooses
FINE, WRONG, USAGE, STOPPED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """Help as it is written in a docstring, and one line for a wrong call."""

    def __init__(self, **named):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **named)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: error: {one_line(message)}; {self.prog} --help says more\n")


def main(given: Sequence[str] | None = None) -> int:
    """Run the command of these words, by default the process's own; returns the exit code.

    Raises SystemExit, as argparse does, after help and for words that no command has.
    """
    words = list(sys.argv[1:] if given is None else given)
    parser = Parser(prog="minigrad", description=__doc__, epilog="minigrad COMMAND --help has more examples")
    parser.add_argument("--version", action="version", version=f"minigrad {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    module = None
    for name, summary in COMMANDS.items():
        own = commands.add_parser(name, help=summary)
        if words[:1] == [name]:
            module = import_module(f".{name}", __package__)
            own.description = module.__doc__
            module.add_arguments(own)
            if name in DRAWING:
                add_language(own)
    options = parser.parse_args(words)
    if module is None:
        parser.print_help(sys.stderr)
        return USAGE
    return ended(parser.prog, partial(_in_language, module, options))


def example(module: ModuleType, said: str | None, **arguments) -> int:
    """A command as an example: `said` is its help, `arguments` go to its ``add_arguments``; returns the exit code."""
    parser = Parser(description=said)
    module.add_arguments(parser, **arguments)
    add_language(parser)
    options = parser.parse_args()
    return ended(parser.prog, partial(_in_language, module, options))


def _in_language(module: ModuleType, options: argparse.Namespace) -> None:
    """Run a command; what it draws is in the language that was asked for, else in the environment's."""
    wanted = getattr(options, "language", None)
    if wanted is None:
        module.main(options)
        return
    from viz import language  # help needs no pictures

    with language(wanted):
        module.main(options)


def ended(program: str, command: Callable[[], None]) -> int:
    """Run it, say in one line what went wrong, and return the exit code."""
    try:
        command()
        sys.stdout.flush()
        return FINE
    except MinigradError as error:
        if said_elsewhere(error):  # by another of the processes that train together
            return WRONG
        if isinstance(error, UsageError):
            return _said(f"{program}: error: {one_line(error)}", USAGE)
        return _said(f"error: {one_line(error)}", WRONG)
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # else Python's last flush says it again
        return WRONG
    except KeyboardInterrupt:
        return _said("stopped", STOPPED)


def script() -> NoReturn:
    """The console script: a warning is one line too, and a terminal without a sign shows its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {one_line(message)}\n"
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while a command is imported
        sys.exit(_said("stopped", STOPPED))


def one_line(message: object) -> str:
    return " ".join(shown(str(message)).split())


def _said(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code
