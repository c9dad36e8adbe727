"""Progress: a line that redraws itself on a terminal, a few quiet lines in a log."""

import io
import json
from types import SimpleNamespace

import pytest

from asha_ray.cli import main
from asha_ray.cli import progress as module
from asha_ray.cli.answer import answer
from asha_ray.cli.progress import ConsoleProgress
from asha_ray.errors import SpecError


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def _shown(text):
    """What a terminal shows in the end: each line from its last redraw on."""
    return [line.rpartition("\r\x1b[K")[2] for line in text.split("\n")]


def test_a_terminal_shows_bar_rate_and_time_left(clock):
    stream = Terminal()
    progress = ConsoleProgress(stream)
    progress.stage("rendering", 100, "frames")
    clock.now += 10
    progress.advance(25, "chunk 3")
    assert _shown(stream.getvalue()) == [
        f"[{'=' * 6}{' ' * 18}] rendering  25/100 frames  2.5 frames/s  chunk 3  0:30 left  0:10"
    ]


def test_redraws_are_throttled(clock):
    """Thousands of frames a second would spend the time on drawing."""
    stream = Terminal()
    progress = ConsoleProgress(stream)
    progress.stage("rendering", 1000, "frames")
    for _ in range(1000):
        clock.now += 0.001
        progress.advance()
    assert stream.getvalue().count("\r") < 10
    progress.finish()
    assert "1000/1000 frames" in _shown(stream.getvalue())[0]


def test_a_log_gets_few_plain_lines(clock):
    """No escape codes, no carriage returns, a line now and then: it may be a cluster's log."""
    stream = io.StringIO()
    progress = ConsoleProgress(stream)
    progress.stage("rendering", 600, "frames")
    for _ in range(600):
        clock.now += 0.1
        progress.advance()
    progress.stage("joining")
    progress.finish()
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    lines = text.splitlines()
    assert lines[0] == "rendering 600 frames"
    assert lines[-2].startswith("rendering  600/600 frames  10.0 frames/s")
    assert lines[-1] == "joining"
    assert len(lines) <= 6


@pytest.mark.parametrize("make", [io.StringIO, Terminal])
def test_a_note_has_a_line_of_its_own(clock, make):
    stream = make()
    progress = ConsoleProgress(stream)
    progress.stage("rendering", 10, "frames")
    clock.now += 1
    progress.advance(5)
    progress.note("a worker was lost")
    progress.finish()
    assert "a worker was lost" in _shown(stream.getvalue())


@pytest.mark.parametrize("make", [io.StringIO, Terminal])
def test_quiet_says_nothing_but_notes(clock, make):
    stream = make()
    progress = ConsoleProgress(stream, quiet=True)
    progress.stage("rendering", 10, "frames")
    clock.now += 100
    progress.advance(5)
    progress.note("look")
    progress.stage("joining")
    progress.finish()
    assert stream.getvalue() == "look\n"


@pytest.mark.parametrize("make", [io.StringIO, Terminal])
def test_a_new_stage_ends_the_one_before_and_finishing_twice_is_once(clock, make):
    stream = make()
    progress = ConsoleProgress(stream)
    progress.stage("decoding", 2, "blocks")
    progress.advance(2)
    progress.stage("rendering", 3, "frames")
    progress.advance(3)
    progress.finish()
    before = stream.getvalue()
    progress.finish()
    assert stream.getvalue() == before
    shown = "\n".join(_shown(before))
    assert "2/2 blocks" in shown
    assert "3/3 frames" in shown
    assert "2/3" not in shown


@pytest.mark.parametrize("make", [io.StringIO, Terminal])
@pytest.mark.parametrize("total", [None, 0, 5])
def test_more_than_was_announced_and_no_total_are_fine(clock, make, total):
    progress = ConsoleProgress(make())
    progress.advance(3)
    progress.stage("rendering", total, "frames")
    for _ in range(4):
        clock.now += 30
        progress.advance(3)
    progress.finish()


def test_it_draws_on_stderr_and_leaves_stdout_alone(capsys):
    """stdout is for the answer: `--json` puts one document there and nothing else."""
    progress = ConsoleProgress()
    progress.stage("rendering", 1, "frame")
    progress.advance()
    progress.note("hello")
    progress.finish()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello" in captured.err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599.7, "1:00:00"), (36_000, "10:00:00")],
)
def test_clocks(seconds, text):
    assert module.clock(seconds) == text


HOSTILE = "song\x1b]0;owned\x07\x1b[2J\r\x9b1m\u202e3pm.wav"
HARMLESS = r"song\x1b]0;owned\x07\x1b[2J\r\x9b1m\u202e3pm.wav"


@pytest.mark.parametrize("make", [io.StringIO, Terminal])
def test_names_cannot_steer_the_terminal(clock, make):
    """A file's name may hold what retitles a window, clears it or hides what was said."""
    stream = make()
    progress = ConsoleProgress(stream)
    progress.stage(HOSTILE, 2, "images")
    clock.now += 30
    progress.advance(1, HOSTILE)
    progress.note(f"skipped {HOSTILE}")
    progress.finish()
    text = stream.getvalue().replace("\r\x1b[K", "")
    assert not set(text) & set("\x1b\x07\r\x9b\u202e")
    assert f"skipped {HARMLESS}\n" in text
    assert text.count(HARMLESS) >= 4


def test_errors_and_answers_cannot_steer_the_terminal_either(capsys):
    assert main._explain(SpecError(f"reading {HOSTILE}: no")) == 2
    answer({}, f"{HOSTILE} \udcff 日本.mp4", as_json=False)
    captured = capsys.readouterr()
    assert captured.err == f"asha-ray: reading {HARMLESS}: no\n"
    assert captured.out == f"{HARMLESS} \\udcff 日本.mp4\n"


def test_json_holds_the_very_name_and_no_controls(capsys):
    answer({"output": HOSTILE + "\x7f\udcff 日本"}, "", as_json=True)
    text = capsys.readouterr().out
    assert text.rstrip("\n").isprintable()
    assert "日本" in text
    assert json.loads(text) == {"output": HOSTILE + "\x7f\udcff 日本"}
