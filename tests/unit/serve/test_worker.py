"""The queue and the thread behind it: nothing is lost in silence."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, cast

import pytest

from treetune.core.errors import DataError
from treetune.core.records import Example, Row
from treetune.serve.refused import Refused
from treetune.serve.runs import Served
from treetune.serve.worker import Ticket, Worker

RUN, OTHER = cast(Served, object()), cast(Served, object())


def ticket(source: str, served: Served = RUN) -> Ticket:
    return Ticket(served, Example(0, "0", "test", (), "", (), {}, source, "en"), Row({}, "request", 1, 0, "test"))


@pytest.fixture
def make() -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def worker(answer: Callable[[Sequence[Ticket]], list[dict[str, Any]]], queue: int = 100, batch: int = 8) -> Worker:
        made.append(Worker(answer, queue, batch))
        return made[-1]

    yield worker
    for each in made:
        each.close()


def echo(tickets: Sequence[Ticket]) -> list[dict[str, Any]]:
    return [{"of": each.example.source} for each in tickets]


class Held:
    """Answers only once let go; remembers its batches."""

    def __init__(self) -> None:
        self.go, self.entered, self.batches = threading.Event(), threading.Event(), list[list[str]]()

    def __call__(self, tickets: Sequence[Ticket]) -> list[dict[str, Any]]:
        self.entered.set()
        assert self.go.wait(10)
        self.batches.append([each.example.source for each in tickets])
        return echo(tickets)


def test_everyone_gets_their_own_answer(make: Callable[..., Worker]) -> None:
    """Row 45 for the queue: threads that ask at once."""
    worker = make(echo)
    wrong: list[str] = []

    def ask(number: int) -> None:
        for turn in range(20):
            mine = ticket(f"{number}-{turn}")
            worker.submit([mine])
            if mine.future.result(10) != {"of": f"{number}-{turn}"}:
                wrong.append(f"{number}-{turn}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(50)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong


def test_a_full_queue_turns_away_and_says_when_to_come_again(make: Callable[..., Worker]) -> None:
    """Row 40: what was taken in is answered, what was not is told so; nothing else happens."""
    held = Held()
    worker = make(held, queue=10)
    first = ticket("first")
    worker.submit([first])
    assert held.entered.wait(10)
    taken, refused = [], []
    for number in range(100):
        each = ticket(str(number))
        try:
            worker.submit([each])
            taken.append(each)
        except Refused as refusal:
            refused.append((refusal.status, refusal.error.code, refusal.retry_after))
    assert len(taken) == 10
    assert refused == [(429, "E6001", 1)] * 90
    held.go.set()
    assert [each.future.result(10)["of"] for each in [first, *taken]] == ["first", *map(str, range(10))]
    again = ticket("again")
    worker.submit([again])
    assert again.future.result(10)


def test_a_batch_too_large_for_the_room_is_not_half_taken(make: Callable[..., Worker]) -> None:
    held = Held()
    worker = make(held, queue=5)
    with pytest.raises(Refused):
        worker.submit([ticket(str(number)) for number in range(6)])
    assert worker.idle


def test_rows_that_share_their_source_go_together_and_the_oldest_always_goes(make: Callable[..., Worker]) -> None:
    held = Held()
    worker = make(held, batch=3)
    worker.submit([ticket("warm-up")])
    assert held.entered.wait(10)
    rows = [ticket(source) for source in ("a", "b", "a", "c", "b", "a", "a")]
    worker.submit([*rows, other := ticket("a", OTHER)])
    held.go.set()
    for each in [*rows, other]:
        each.future.result(10)
    assert held.batches == [["warm-up"], ["a", "a", "a"], ["b", "b", "c"], ["a"], ["a"]]  # the last: another run


def test_who_left_is_not_answered(make: Callable[..., Worker]) -> None:
    held = Held()
    worker = make(held)
    worker.submit([ticket("first")])
    assert held.entered.wait(10)
    gone, stays = ticket("gone"), ticket("stays")
    worker.submit([gone, stays])
    assert gone.future.cancel()
    held.go.set()
    assert stays.future.result(10)
    assert held.batches == [["first"], ["stays"]]


def test_one_bad_row_spoils_no_other(make: Callable[..., Worker]) -> None:
    def answer(tickets: Sequence[Ticket]) -> list[dict[str, Any]]:
        if any(each.example.source == "bad" for each in tickets):
            raise DataError("E1301", "the row does not fit into the model's window even with its source cut away")
        if any(each.example.source == "worse" for each in tickets):
            raise ZeroDivisionError("/secret/path")
        return echo(tickets)

    worker = make(answer)
    rows = [ticket(source) for source in ("a", "bad", "b", "worse", "c")]
    worker.submit(rows)
    assert [each.future.result(10)["of"] for each in (rows[0], rows[2], rows[4])] == ["a", "b", "c"]
    for place, status in ((1, 422), (3, 500)):
        refusal = rows[place].future.exception(10)
        assert isinstance(refusal, Refused)
        assert refusal.status == status
        assert "secret" not in str(refusal.body())
    assert worker.alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_worker_leaves_nobody_waiting_and_is_replaced(make: Callable[..., Worker]) -> None:
    """Row 43 for the queue."""
    def answer(tickets: Sequence[Ticket]) -> list[dict[str, Any]]:
        if tickets[0].example.source == "kill":
            raise SystemExit
        return echo(tickets)

    worker = make(answer)
    killer = ticket("kill")
    worker.submit([killer])
    assert isinstance(killer.future.exception(10), Refused)
    worker._thread.join(10)
    assert not worker.alive
    with pytest.raises(Refused) as caught:
        worker.submit([ticket("a")])
    assert caught.value.status == 503
    worker.restart()
    fine = ticket("a")
    worker.submit([fine])
    assert fine.future.result(10) == {"of": "a"}
    assert worker.restarts == 1


def test_closing_tells_everybody(make: Callable[..., Worker]) -> None:
    held = Held()
    worker = make(held)
    rows = [ticket("running"), ticket("waiting")]
    worker.submit(rows[:1])
    assert held.entered.wait(10)
    worker.submit(rows[1:])
    worker.close()
    for each in rows:
        refusal = each.future.exception(10)
        assert isinstance(refusal, Refused)
        assert refusal.status == 503
    held.go.set()
    with pytest.raises(Refused):
        worker.submit([ticket("late")])


def test_the_wait_follows_the_pace(make: Callable[..., Worker]) -> None:
    def slow(tickets: Sequence[Ticket]) -> list[dict[str, Any]]:
        time.sleep(0.02 * len(tickets))
        return echo(tickets)

    worker = make(slow, queue=1)
    one = ticket("a")
    worker.submit([one])
    one.future.result(10)
    assert isinstance(one.future, Future)
    deadline = time.monotonic() + 5
    while not worker.row_seconds and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 0.015 < worker.row_seconds < 1
    assert worker.seconds_to_room(1) == 1
    assert worker.seconds_to_room(10**9) == 60
