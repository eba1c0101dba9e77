"""Workers return results in order, raise what the function raises, and name a killed process."""

import math
import os

import pytest

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.workers import map_cases


@pytest.mark.parametrize("processes", [1, 2, 9])
def test_results_come_in_the_order_of_the_items(processes):
    assert map_cases(math.sqrt, [9, 1, 4], processes, "roots") == [3, 1, 2]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_the_function_is_raised(processes):
    with pytest.raises(ValueError, match="math domain error|nonnegative"):
        map_cases(math.sqrt, [1, -1], processes, "roots")


def test_a_worker_that_dies_is_named():
    with pytest.raises(GuidinoError, match="a worker process was killed; if memory ran out, use fewer"):
        map_cases(os._exit, [1, 1], 2, "dies")


def test_no_processes_are_refused():
    with pytest.raises(GuidinoError, match="-np 0: expected a number from 1 on"):
        map_cases(math.sqrt, [1], 0, "roots")
