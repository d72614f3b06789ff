"""Messages that nobody should have sent: each is a dead letter, ignored, or harmless, and the next push is read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pika
import pytest
import sqlalchemy as sa
from fault_site import TOPIC, FaultSite, headers, push, tidy

from distgate.ledger.tables import CHANGES
from distgate.waiting import wait_for
from lab.sites.entrance import Entrance

pytestmark = pytest.mark.lab
GOOD = json.dumps(push()).encode()


def with_commit(**fields: Any) -> bytes:
    return json.dumps(push(**fields)).encode()


def without(field: str) -> bytes:
    body = push()
    del body["commit"][field]
    return json.dumps(body).encode()


def nested(depth: int) -> bytes:
    return GOOD[:-1] + b', "bomb": ' + b"[" * depth + b"]" * depth + b"}"


#: Bodies that are no push: name and bytes; every one ends in the dead letters.
UNREADABLE: dict[str, bytes] = {
    "nothing": b"",
    "a NUL byte": b"\0",
    "a NUL byte within text": GOOD.replace(b"jane", b"ja\0ne"),
    "no UTF-8": b'{"commit": "\xff\xfe"}',
    "UTF-16": GOOD.decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "truncated": GOOD[:-20],
    "half an escape": b'{"commit": "\\u12"}',
    "something after the end": GOOD + b"}",
    "two messages in one": GOOD + GOOD,
    "key=value lines": b"CI_TYPE=custom\nbranch=f41\n",
    "gzip": gzip.compress(GOOD),
    "an array": b"[1]",
    "a number": b"7",
    "text": b'"commit"',
    "null": b"null",
    "true": b"true",
    "not a number": b'{"commit": NaN}',
    "a number of 10,000 digits": b'{"commit": ' + b"9" * 10_000 + b"}",
    "arrays 100,000 deep": b"[" * 100_000,
    "objects 50,000 deep": b'{"commit":' * 50_000,
    "a bomb beside a good push": nested(100_000),
    "10 MB of blanks": b" " * 10_000_000,
    "no commit": b"{}",
    "commit is null": b'{"commit": null}',
    "commit is an array": b'{"commit": [{"repo": "bash"}]}',
    "commit is text": b'{"commit": "bash"}',
    "no repo": without("repo"),
    "no rev": without("rev"),
    "no branch": without("branch"),
    "no namespace": without("namespace"),
    "repo is a number": with_commit(repo=7),
    "repo is an array": with_commit(repo=["bash"]),
    "rev is null": with_commit(rev=None),
    "rev is true": with_commit(rev=True),
    "branch is an object": with_commit(branch={"__prefect_kind": "jinja", "template": "{{ 7*7 }}"}),
    "namespace is an object": with_commit(
        namespace={"__prefect_kind": "workspace_variable", "variable_name": "secret"}
    ),
    "repo leads out of its directory": with_commit(repo="../x"),
    "repo is an absolute path": with_commit(repo="/etc/passwd"),
    "repo is the parent directory": with_commit(repo=".."),
    "repo is an option": with_commit(repo="-rf"),
    "repo holds a space": with_commit(repo="a b"),
    "repo holds a line's end": with_commit(repo="bash\n"),
    "repo holds a NUL": with_commit(repo="bash\0"),
    "repo is a command": with_commit(repo="$(reboot)"),
    "repo is empty": with_commit(repo=""),
    "repo has 300 characters": with_commit(repo="x" * 300),
    "repo is written from right to left": with_commit(repo="\u202ehsab"),
    "repo holds combining characters": with_commit(repo="e\u0301" * 9),
    "repo holds half a character": b'{"commit": {"repo": "\\ud800"}}',
    "rev is short": with_commit(rev="7a1b2c3"),
    "rev is in capitals": with_commit(rev="AB" * 20),
    "rev ends with a line's end": with_commit(rev="ab" * 20 + "\n"),
    "branch is an option": with_commit(branch="--upload-pack=reboot"),
    "branch is a range": with_commit(branch="f41..f42"),
    "branch is but a prefix": with_commit(branch="refs/heads/"),
}
#: Good pushes in bad wrappings: the properties that a sender may set as it likes. These end in the dead letters, too.
MISLABELLED: dict[str, dict[str, Any]] = {
    "an encoding that does not exist": {"content_encoding": "utf-99"},
    "an encoding that is none of text": {"content_encoding": "rot13"},
    "a schema that is a number": {"headers": headers() | {"fedora_messaging_schema": ["a"]}},
    "a severity that is none": {"headers": headers() | {"fedora_messaging_severity": 99}},
    "the schema of another message": {
        "headers": headers() | {"fedora_messaging_schema": "distgate.allpackages.StageV1"}
    },
}
#: Good pushes that look odd: each is accepted.
HARMLESS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "no headers": (with_commit(), {"headers": None}),
    "no ID": (with_commit(), {"message_id": None}),
    "a schema that we do not have": (with_commit(), {"headers": {"fedora_messaging_schema": "git.receive.V9"}}),
    "a time that is none": (with_commit(), {"headers": headers() | {"sent-at": "yesterday"}}),
    "a patch of 10 MB": (with_commit(patch="x" * 10_000_000), {}),
    "a summary that is written from right to left": (with_commit(summary="\u202e\x1b[2J" + "e\u0301" * 500), {}),
    "fields that nobody knows": (with_commit(seen=False, stats={"total": {"lines": 3}}), {}),
    "a username that is an object": (with_commit(username={"__prefect_kind": "jinja"}), {}),
}


@pytest.fixture(scope="module")
def fates(gate: Entrance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """All of them, sent to one intake and followed by a good push: ``dead``, ``accepted`` or ``ignored`` by name."""
    scratch = tmp_path_factory.mktemp("poison")
    site = FaultSite(gate, scratch, scratch)
    cases = {name: (body, {}) for name, body in UNREADABLE.items()}
    cases |= {name: (with_commit(), wrapping) for name, wrapping in MISLABELLED.items()} | HARMLESS
    last = push()
    with site.running("intake") as intake:
        for name, (body, wrapping) in cases.items():
            known = {"message_id": name, "headers": headers(), "correlation_id": name} | wrapping
            site.send_raw(body, TOPIC, pika.BasicProperties(**known))
        site.send(last)
        wait_for("the good push to be accepted", lambda: keys(site, [last]), 90, evidence=lambda: site.log("intake"))
        site.settle(1)
        alive = intake.poll() is None
    yield {
        "the intake": "alive" if alive else "ended",
        **{name: "accepted" if keys(site, [body]) else "ignored" for name, (body, _) in cases.items()},
        **dict.fromkeys(site.dead(), "dead"),
    }
    tidy(site)


def keys(site: FaultSite, bodies: list[Any]) -> list[str]:
    """The commits of these pushes that the ledger accepted."""
    with site.ledger.transaction() as connection:
        known = connection.execute(sa.select(CHANGES.c.key).where(CHANGES.c.decision == "queued")).scalars().all()
    text = [one.decode("utf-8", "replace") if isinstance(one, bytes) else json.dumps(one) for one in bodies]
    return [key for key in known if any(key.partition("#")[2] in one for one in text)]


@pytest.mark.parametrize("name", [*UNREADABLE, *MISLABELLED])
def test_a_message_that_is_no_push_becomes_a_dead_letter(fates: dict[str, str], name: str) -> None:
    assert fates[name] == "dead"


@pytest.mark.parametrize("name", HARMLESS)
def test_a_push_that_is_only_odd_is_accepted(fates: dict[str, str], name: str) -> None:
    assert fates[name] == "accepted"


def test_an_intake_outlives_every_poison(fates: dict[str, str]) -> None:
    assert fates["the intake"] == "alive"
    assert len(UNREADABLE) + len(MISLABELLED) >= 40
