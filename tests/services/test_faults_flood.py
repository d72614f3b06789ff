"""A mass rebuild in small: many pushes at once, each counted under what became of it."""

from pathlib import Path

import pytest

from benchmarks.intake import one_round
from benchmarks.pushes import flood
from lab.sites.entrance import Entrance

pytestmark = pytest.mark.lab


def test_of_a_flood_of_pushes_each_is_counted_and_only_the_accepted_cost_a_flow_run(
    gate: Entrance, tmp_path: Path
) -> None:
    messages = flood(40, "flood")
    done = one_round(gate, messages, tmp_path)
    assert done.counts == {"queued": 22, "ignored": 12, "duplicates": 4, "poison": 2}
    assert done.runs == 22


@pytest.mark.parametrize("size", [100, 1000])
def test_a_flood_is_what_it_says(size: int) -> None:
    messages = flood(size, "flood")
    assert sum(messages.expected.values()) == len(messages.bodies) == size
    assert len(set(messages.bodies)) >= messages.queued + messages.ignored
    assert flood(size, "flood") == messages
