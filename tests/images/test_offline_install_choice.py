"""The greatest installable set is exact: compared with trying every set there is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pytest

from distgate.rpm.dnf_output import exclude_each_other
from distgate.rpm.installable import NotInstallable, Refusal, greatest

#: Candidates in the order of their importance, the groups that do not go together, what has to be left out.
CASES = (
    ("ab", [], ""),
    ("ab", ["ab"], "b"),
    ("abc", ["ab", "ac"], "a"),
    ("abc", ["ab", "bc", "ac"], "bc"),
    ("abcd", ["abcd"], "d"),
    ("abcdef", ["ab", "cd", "ef"], "bdf"),
    ("abcdef", ["ab", "bc", "cd", "de", "ef", "fa"], "bdf"),
    ("abcdefgh", ["abc", "cde", "efg", "gha"], "ea"),
    ("abcde", ["ae", "be", "ce", "de"], "e"),
)


def refused_by(groups: Sequence[str], wordy: bool, attempts: list[str]) -> object:
    def attempt(names: Sequence[str]) -> Refusal | None:
        attempts.append("".join(names))
        broken = [group for group in groups if set(group) <= set(names)]
        if not broken:
            return None
        return Refusal(f"{broken[0]} clash", "said", tuple(broken[0]) if wordy else ())

    return attempt


@pytest.mark.parametrize("wordy", [True, False], ids=["the solver names them", "the solver names nobody"])
@pytest.mark.parametrize(("candidates", "groups", "left_out"), CASES)
def test_as_few_as_possible_are_left_out(candidates: str, groups: list[str], left_out: str, wordy: bool) -> None:
    attempts: list[str] = []
    choice = greatest(tuple(candidates), refused_by(groups, wordy, attempts))  # type: ignore[arg-type]
    names = {name for name, _ in choice.omitted}
    assert len(names) == len(set(left_out)) == fewest(candidates, groups)
    assert set(choice.requests) == set(candidates) - names
    assert not any(set(group) <= set(choice.requests) for group in groups)
    for name, reason in choice.omitted:
        assert "clash" in reason
        assert name not in reason.partition(":")[0].removeprefix("cannot be installed together with ")


def fewest(candidates: str, groups: list[str]) -> int:
    for size in range(len(candidates) + 1):
        for left in combinations(candidates, size):
            if all(set(group) & set(left) for group in groups):
                return size
    raise AssertionError


def test_of_two_that_exclude_each_other_the_more_important_stays() -> None:
    assert greatest(("main", "other"), refused_pair).requests == ("main",)


def refused_pair(names: Sequence[str]) -> Refusal | None:
    return Refusal("clash", "said", ("main", "other")) if len(names) == 2 else None


def test_one_that_cannot_be_installed_alone_is_an_error_and_no_omission() -> None:
    with pytest.raises(NotInstallable, match="c cannot be installed: no such thing"):
        greatest(("a", "b", "c"), lambda names: Refusal("no such thing", "said") if "c" in names else None)


def test_one_that_what_the_root_holds_excludes_is_left_out_even_when_it_comes_first() -> None:
    choice = greatest(
        ("mild", "hot", "tools"),
        lambda names: Refusal("old hot conflicts with mild", "said", ("mild",)) if "mild" in names else None,
        rival=lambda name, _refusal: "hot" if name == "mild" else None,
    )
    assert choice.requests == ("hot", "tools")
    assert choice.omitted == (
        ("mild", "cannot be installed together with hot, which the base has already: old hot conflicts with mild"),
    )


#: Words of dnf and rpm about a new package and one that stays, and whether that is all that is wrong.
EXCLUSIONS = (
    (" - package curl-7-1.x conflicts with curl-minimal provided by curl-minimal-8-1.x", True),
    (" - package curl-minimal-8-1.x obsoletes curl < 9 provided by curl-7-1.x", True),
    ("file /usr/bin/curl from install of curl-minimal-8-1.x conflicts with file from package curl-7-1.x", True),
    (" - package bash-5-1.x conflicts with curl-minimal provided by curl-minimal-8-1.x", False),
    (" - package curl-minimal-8-1.x requires curl-7-1.x", False),
    (" - package curl-7-1.x conflicts with curl-minimal-8-1.x\n - nothing provides libx needed by it", False),
)


@pytest.mark.parametrize(("said", "excluded"), EXCLUSIONS)
def test_a_conflict_is_told_from_everything_else_that_is_wrong(said: str, excluded: bool) -> None:
    assert exclude_each_other(["curl-minimal-0:8-1.x"], ["curl-0:8-1.x", "curl-0:7-1.x"], said) is excluded
