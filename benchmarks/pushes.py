"""A mass rebuild in small: pushes of which some are ignored, some come twice, and some are poison."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

#: Of a hundred messages; the rest is accepted.
IGNORED, DUPLICATES, POISON = 30, 10, 5


@dataclass(frozen=True)
class Flood:
    """Messages as raw bodies, in a random order that is always the same, and what must become of them."""

    bodies: tuple[bytes, ...]
    queued: int
    ignored: int
    duplicates: int
    poison: int

    @property
    def expected(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("queued", "ignored", "duplicates", "poison")}


def flood(size: int, name: str) -> Flood:
    """``size`` messages; ``name`` keeps the packages of one flood apart from those of another."""
    ignored, duplicates, poison = (size * share // 100 for share in (IGNORED, DUPLICATES, POISON))
    queued = size - ignored - duplicates - poison
    accepted = [_push(f"{name}-{number}", "f41", number) for number in range(queued)]
    rejected = [_push(f"{name}-{number}", "epel9", number) for number in range(queued, queued + ignored)]
    broken = [body[: len(body) // 2] if n % 2 else b'{"commit": {"repo": "../x"}}' for n, body in enumerate(accepted)]
    bodies = accepted + rejected + accepted[:duplicates] + broken[:poison]
    random.Random(size).shuffle(bodies)  # noqa: S311 - an order, not a secret
    return Flood(tuple(bodies), queued, ignored, duplicates, poison)


def _push(repo: str, branch: str, number: int) -> bytes:
    commit = {
        "namespace": "rpms",
        "repo": repo,
        "rev": f"{number:040x}",
        "branch": branch,
        "username": "releng",
        "email": "releng@example.org",
        "name": "Release Engineering",
        "summary": "Rebuilt for the mass rebuild",
        "message": "Rebuilt for the mass rebuild\n",
        "path": f"/srv/git/repositories/rpms/{repo}.git",
        "seen": False,
        "stats": {"files": {f"{repo}.spec": {"additions": 4, "deletions": 1, "lines": 5}}},
    }
    return json.dumps({"agent": "releng", "commit": commit}).encode()
