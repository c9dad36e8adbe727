"""What a crew makes of whatever Ray raises, with a Ray that answers as it is told."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from ray import exceptions as ray_errors
from ray.core.generated.common_pb2 import ActorDiedErrorContext

from asha_ray.errors import FarmError, ModelError, StorageError
from asha_ray.farm.on_ray import crew as ray_crew
from asha_ray.farm.on_ray import runtime as ray_runtime
from asha_ray.farm.on_ray.crew import Hello, RayCrew
from asha_ray.farm.on_ray.runtime import HEAD_PATIENCE_S, HEAD_TIMEOUT_S, Head
from asha_ray.farm.rendering.crew import Failed, Lost, Ready
from asha_ray.values import Segment

JOB: Any = None
SEGMENT = Segment("id", "0" * 64, 1, 60, 1.0, "host:1")


class Actor:
    """An actor whose every method answers with a reference: its own name."""

    def __getattr__(self, name: str) -> Any:
        class Method:
            def remote(self, *_: object) -> str:
                return name

        return Method()


class Task:
    class Chunk:
        index = 3

    chunk = Chunk


class FakeRay:
    """Knows answers by reference; an exception is raised."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"ready": Hello("", "host:1", "node")}
        self.killed: list[Actor] = []

    def remote(self, **_: object) -> Any:
        class Made:
            def remote(self, *_: object) -> Actor:
                return Actor()

        return lambda _: Made()

    def wait(self, references: list[str], **_: object) -> tuple[list[str], list[str]]:
        return [name for name in references if name in self.answers], []

    def get(self, reference: str) -> Any:
        answer = self.answers.pop(reference)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(ray_crew, "ray", fake)
    monkeypatch.setattr(ray_crew, "is_node_alive", lambda node: node == "node")
    return fake


@pytest.fixture
def crew(fake: FakeRay) -> RayCrew:
    return RayCrew(JOB, lambda _: 1, {"CPU": 1})


@pytest.fixture
def busy(crew: RayCrew) -> RayCrew:
    """With one actor, which has a chunk in hand."""
    worker = crew.start()
    assert crew.wait(0) == [Ready(worker, "host:1")]
    task: Any = Task
    crew.give(worker, task)
    return crew


def task_error(cause: Exception) -> ray_errors.RayTaskError:
    return ray_errors.RayTaskError("render", "a traceback", cause)


def died(message: str) -> ray_errors.ActorDiedError:
    return ray_errors.ActorDiedError(
        ActorDiedErrorContext(error_message=message, actor_id=b"a" * 16)
    )


