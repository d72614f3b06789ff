"""The page docs/triage.md, made from the rules: ``python -m distgate.cli.pages.triage > docs/triage.md``."""

from __future__ import annotations

import json
import sys

from distgate.changes.rules import RULES, Asks
from distgate.changes.triage import decide, narrate
from distgate.settings import Settings
from distgate.text import shown_value, table

SETTINGS = (
    "pipelines",
    "namespaces",
    "branches",
    "include_packages",
    "exclude_packages",
    "package_lists",
    "push_settles",
    "hourly_cap",
    "hourly_cap_per_package",
)
ASKS: dict[Asks, str] = {
    "message": "the message as it came",
    "change": "the change",
    "ledger": "the ledger, when the message comes",
    "push": "the ledger, once the push has settled",
}
#: A push by which the page shows what explain prints; a branch that no default watches.
SHOWN = {
    "topic": "org.fedoraproject.prod.git.receive",
    "msg": {
        "commit": {
            "namespace": "rpms",
            "repo": "dos2unix",
            "rev": "7a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
            "branch": "epel9",
            "username": "jane",
        }
    },
}
PAGE = """\
# What becomes of a push

<!-- Made by `python -m distgate.cli.pages.triage` from distgate/changes/rules.py and distgate/settings.py. -->

Rules are asked in this order, and the first that objects decides. A push to which none objects is `queued`.

{rules}

They are asked once for each pipeline of `DISTGATE_PIPELINES`, and one pipeline's answer says nothing of the other's:
a push may be queued for one and ignored for the other, caps count per pipeline, and each says its own messages. What
cannot be read is rejected once.

`ignored` and `shed` changes are answered by one `package.ignored` message each and cost no flow run; the ledger keeps
the rule and the reason, and tells "not tested" from "not now". A `rejected` message goes to the dead-letter queue. A
message on another topic, or about a deleted branch, names no commit that could be answered. A duplicate gets the
answer that stands: nothing is said or started twice. A change that was ignored when it came to a fork, or when nobody
watched its branch, is decided anew when it comes again and is watched. Atomic Host says `package.ignored` for every
push to a package that is not in the branch's [list](package-lists.md), as its document wants it.

## The head of a push

`git.receive` sends one message for each commit, and the whole history of a new branch; `pagure.git.receive` sends one
for each push and names its head. A head is tested at once. A commit of `git.receive` waits `DISTGATE_PUSH_SETTLES`
seconds; a newer commit of the branch that comes meanwhile, or a head that a push names, supersedes it.
[The reasons](decisions/2026-11-21-a-push-is-tested-at-its-head.md).

## Settings

{settings}

Lists are JSON: `DISTGATE_BRANCHES='["rawhide", "f4[0-9]"]'`.

## Ask it

`distgate explain FILE|-` says what the trigger does with a message, enveloped or bare, and needs no server; it ends
with 0 for every decision and with 2 for a wrong call. `--pipeline atomic` asks the trigger of Atomic Host.

```console
$ distgate explain push.json
{shown}
```

With `--json` it prints one object ([schema](explain.schema.json)); `change` is null when the message names no commit
that could be read, and `outcome` is `passed`, `objected`, `not-asked` (it needs the ledger) or `not-reached`:

```json
{as_json}
```
"""


def page() -> str:
    """The text of docs/triage.md."""
    decision = decide("", SHOWN, _defaults())
    shortened = {**decision.as_json(), "trace": [vars(step) for step in decision.trace[5:7]]}
    return PAGE.format(
        rules=table(("", "rule", "lets pass when", "else", "looks at"), _rules()),
        settings=table(("setting", "default", "holds"), _settings()),
        shown="\n".join(narrate(decision)),
        as_json=json.dumps(shortened, indent=1)
        .replace('"trace": [', '"trace": [\n  ...,')
        .replace("\n ]", ",\n  ...\n ]"),
    )


def _defaults() -> Settings:
    # Not the settings of this process: the page is the same everywhere.
    return Settings.model_construct()


def _rules() -> list[tuple[str, ...]]:
    return [
        (str(number), f"`{rule.name}`", rule.sentence, f"`{rule.decision}`", ASKS[rule.asks])
        for number, rule in enumerate(RULES, 1)
    ]


def _settings() -> list[tuple[str, ...]]:
    fields = Settings.model_fields
    return [
        (f"`DISTGATE_{name.upper()}`", shown_value(fields[name].default), fields[name].description or "")
        for name in SETTINGS
    ]


if __name__ == "__main__":
    sys.stdout.write(page())
