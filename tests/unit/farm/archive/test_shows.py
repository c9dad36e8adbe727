"""Chunks of many shows in one queue: each is rendered once, and goes to whoever wants it."""

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asha_ray.farm.archive.shows import Show, Shows
from asha_ray.values import Chunk, Segment


class Line:
    """A path on which each frame's latent is its number."""

    num_frames, latent_dim = 1000, 1

    def __init__(self, offset: float) -> None:
        self._offset = offset

    def latents(self, start: int, stop: int) -> Any:
        return np.arange(start, stop, dtype=np.float32)[:, None] + self._offset


def show(name: str, *chunk_ids: str, there: tuple[str, ...] = (), offset: float = 0.0) -> Show:
    """A show of chunks of ten frames, some of which are there."""
    chunks = tuple(Chunk(i, 10 * i, 10 * i + 10, key) for i, key in enumerate(chunk_ids))
    manifest = SimpleNamespace(
        chunks=chunks, num_frames=10 * len(chunks), render_id=name, fps=Fraction(10)
    )
    made: Any = SimpleNamespace
    return Show(
        todo=made(show_id=name, source=made(key=f"{name}.mp3")),
        began=0.0,
        heard=made(),
        sounding=made(),
        spec=made(),
        plan=made(manifest=manifest, path=Line(offset)),
        job=made(numerics=made(batch_size=1), of=name),
        name=name,
        claim=name,
        segments={key: segment(key) for key in there},
    )


def segment(chunk_id: str, seconds: float = 2.0) -> Segment:
    return Segment(chunk_id, "0" * 64, 1, 10, seconds, "w")


def drawn(shows: Shows) -> list[str]:
    """All that waits."""
    found = []
    while (task := shows.next_task()) is not None:
        found.append(task.chunk.chunk_id)
    return found


def test_shows_follow_each_other_in_one_queue() -> None:
    shows = Shows()
    assert shows.add(show("a", "a0", "a1"))
    assert shows.add(show("b", "b0"))
    assert shows.num_waiting == 3
    assert shows.num_frames == 30
    assert shows.keys() == ["a.mp3", "b.mp3"]
    assert drawn(shows) == ["a0", "a1", "b0"]


def test_no_two_chunks_have_one_number() -> None:
    """A worker is asked to give up a chunk by its number: it would give up another show's."""
    shows = Shows()
    for name in "abc":
        shows.add(show(name, f"{name}0", f"{name}1"))
    numbers = [task.chunk.index for task in iter(shows.next_task, None)]
    assert len(set(numbers)) == 6


def test_a_task_carries_its_own_shows_latents_and_job() -> None:
    shows = Shows()
    shows.add(show("a", "a0"))
    shows.add(show("b", "b0", "b1", offset=500))
    tasks = list(iter(shows.next_task, None))
    assert [task.job.of for task in tasks] == ["a", "b", "b"]  # type: ignore[union-attr]
    assert tasks[2].latents[:, 0].tolist() == [510.0 + i for i in range(10)]


def test_a_show_is_complete_with_its_last_segment() -> None:
    shows, one = Shows(), show("a", "a0", "a1", there=("a0",))
    assert shows.add(one)
    assert drawn(shows) == ["a1"]
    assert shows.hear_segment(segment("a1")) == [one]
    assert [found.chunk_id for found in one.ordered_segments()] == ["a0", "a1"]
    assert one.render_s == 2.0


def test_a_show_that_is_all_there_waits_for_nothing() -> None:
    shows = Shows()
    assert not shows.add(show("a", "a0", there=("a0",)))
    assert shows.next_task() is None
    assert len(shows) == 1


def test_what_two_shows_have_in_common_is_rendered_once() -> None:
    """Silence looks the same everywhere."""
    shows, one, two = Shows(), show("a", "same", "a1"), show("b", "same", "same")
    shows.add(one)
    shows.add(two)
    assert drawn(shows) == ["same", "a1"]
    assert shows.hear_segment(segment("same")) == [two]
    assert shows.hear_segment(segment("a1")) == [one]
    assert (one.render_s, two.render_s) == (4.0, 0.0)


@pytest.mark.parametrize("when", ["before it is drawn", "after"])
def test_a_dropped_shows_chunks_are_not_rendered_but_for_others(when: str) -> None:
    shows, one, two = Shows(), show("a", "same", "a1"), show("b", "b0", "same", offset=7)
    shows.add(one)
    shows.add(two)
    if when == "after":
        first = shows.next_task()
        assert first is not None
        assert first.chunk.start == 0
    shows.drop(one)
    found = list(iter(shows.next_task, None))
    if when == "after":
        assert [task.chunk.chunk_id for task in found] == ["b0"]
    else:
        assert [(task.chunk.chunk_id, task.chunk.start) for task in found] == [
            ("same", 10),
            ("b0", 0),
        ]
        assert found[0].latents[0, 0] == 17.0, "the other show's own place in its own path"
    shows.hear_segment(segment("b0"))
    assert shows.hear_segment(segment("same")) == [two]
    assert shows.hear_segment(segment("a1")) == []


def test_damaged_segments_are_rendered_again() -> None:
    shows, one = Shows(), show("a", "a0", "a1")
    shows.add(one)
    drawn(shows)
    shows.hear_segment(segment("a0"))
    assert shows.hear_segment(segment("a1")) == [one]
    shows.forget_segments(one, ["a0"])
    assert one.missing == {"a0"}
    assert drawn(shows) == ["a0"]
    assert shows.hear_segment(segment("a0", 3.0)) == [one]
    assert one.render_s == 7.0


def test_a_chunk_that_nobody_can_render_is_waited_for_no_more() -> None:
    shows, one, two = Shows(), show("a", "same"), show("b", "same")
    shows.add(one)
    shows.add(two)
    assert shows.wanting("same") == [one, two]
    assert shows.next_task() is None


def test_a_show_that_is_tried_again_does_not_have_its_chunks_twice() -> None:
    """What a worker has in hand for the first try will do for the second."""
    shows, first = Shows(), show("a", "a0", "a1", "a2")
    shows.add(first)
    task = shows.next_task()
    assert task is not None
    shows.drop(first)
    assert shows.num_waiting == 0
    again = show("a", "a0", "a1", "a2")
    shows.add(again)
    assert drawn(shows) == ["a1", "a2"]
    for chunk_id in ("a1", "a0"):
        assert shows.hear_segment(segment(chunk_id)) == []
    assert shows.hear_segment(segment("a2")) == [again]
