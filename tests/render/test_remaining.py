"""What a command has left: the take at work, and the time of the rest, by memory and by the run itself."""

from __future__ import annotations

from typing import Any

import pytest

from acestep_cli.render import job
from acestep_cli.render.remaining import Remaining, TakeWork


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def work(take: int = 1, takes: int = 1, **changes: Any) -> TakeWork:
    given: dict[str, Any] = {
        "song": "a.yaml",
        "noun": "song",
        "take": take,
        "takes": takes,
        "stem": None,
        "units": {"diffuse": 8.0, "decode": 30.0},
        "expected": None,
    }
    return TakeWork(**given | changes)


def play(remaining: Remaining, clock: Clock, takes: int, *, until: int | None = None, step: float = 1.0) -> None:
    """A render of some takes, of 8 steps and 30 seconds each: `step` seconds a step, a tenth of one a second."""
    remaining.report("text", 1, 1)
    for take in range(takes if until is None else until):
        remaining.report("diffuse", 8 * take, 8 * takes)
        for done in range(1, 9):
            clock.now += step
            remaining.report("diffuse", 8 * take + done, 8 * takes)
        for done in range(0, 31, 10):
            clock.now += step if done else 0
            remaining.report("decode", 30 * take + done, 30 * takes)


def test_the_take_at_work_and_its_own_steps_are_told() -> None:
    clock = Clock()
    remaining = Remaining(clock)
    remaining.begin([work(take, 4) for take in (1, 2, 3, 4)])
    for take in range(4):
        for done in range(9):
            remaining.report("diffuse", 8 * take + done, 32)
            assert (remaining.place, remaining.step) == (f"take {take + 1} of 4", (done, 8))
        for done in (0, 15, 30):
            remaining.report("decode", 30 * take + done, 120)
            assert (remaining.place, remaining.step) == (f"take {take + 1} of 4", (done, 30))


def test_takes_have_the_lengths_that_the_songwriter_decided() -> None:
    """Two songs that were taken for 30 s, of 10 and of 50: place, time left and what is learnt are of those."""
    clock = Clock()
    remaining = Remaining(clock)
    expected = {"startup": 2.0, "diffuse": 6.0, "decode": 3.0, "finish": 3.0}
    songs = [work(song=name, expected=expected) for name in ("a.yaml", "b.yaml")]
    remaining.begin(songs)
    remaining.resize([10.0, 50.0])
    clock.now += 2
    remaining.report("diffuse", 0, 16)
    assert remaining.seconds_left == pytest.approx((6 + 3 + 3) / 3 + (6 + 3 + 3) / 3 * 5)
    remaining.report("diffuse", 8, 16)
    remaining.report("decode", 0, 60)
    assert (remaining.place, remaining.step) == ("song 1 of 2", (0, 10))
    remaining.report("decode", 10, 60)
    remaining.report("diffuse", 16, 16)
    remaining.report("decode", 20, 60)
    assert (remaining.place, remaining.step) == ("song 2 of 2", (10, 50))
    remaining.report("decode", 60, 60)
    clock.now += 6
    overhead = remaining.overhead()
    assert overhead is not None
    assert overhead.finishing_per_second == pytest.approx(6 / 60)


def test_takes_that_share_passes_are_told_together_until_they_are_decoded() -> None:
    remaining = Remaining(Clock())
    passes = [(1, 3), (4, 5)]
    remaining.begin([work(take, 5, together=one) for one in passes for take in range(one[0], one[1] + 1)])
    for first, last in passes:
        count = last - first + 1
        for done in range(9):
            remaining.report("diffuse", 8 * (first - 1) + count * done, 40)
            assert (remaining.place, remaining.step) == (f"takes {first} to {last} of 5", (done, 8))
        for take in range(first, last + 1):
            remaining.report("decode", 30 * (take - 1), 150)
            assert (remaining.place, remaining.step) == (f"take {take} of 5", (0, 30))
            remaining.report("decode", 30 * take, 150)
            assert remaining.place == f"take {take} of 5"


def test_the_time_left_counts_takes_of_a_pass_as_one_by_one() -> None:
    clock = Clock()
    remaining = Remaining(clock)
    remaining.begin([work(take, 4, together=(1, 4)) for take in (1, 2, 3, 4)])
    remaining.report("diffuse", 0, 32)
    for done in range(1, 9):
        clock.now += 4.0
        remaining.report("diffuse", 4 * done, 32)
    remaining.report("decode", 0, 120)
    clock.now += 3.0
    remaining.report("decode", 30, 120)
    assert remaining.seconds_left == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("together", "passes"),
    [(1, [None] * 5), (2, [(3, 4), (3, 4), (5, 6), (5, 6), None]), (8, [(3, 7)] * 5), (3, [(3, 5)] * 3 + [(6, 7)] * 2)],
)
def test_passes_of_takes_in_a_row(together: int, passes: list[tuple[int, int] | None]) -> None:
    assert [job.shared_pass(take, 3, 7, together) for take in range(3, 8)] == passes


