"""After everything that the other tests of this directory did to the lab, its books balance."""

import pytest
from commits import check_books

from lab.world import World

pytestmark = [pytest.mark.lab, pytest.mark.guest]


def test_the_books_of_the_lab_balance_and_every_message_was_confirmed(lab: World) -> None:
    check_books(lab)
