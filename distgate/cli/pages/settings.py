"""The page docs/reference-settings.md, made from the settings: ``distgate reference settings``."""

from __future__ import annotations

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from distgate.settings import Settings
from distgate.text import shown_value, table

#: The first setting of each part of the page, in the order in which the class has them.
PARTS = {
    "site": "Site and ledger",
    "amqp_url": "The message bus",
    "prefect_api_url": "Prefect",
    "pipelines": "Pipelines and their deployments",
    "artifacts_dir": "Artifacts",
    "namespaces": "Which pushes are tested",
    "environment": "Runs",
    "roles_path": "Package tests",
    "guests_dir": "Guests",
    "compose_way": "Images",
    "free_disk": "Workers",
    "keep_days": "Clean-up",
    "reports": "Reports to others",
    "metrics_listen": "Metrics",
    "lab_state": "The lab",
}
HEAD = """\
# Reference: settings

<!-- Made by `distgate reference settings` from distgate/settings.py; a test compares. -->

Every process of distgate reads these variables from its environment. Lists and objects are JSON:
`DISTGATE_BRANCHES='["rawhide", "f4[0-9]"]'`. A value that does not fit ends the process with status 2 and the name of
the variable. `DISTGATE_WORKER_RUNS` and `DISTGATE_WORKER_TYPE` are read by the units and the composition of `deploy/`
alone. Secrets of remote services are in files that settings name, or in Prefect's [blocks](reference-blocks.md);
[deploy.md](deploy.md) says which goes where.
"""


def page() -> str:
    """The whole page as markdown, ending in a newline. Raises KeyError for a part that begins with no setting."""
    fields = Settings.model_fields
    names = list(fields)
    starts = [*(names.index(name) for name in PARTS), len(names)]
    parts = zip(PARTS.values(), starts, starts[1:], strict=False)
    tables = [f"## {title}\n\n{_settings(names[first:last])}\n" for title, first, last in parts]
    return "\n".join([HEAD, *tables])


def variable(name: str, field: FieldInfo) -> str:
    """The environment variable of a setting; of several, the one with our prefix."""
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"DISTGATE_{name.upper()}"


def _settings(names: list[str]) -> str:
    fields = Settings.model_fields
    rows = [(f"`{variable(name, fields[name])}`", _default(fields[name]), _meaning(fields[name])) for name in names]
    return table(("setting", "default", "holds"), rows)


def _default(field: FieldInfo) -> str:
    return shown_value(field.get_default(call_default_factory=True, validated_data={}))


def _meaning(field: FieldInfo) -> str:
    secret = " (secret)" if "SecretStr" in str(field.annotation) else ""
    return f"{field.description}{secret}"