def test_a_render_that_counts_fewer_steps_is_scaled() -> None:
    """As a cover, which begins on the way."""
    remaining = Remaining(Clock())
    remaining.begin([work(1, 2), work(2, 2)])
    for done in range(4):
        remaining.report("diffuse", done, 6)
    assert (remaining.place, remaining.step) == ("take 1 of 2", (3, 3))
    remaining.report("decode", 0, 60)
    remaining.report("diffuse", 3, 6)
    assert (remaining.place, remaining.step) == ("take 2 of 2", (0, 3))


def test_without_memory_the_first_steps_tell_the_time_of_the_diffusion_at_the_least() -> None:
    clock = Clock()
    remaining = Remaining(clock)
    remaining.begin([work(1, 2), work(2, 2)])
    assert remaining.seconds_left is None
    remaining.report("diffuse", 0, 16)
    assert remaining.seconds_left is None
    clock.now += 2
    remaining.report("diffuse", 1, 16)
    assert remaining.seconds_left == pytest.approx(30)
    assert remaining.is_least
    clock.now += 3
    assert remaining.seconds_left == pytest.approx(27)  # it counts down between reports


def test_after_a_take_the_rest_is_known() -> None:
    clock = Clock()
    remaining = Remaining(clock)
    remaining.begin([work(take, 3) for take in (1, 2, 3)])
    play(remaining, clock, 3, until=1)
    assert not remaining.is_least
    assert remaining.seconds_left == pytest.approx(2 * (8 + 3))
    clock.now += 5  # the take is written
    remaining.report("diffuse", 8, 24)
    assert remaining.seconds_left == pytest.approx(2 * (8 + 3) + 2 * 5)


def test_what_the_machine_remembers_tells_the_time_from_the_start() -> None:
    clock = Clock()
    remaining = Remaining(clock)
    expected = {"diffuse": 8.0, "decode": 3.0, "finish": 1.0, "startup": 6.0}
    remaining.begin([work(take, 2, expected=expected) for take in (1, 2)])
    assert remaining.seconds_left == pytest.approx(6 + 2 * 12)
    clock.now += 2
    assert remaining.seconds_left == pytest.approx(4 + 2 * 12)
    assert remaining.share == pytest.approx(2 / 30)
    clock.now += 4
    play(remaining, clock, 2, until=1, step=2.0)  # half as fast as remembered
    assert 12 < remaining.seconds_left < 2 * 12 + 2
    overhead = remaining.overhead()
    assert overhead is not None
    assert overhead.startup == pytest.approx(6)
    assert overhead.writing_per_second is None


def test_takes_of_other_songs_and_steps_that_cannot_be_planned_count() -> None:
    clock = Clock()
    remaining = Remaining(clock)
    expected = {"diffuse": 8.0, "decode": 2.0, "finish": 0.0, "startup": 0.0}
    songs = [work(song=name, noun="track", expected=expected) for name in ("one", "two", "three")]
    remaining.tracks = ["zero", "one", "two", "three"]
    remaining.add(songs)
    remaining.begin(songs[:1])
    assert remaining.place == "track 2 of 4"
    assert remaining.seconds_left == pytest.approx(30)
    remaining.unplanned = 3
    assert remaining.seconds_left == pytest.approx(60)
    play(remaining, clock, 1)
    remaining.unplanned = 0
    remaining.begin(songs[1:])
    assert remaining.place == "track 3 of 4"
    assert remaining.seconds_left == pytest.approx(2 * (8 + 2 * 3.5 / 2.5))  # decoding took 3 seconds, not 2


def test_the_songwriter_s_time_is_not_that_of_the_start() -> None:
    clock = Clock()
    remaining = Remaining(clock)
    remaining.begin([work()])
    clock.now += 4
    remaining.report("write", 0, 10)
    clock.now += 3
    remaining.report("codes", 10, 10)
    play(remaining, clock, 1)
    overhead = remaining.overhead()
    assert overhead is not None
    assert (overhead.startup, overhead.writing_per_second) == (pytest.approx(4), pytest.approx(3 / 30))


def test_the_share_never_shrinks_and_ends_near_one() -> None:
    clock = Clock()
    remaining = Remaining(clock)
    remaining.begin([work(take, 3) for take in (1, 2, 3)])
    shares = []
    report = remaining.report

    def followed(stage: str, done: int, total: int) -> None:
        report(stage, done, total)
        shares.append(remaining.share)

    remaining.report = followed  # type: ignore[method-assign]
    play(remaining, clock, 3)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
