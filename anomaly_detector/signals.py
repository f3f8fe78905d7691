"""Ctrl-C, SIGTERM and closed standard streams, from the first instruction of a process on.

Heavy imports take half a second or more. A KeyboardInterrupt in them ends in a traceback, or is
swallowed by a library, and SIGTERM kills. So a program takes the signals over first, and imports
then. This module itself imports next to nothing.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class EndRequest:
    """SIGINT and SIGTERM as a request that a service looks at when it suits it.

    Nothing is interrupted half-way; a thread takes note of the signal even while the main thread
    waits in C. Until :meth:`hold` a signal ends the process at once with exit code 0.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requested = threading.Event()
        self._wake: Callable[[], object] = lambda: os._exit(0)
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        # Python's handler in C writes to it at once; that in Python may have to wait for long.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        _handle_signals(lambda *_: None)
        threading.Thread(target=self._wait, args=(reader,), name="signals", daemon=True).start()

    @property
    def is_made(self) -> bool:
        """Whether a signal came."""
        return self._requested.is_set()

    def hold(self, wake: Callable[[], object] = lambda: None) -> None:
        """From now on leave the end to who looks at :attr:`is_made`.

        Args:
            wake: called from the thread when a signal comes; it has returned, or will not be
                called, once another one is given.
        """
        with self._lock:
            self._wake = wake

    def close(self) -> None:
        """Ignore signals from now on: a late one would kill the interpreter while it ends."""
        _handle_signals(signal.SIG_IGN)

    def _wait(self, reader: int) -> None:
        while os.read(reader, 1):
            with self._lock:
                self._requested.set()
                self._wake()


def run_program(module: str) -> int:
    """Import a module and run its ``main``; a signal ends the process quietly all the while.

    Returns:
        The exit code of ``main``. After SIGINT it is 130, after SIGTERM 143, as a shell has it.
    """
    _handle_signals(_end_at_once)
    open_standard_streams()
    try:
        return int(importlib.import_module(module).main())
    finally:
        # All is done, or argparse has exited: a late signal shall not kill the interpreter while
        # it ends. Python gives a signal that has a handler back to the system then.
        _handle_signals(signal.SIG_IGN)


def open_standard_streams() -> None:
    """Let standard streams that the caller has closed lead nowhere, as those of services do.

    Else the next file or socket gets the number, and with it whatever libraries print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The lowest free number is this one.
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            mode = "w" if number else "r"
            stream = os.fdopen(descriptor, mode, errors="backslashreplace", closefd=False)
            setattr(sys, name, stream)


def _handle_signals(handler: Callable[[int, Any], object] | signal.Handlers) -> None:
    for number in _SIGNALS:
        signal.signal(number, handler)


def _end_at_once(number: int, _: Any) -> None:
    # Nothing is open yet, or any more: there is nothing to clean up.
    os._exit(128 + number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Have signals raise in the block, so that what it has open is cleaned up.

    SIGINT raises KeyboardInterrupt, SIGTERM SystemExit. A caller that did not come here through
    :func:`run_program` keeps its handlers.
    """
    if signal.getsignal(signal.SIGTERM) is not _end_at_once:
        yield
        return
    raised: list[BaseException] = []

    def interrupt(number: int, _: Any) -> None:
        is_sigint = number == signal.SIGINT
        raised.append(KeyboardInterrupt() if is_sigint else SystemExit(128 + number))
        raise raised[-1]

    _handle_signals(interrupt)
    try:
        yield
    except (ImportError, SystemError) as error:
        # An extension that is just being imported makes one of these of it.
        if raised:
            raise raised[-1] from error
        raise
    finally:
        _handle_signals(_end_at_once)