@pytest.mark.parametrize(
    "error",
    [
        died("The actor died because its worker process has died."),
        ray_errors.ActorUnavailableError("rpc", b"a" * 16),
        ray_errors.WorkerCrashedError(),
        ray_errors.OutOfMemoryError("killed"),
        ray_errors.ObjectLostError("f" * 56, None, ""),
        ray_errors.OwnerDiedError("f" * 56, None, ""),
        ray_errors.NodeDiedError("gone"),
        ray_errors.RaySystemError("no one knows"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_ray_raises_for_a_chunk_is_a_lost_worker(
    error: Exception, busy: RayCrew, fake: FakeRay
) -> None:
    """None of these is the chunk's fault, and none may end a render."""
    fake.answers["render"] = error

    (event,) = busy.wait(0)

    assert isinstance(event, Lost)
    assert not event.blameless
    assert len(fake.killed) == 1, "it may come back, and would hold its CPUs"
    assert busy.wait(0) == []


@pytest.mark.parametrize(("refusal", "expected"), [("", 1), ("it is an abacus", 0)])
def test_others_hear_of_who_may_render(
    refusal: str, expected: int, crew: RayCrew, fake: FakeRay
) -> None:
    """Whoever is not ready lacks a place, and others make room."""
    fake.answers = {}
    worker = crew.start()
    assert crew.num_ready == 0, "it has no place yet"
    fake.answers["ready"] = Hello(refusal, "host:1", "node")
    crew.wait(0)
    assert crew.num_ready == expected
    crew.end(worker)
    assert crew.num_ready == 0


def test_what_a_chunk_raises_is_its_own(busy: RayCrew, fake: FakeRay) -> None:
    fake.answers["render"] = task_error(StorageError("writing x: no"))

    (event,) = busy.wait(0)

    assert isinstance(event, Failed)
    assert isinstance(event.error, StorageError)
    assert fake.killed == []


def test_a_count_that_got_lost_is_nothing(busy: RayCrew, fake: FakeRay) -> None:
    fake.answers["take_frames"] = ray_errors.ActorUnavailableError("rpc", b"a" * 16)
    assert busy.wait(0) == []

    fake.answers["render"] = SEGMENT
    assert [type(event).__name__ for event in busy.wait(0)] == ["Done"]


@pytest.mark.parametrize("started", [True, False])
def test_nobody_is_blamed_for_a_node(started: bool, crew: RayCrew, fake: FakeRay) -> None:
    """Nor where its actor had not said yet that it lies there: many may begin on one node."""
    if not started:
        del fake.answers["ready"]
    worker = crew.start()
    assert len(crew.wait(0)) == started
    if started:
        crew.give(worker, Task)  # type: ignore[arg-type]
    call = "render" if started else "ready"
    fake.answers[call] = died("The actor died because its node has died. Node Id: 12")

    (event,) = crew.wait(0)

    assert isinstance(event, Lost)
    assert event.blameless


class TestStart:
    def test_a_bad_model_ends_the_render_as_itself(self, crew: RayCrew, fake: FakeRay) -> None:
        fake.answers["ready"] = task_error(ModelError("reading model x: damaged"))
        crew.start()
        with pytest.raises(ModelError, match="reading model x: damaged"):
            crew.wait(0)

    def test_a_bucket_that_does_not_answer_costs_the_worker(
        self, crew: RayCrew, fake: FakeRay
    ) -> None:
        fake.answers["ready"] = task_error(StorageError("reading s3://x: no network"))
        worker = crew.start()
        assert crew.wait(0) == [Lost(worker, "reading s3://x: no network")]
        assert len(fake.killed) == 1


class Door:
    """A head that can be opened and shut, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.head = Head(f"127.0.0.1:{self._socket.getsockname()[1]}", lambda: self.now)

    def shut(self) -> None:
        self._socket.close()


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    door = Door()
    monkeypatch.setattr(ray_runtime, "_heads", [door.head])
    yield door
    door.shut()


class TestHead:
    def test_is_waited_for_and_then_given_up(self, door: Door) -> None:
        assert door.head.is_there()
        door.now = 1000.0  # nobody knocked meanwhile, so nobody can say that it was away
        door.shut()
        ray_runtime.require_head()
        assert not ray_runtime.is_head_there()
        door.now += HEAD_PATIENCE_S - 1
        ray_runtime.require_head()
        door.now += 1
        with pytest.raises(FarmError, match=r"has not answered for 30 s; what is finished is kept"):
            ray_runtime.require_head()

    def test_is_not_knocked_at_all_the_time_where_nobody_answers(
        self, door: Door, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        knocks: list[int] = []
        monkeypatch.setattr(Head, "_answers", lambda _: bool(knocks.append(1)))
        for _ in range(10):
            assert not door.head.is_there()
        assert len(knocks) == 1
        door.now += HEAD_TIMEOUT_S
        assert not door.head.is_there()
        assert len(knocks) == 2

    def test_comes_back(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Head, "_answers", lambda _: False)
            assert not door.head.is_there()
        door.now += HEAD_PATIENCE_S + 1
        ray_runtime.require_head()
        assert door.head.is_there()

    def test_nothing_is_asked_of_ray_while_it_is_away(
        self, door: Door, busy: RayCrew, fake: FakeRay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each of these would block until Ray ends the process."""

        def block(*_: object) -> None:
            raise AssertionError("it blocks")

        door.shut()
        monkeypatch.setattr(ray_crew, "draining_nodes", block)
        monkeypatch.setattr(ray_crew, "is_node_alive", block)
        monkeypatch.setattr(fake, "kill", block)
        busy._room = block  # type: ignore[assignment]
        assert busy.room(5) is None, "nobody is to be let go for it"
        assert busy.leaving() == {}
        fake.answers["render"] = ray_errors.ActorUnavailableError("rpc", b"a" * 16)
        (event,) = busy.wait(0)
        assert isinstance(event, Lost)
        assert event.blameless
        busy.close()


def test_what_ray_tells_of_lost_workers_is_not_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would stand there before the JSON that a program reads."""
    from ray._private import worker

    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    assert "print_to_stdstream" in worker.listen_error_messages.__code__.co_names

    ray_runtime._keep_off_stdout()

    told = {"lines": ["a worker died"], "pid": "raylet", "is_err": False}
    worker.print_to_stdstream(told, ignore_prefix=False)
    assert capsys.readouterr().out == ""


def test_what_is_gone_or_has_answered_is_not_asked_to_give_up(busy: RayCrew, fake: FakeRay) -> None:
    """A batch is heard one by one: what the scheduler learns first may be over already."""
    actor = next(iter(busy._actors.values()))
    asked: list[int | None] = []
    actor.handle.take_back = type("Call", (), {"remote": staticmethod(asked.append)})
    worker = next(iter(busy._actors))

    busy.take_back(worker)
    assert asked == [Task.chunk.index]
    fake.answers["render"] = "a segment"
    busy.wait(0)
    busy.take_back(worker)
    busy.end(worker)
    busy.end(worker)
    busy.take_back(worker)

    assert asked == [Task.chunk.index], "None would mean whatever it has in hand, for ever"
