"""One worker and its waiting line."""

from __future__ import annotations

import threading
import time

import pytest

from panini.errors import ServiceError
from panini.web.limits import BusyError, TimeLimitError
from panini.web.line import Line

WAIT = 300.0


def start(line: Line, job: object) -> tuple[threading.Thread, list[object]]:
    """Run a job from another thread; its result or error comes into the list."""
    results: list[object] = []

    def work() -> None:
        try:
            results.append(line.run(job))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, results


def until(condition: object) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_results_and_errors_come_back() -> None:
    line = Line(queue=0, timeout=WAIT)
    assert line.run(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        line.run(lambda: 1 // 0)
    with pytest.raises(TimeoutError, match="its own"):
        line.run(lambda: (_ for _ in ()).throw(TimeoutError("its own")))
    assert line.run(lambda: 4) == 4
    line.close()


def test_one_at_a_time_in_order() -> None:
    line, gate, began = Line(queue=5, timeout=WAIT), threading.Event(), threading.Event()
    order: list[int] = []
    at_work: list[int] = []

    def job(number: int) -> None:
        at_work.append(number)
        assert len(at_work) == 1
        began.set()
        assert gate.wait(WAIT)
        order.append(number)
        at_work.remove(number)

    threads = []
    for number in range(4):
        threads.append(start(line, lambda number=number: job(number))[0])
        until(lambda number=number: line.waiting == number)
    gate.set()
    for thread in threads:
        thread.join(WAIT)
    assert order == [0, 1, 2, 3]
    line.close()


def test_a_full_line_refuses_at_once() -> None:
    line, gate, began = Line(queue=1, timeout=WAIT), threading.Event(), threading.Event()
    first, _ = start(line, lambda: (began.set(), gate.wait(WAIT)))
    assert began.wait(WAIT)
    second, results = start(line, lambda: "second")
    until(lambda: line.waiting == 1)
    with pytest.raises(BusyError, match="busy: 1 requests are waiting; try again in") as caught:
        line.run(lambda: "third")
    assert caught.value.retry_after >= 1
    gate.set()
    first.join(WAIT)
    second.join(WAIT)
    assert results == ["second"]
    assert line.run(lambda: "again") == "again"
    line.close()


def test_out_of_time_before_and_during_the_turn() -> None:
    line, gate = Line(queue=3, timeout=0.05), threading.Event()
    begun: list[str] = []

    def slow() -> None:
        begun.append("slow")
        assert gate.wait(WAIT)

    with pytest.raises(TimeLimitError, match=r"not done within 0\.05 s"):
        line.run(slow)
    # It still has the worker, so that this one never begins.
    with pytest.raises(TimeLimitError):
        line.run(lambda: begun.append("late"))
    gate.set()
    line.timeout = WAIT
    assert line.run(lambda: "next") == "next"
    assert begun == ["slow"]
    line.close()


def test_a_closed_line_says_so() -> None:
    line = Line(queue=1, timeout=WAIT)
    line.close()
    with pytest.raises(ServiceError, match="the server is stopping"):
        line.run(lambda: 1)
