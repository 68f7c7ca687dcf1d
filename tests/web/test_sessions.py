"""Files of visitors are there while they are, and no longer; a request ends when it is cancelled or takes too long."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import pytest
from web_site import wait_until

from audioldm.errors import InputError
from audioldm.web.engine import WAITING, Cancelled, Engine, Task
from audioldm.web.sessions import SILENT_S, UNUSED_S, Sessions


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return path


def test_what_a_visitor_has_goes_with_the_visitor(tmp_path: Path):
    root, outside = tmp_path / "root", write(tmp_path / "outside")
    example = write(root / "a" / "example.jpg")
    sessions = Sessions(root)
    sessions.protect()
    shared, own = write(root / "b" / "shared.jpg"), write(root / "c" / "own.jpg")
    result = write(sessions.new_folder("ann") / "x.wav")
    for path in (shared, own, example, outside):
        sessions.keep("ann", path)
    sessions.keep("bob", shared)
    sessions.remove("ann")
    assert not result.exists() and not result.parent.exists() and not own.exists()
    assert shared.exists() and example.exists() and outside.exists()
    sessions.remove("bob")
    sessions.remove("nobody")
    assert not shared.exists() and example.exists()


def test_a_folder_is_nobodys_to_delete(tmp_path: Path):
    sessions = Sessions(tmp_path)
    result = write(sessions.new_folder("ann") / "x.wav")
    for folder in (result.parent, result.parent.parent):
        sessions.keep("bob", folder)
    sessions.remove("bob")
    assert result.exists()


def test_the_same_picture_of_a_visitor_who_has_just_sent_it_stays(tmp_path: Path):
    sessions, again = Sessions(tmp_path), write(tmp_path / "incoming")
    path = write(tmp_path / "a" / "same.jpg")
    sessions.keep("ann", path)
    again.rename(path)  # as Gradio puts the second one in its place
    sessions.remove("ann")
    assert path.exists()
    sessions.keep("bob", path)
    sessions.remove("bob")
    assert not path.exists()


def test_what_nobody_asks_for_any_more_goes_too(tmp_path: Path):
    sessions = Sessions(tmp_path)
    used, unused = write(tmp_path / "a" / "used.jpg"), write(tmp_path / "b" / "unused.jpg")
    sessions.keep("ann", used)
    sessions.sweep()
    assert used.exists() and unused.exists()
    sessions.sweep(time.time() + UNUSED_S + 1)
    assert used.exists() and not unused.exists()
    sessions.sweep(time.time() + SILENT_S + 1)
    assert not used.exists()


@pytest.fixture
def engine(tiny_folder: Path) -> Engine:
    return Engine(str(tiny_folder), None, device="cpu", time_limit=30)


def finished(task: Task) -> bool:
    deadline = time.monotonic() + 20
    while not task.wait() and time.monotonic() < deadline:
        pass
    return task.wait()


def free(engine: Engine) -> bool:
    """Whether the next one has the turn at once."""
    began = time.monotonic()
    with engine.line.turn("the next one"):
        return time.monotonic() - began < 5


def test_leaving_the_block_stops_the_work(engine: Engine):
    steps = []

    def work(task: Task) -> None:
        with task.turn():
            while True:
                steps.append(time.sleep(0.01))
                task.step()

    task = Task(engine, work)
    with task.running():
        while len(steps) < 3:
            time.sleep(0.01)
    assert finished(task) and free(engine)
    with pytest.raises(Cancelled):
        _ = task.result


def test_who_waits_can_go_and_the_next_one_has_the_turn(engine: Engine):
    release, served = threading.Event(), []

    def work(task: Task) -> None:
        with task.turn():
            served.append(task)
            release.wait(20)

    tasks = first, second, third, fourth = [Task(engine, work) for _ in range(4)]
    with contextlib.ExitStack() as stack:
        for place, task in enumerate(tasks):
            stack.enter_context(task.running())
            assert wait_until(lambda task=task: task.text == WAITING) and engine.line.ahead(task) == place
        assert second.shown == "Waiting for the model, 1 request before yours"
        assert fourth.shown == "Waiting for the model, 3 requests before yours"
        second.cancel()
        assert finished(second) and fourth.shown == "Waiting for the model, 2 requests before yours"
        release.set()
        assert finished(first) and finished(third) and finished(fourth) and free(engine)
    assert served == [first, third, fourth]
    with pytest.raises(Cancelled):
        _ = second.result


def test_a_request_may_not_take_for_ever(tiny_folder: Path):
    def work(task: Task) -> None:
        with task.turn():
            while True:
                time.sleep(0.01)
                task.step()

    task = Task(Engine(str(tiny_folder), None, device="cpu", time_limit=0.1), work)
    with task.running():
        assert finished(task)
    with pytest.raises(InputError, match="longer than the 0.1 seconds that this server allows"):
        _ = task.result


def test_waiting_for_a_second_turn_is_not_counted(tiny_folder: Path):
    engine, go_on = Engine(str(tiny_folder), None, device="cpu", time_limit=0.5), threading.Event()

    def work(task: Task) -> str:
        with task.turn():
            task.check()
        go_on.wait(20)
        with task.turn():
            task.check()
        return "done"

    task = Task(engine, work)
    with task.running():
        assert wait_until(lambda: task.text == WAITING) and free(engine)
        with engine.line.turn("another"):
            go_on.set()
            assert wait_until(lambda: engine.line.ahead(task) == 1)
            time.sleep(1)
        assert finished(task) and task.result == "done"


def test_a_fault_of_ours_is_a_sentence_and_the_engine_goes_on(engine: Engine, capsys: pytest.CaptureFixture[str]):
    def work(task: Task) -> None:
        with task.turn():
            _ = 1 / 0

    task = Task(engine, work)
    with task.running():
        assert finished(task)
    with pytest.raises(InputError, match="^ZeroDivisionError: division by zero$"):
        _ = task.result
    assert "Traceback" in capsys.readouterr().err and free(engine)


def test_models_by_name_and_no_path(engine: Engine, tiny_folder: Path):
    assert engine.models()[0] == "tiny" and "starter" in engine.models()
    assert engine.translators(None)[0] == "tiny_cos" and engine.translators(None)[-1] == "memory"
    for name in (str(tiny_folder), "/etc", "audioldm-l-full"):
        with pytest.raises(InputError, match="is not installed on this server"):
            engine.open(name)
    first = engine.load(None)
    _ = first.vae
    engine.load("starter")
    assert "vae" not in first.__dict__ and engine.load("tiny") is first
