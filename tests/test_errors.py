"""Who is to blame and which error is raised for it are two words for one thing."""

from __future__ import annotations

import pickle
from typing import get_args

import pytest

from distgate.errors import Blame, error_for


@pytest.mark.parametrize("blame", get_args(Blame))
def test_every_blame_has_an_error_that_survives_a_task(blame: Blame) -> None:
    error = pickle.loads(pickle.dumps(error_for(blame)("it broke", hint="look", evidence="log")))
    assert type(error) is error_for(blame)
    assert (error.blame, error.message, error.hint, error.evidence) == (blame, "it broke", "look", "log")
