"""What a forked child gets of its parent's locks."""

import os
import signal
from collections.abc import Callable

import pytest
from tests.unit.store_programs import fork_in_c, in_child

from canister.forks import Mutex


@pytest.mark.parametrize("fork", [os.fork, fork_in_c])
def test_a_child_is_not_locked_out_by_a_thread_that_it_does_not_have(fork: Callable[[], int]) -> None:
    mutex = Mutex()

    def work() -> None:
        signal.alarm(10)  # ends a child that waits
        with mutex:
            pass

    with mutex:
        assert in_child(work, fork) == 0
    with mutex:
        pass
