"""Check that signals are held while a step is made, raised everywhere else, and restored afterwards."""

import contextlib
import signal
import threading

import pytest

from retrograd.training.run.interrupts import Interrupted, Interrupts


def stopped(interrupts: Interrupts, *numbers: signal.Signals, held: bool = True) -> list[str]:
    """Return what was done when signals came in the middle, inside the held block or after it."""
    done = []
    with contextlib.suppress(Interrupted), interrupts:
        with interrupts.hold():
            for number in numbers if held else ():
                signal.raise_signal(number)
            done.append("step")
        for number in () if held else numbers:
            signal.raise_signal(number)
        done.append("evaluation")
    return done


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_waits_for_the_end_of_what_is_held(number: signal.Signals) -> None:
    before, interrupts = signal.getsignal(number), Interrupts()
    assert stopped(interrupts, number) == ["step"]
    assert (interrupts.is_requested, interrupts.is_repeated) == (True, False)
    assert signal.getsignal(number) is before


def test_the_second_does_not_wait() -> None:
    interrupts = Interrupts()
    assert stopped(interrupts, signal.SIGTERM, signal.SIGINT) == []
    assert interrupts.is_repeated


def test_where_nothing_is_held_the_first_does_not_wait_either() -> None:
    interrupts = Interrupts()
    assert stopped(interrupts, signal.SIGINT, held=False) == ["step"]
    assert (interrupts.is_requested, interrupts.is_repeated) == (True, False)


def test_another_thread_installs_nothing() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def enter() -> None:
        with Interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
