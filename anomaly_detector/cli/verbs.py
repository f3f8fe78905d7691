"""Command lines made of verbs, one module each, imported only when its verb is used."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from anomaly_detector import __version__
from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import describe_os_error
from anomaly_detector.signals import interruptible


def run_verbs(
    program: str, description: str, verbs: Mapping[str, tuple[str, str]], argv: Sequence[str] | None
) -> int:
    """Parse a command line and run its verb.

    Args:
        program: what the user types, for the usage text; for a console script its own name.
        description: one sentence.
        verbs: name to module and help text. A module has ``add_arguments(parser)`` and
            ``run(arguments) -> int``.
        argv: the arguments; None for the process' own.

    Returns:
        The exit code: 0 done, 1 an error that is reported in one line, 2 a wrong command line,
        130 Ctrl-C, 143 SIGTERM (from a process' entry point).
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As stderr does it: a name that the terminal cannot show is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    script = Path(sys.argv[0]).name
    if argv is None and script not in ("__main__.py", "-c"):
        program = script
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    for name, (module_name, help_text) in verbs.items():
        subparser = subparsers.add_parser(
            name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}."
        )
        # The other verbs' modules stay unread: some import much.
        if name == chosen:
            importlib.import_module(module_name).add_arguments(subparser)
    parsed = parser.parse_args(arguments)
    verb = importlib.import_module(verbs[parsed.verb][0])
    del parsed.verb
    try:
        with interruptible():
            code = int(verb.run(parsed))
            sys.stdout.flush()
        return code
    except AnomalyDetectorError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output (head, less) has gone.
        return 1
    except OSError as error:
        if error.errno is None:
            raise
        if error.filename is None and not _flushed():
            error.filename = "standard output"
        print(f"error: {describe_os_error(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        if not _flushed():
            # Keeps the interpreter from trying again, as its last act, and from complaining.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _flushed() -> bool:
    """Write what was printed; return whether that was possible."""
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True
