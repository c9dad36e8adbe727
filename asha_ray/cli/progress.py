"""Progress for people, on stderr: a line that redraws itself, or a few quiet lines in a log."""

import re
import sys
import time
from typing import Any, TextIO

REDRAW_S = 0.2
LOG_EVERY_S = 20.0
BAR_WIDTH = 24

UNSHOWABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What steers a terminal, turns text around, or is no character at all; line feeds are ours."""


def shown(text: str) -> str:
    """A text whose names a stranger may have chosen, as it may be written to a terminal.

    >>> shown("red\\x1b[31m.wav")
    'red\\\\x1b[31m.wav'
    """
    return UNSHOWABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class ConsoleProgress:
    """A `Progress` that draws.

    Args:
        stream: where to.
        quiet: say nothing but notes.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty() and not quiet
        self._quiet = quiet
        self._name, self._unit, self._detail = "", "", ""
        self._total: int | None = None
        self._done = 0
        self._started = self._drawn = 0.0

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        """Begin a stage; the one before has ended."""
        self.finish()
        self._name, self._total, self._unit, self._detail = name, total, unit, ""
        self._done = 0
        self._started = self._drawn = time.monotonic()
        if self._quiet:
            return
        if self._live:
            self._draw()
        else:
            amount = f" {total} {unit}" if total else ""
            self._line(f"{name}{amount}")

    def advance(self, count: int = 1, detail: str = "") -> None:
        """`count` more units are done."""
        self._done += count
        self._detail = detail or self._detail
        now = time.monotonic()
        if self._quiet or now - self._drawn < (REDRAW_S if self._live else LOG_EVERY_S):
            return
        self._drawn = now
        if self._live:
            self._draw()
        else:
            self._line(self._text())

    def note(self, message: str) -> None:
        """Say something once."""
        if self._live:
            self._stream.write("\r\x1b[K")
        self._line(message)

    def tell(self, **facts: Any) -> None:
        """Facts are for programs."""

    def finish(self) -> None:
        """End the current stage."""
        if not self._name or self._quiet:
            return
        if self._live:
            self._stream.write("\r\x1b[K")
            self._line(self._text())
        elif self._total:
            self._line(self._text())
        self._name = ""

    def _text(self) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-6)
        parts = [self._name]
        if self._total:
            parts.append(f"{self._done}/{self._total} {self._unit}")
            if self._done:
                parts.append(f"{self._done / elapsed:.1f} {self._unit}/s")
            if self._detail:
                parts.append(self._detail)
            if 0 < self._done < self._total:
                left = (self._total - self._done) * elapsed / self._done
                parts.append(f"{clock(left)} left")
        elif self._done:
            parts.append(f"{self._done} {self._unit}")
        if elapsed >= 1:
            parts.append(clock(elapsed))
        return "  ".join(parts)

    def _draw(self) -> None:
        bar = ""
        if self._total:
            filled = min(BAR_WIDTH, BAR_WIDTH * self._done // self._total)
            bar = f"[{'=' * filled}{' ' * (BAR_WIDTH - filled)}] "
        self._stream.write(f"\r\x1b[K{bar}{shown(self._text())}")
        self._stream.flush()

    def _line(self, text: str) -> None:
        self._stream.write(f"{shown(text)}\n")
        self._stream.flush()


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, or hours too: `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
