"""The one reader of the environment: every setting, described, with the prefix DISTGATE_."""

from __future__ import annotations

import os
import socket
from base64 import b64encode
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from distgate.errors import ConfigurationError
from distgate.pipelines import PIPELINES, Pipeline
from distgate.text import written_size


class Settings(BaseSettings):
    """What can be configured of a process of distgate; secrets of remote services live in Prefect blocks."""

    model_config = SettingsConfigDict(env_prefix="DISTGATE_", extra="ignore", frozen=True)

    site: str = Field("fedora", description="Name of the block documents to work with: fedora, lab, staging")
    stand_ins: tuple[str, ...] = Field(
        (),
        description="Modules whose classes may stand in for blocks (the field stand_in); by default a block that "
        "names one is refused, since users who may write blocks would choose what is run here",
    )
    ledger_url: str = Field(
        "sqlite:///distgate-ledger.db", description="SQLAlchemy URL of the ledger; PostgreSQL beyond one host"
    )
    amqp_url: str = Field(
        "amqp://guest:guest@127.0.0.1:5672/%2F", description="Broker to consume from and publish to"
    )
    amqp_ca: Path | None = Field(
        None, description="PEM file of whom an amqps:// broker's certificate must be from; unset: the system's"
    )
    amqp_cert: Path | None = Field(
        None, description="PEM file of the client certificate that is our login at an amqps:// broker"
    )
    amqp_key: Path | None = Field(None, description="PEM file of that certificate's key")
    exchange: str = Field("amq.topic", description="Topic exchange of the message bus")
    queue: str = Field("distgate.triggers", description="Durable queue that the intake consumes")
    main_topic: str = Field(
        "org.centos.prod", description="First part of every topic we send; org.centos.stage to try"
    )
    prefect_api_url: str = Field(
        "http://127.0.0.1:4200/api",
        validation_alias=AliasChoices("DISTGATE_PREFECT_API_URL", "PREFECT_API_URL"),
        description="Prefect's REST API; PREFECT_API_URL is read as well",
    )
    prefect_auth_string: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("DISTGATE_PREFECT_AUTH_STRING", "PREFECT_API_AUTH_STRING"),
        description="user:password of a protected Prefect server; PREFECT_API_AUTH_STRING is read as well",
    )
    prefect_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("DISTGATE_PREFECT_API_KEY", "PREFECT_API_KEY"),
        description="The same as a key, where a proxy or Prefect Cloud wants one; PREFECT_API_KEY is read as well",
    )
    ui_url: str = Field(
        "http://127.0.0.1:4200", description="Where people reach the Prefect UI; build_url points there"
    )
    pipelines: tuple[Pipeline, ...] = Field(
        PIPELINES[:1],
        min_length=1,
        description="Pipelines for which the intake decides about every push: allpackages, atomic",
    )
    deployment: str = Field("all-packages/production", description="Deployment that the reconciler starts runs of")
    manual_deployment: str = Field(
        "all-packages/manual", description="Deployment that `distgate replay` starts forced re-runs of"
    )
    atomic_deployment: str = Field(
        "atomic-host/production", description="Atomic Host: deployment that the reconciler starts runs of"
    )
    atomic_manual_deployment: str = Field(
        "atomic-host/manual", description="Atomic Host: deployment that `distgate replay` starts forced re-runs of"
    )
    artifacts_dir: Path = Field(Path("artifacts"), description="One directory per run is kept below this one")
    artifacts_url: str = Field("", description="Where artifacts_dir is served over http; empty: links are file paths")
    namespaces: tuple[str, ...] = Field(("rpms",), description="dist-git namespaces that are tested")
    branches: tuple[str, ...] = Field(
        ("rawhide", "main", "master", "f[2-9][0-9]"), description="Branches that are watched, as shell patterns"
    )
    atomic_branches: tuple[str, ...] | None = Field(
        None, description="Atomic Host: branches that are watched, as shell patterns; unset: those of all packages"
    )
    include_packages: tuple[str, ...] = Field(("*",), description="Packages that are watched, as shell patterns")
    exclude_packages: tuple[str, ...] = Field((), description="Packages that are not, of those; as shell patterns")
    package_lists: Path | None = Field(
        None,
        description="Directory of Atomic Host's package lists: BRANCH.txt, a name or shell pattern per line",
    )
    push_settles: float = Field(
        2,
        ge=0,
        le=20,
        description="Seconds for which a commit waits for a newer one of its push, to be tested in its place; "
        "0 tests every commit",
    )
    hourly_cap: int = Field(0, ge=0, description="Changes that are accepted within an hour; the rest is shed; 0: all")
    hourly_cap_per_package: int = Field(0, ge=0, description="The same for one package; 0: all")
    image_every: float = Field(
        86400, ge=0, description="Atomic Host: seconds after which the last good image is old, and a new one made"
    )
    legacy_ignore: bool = Field(
        False, description="Atomic Host: send the old topic package.ignore, not package.ignored"
    )
    environment: str = Field(
        "production",
        pattern="^[a-z][a-z0-9-]*$",
        description="What we belong to: production, staging. Only its deployments answer what our intake accepts",
    )
    deployed_for: str = Field(
        "", description="Set by deployments: a run that a worker of another environment took is refused"
    )
    run_lease: float = Field(60, description="Seconds of silence after which a run counts as lost with its host")
    sweep_after: float = Field(
        60, description="Seconds after which an accepted change without a run is started again"
    )
    retry_delays: tuple[float, ...] = Field(
        (5, 30), description="Seconds before each new try of a stage that broke on our side; as many tries"
    )
    build_timeout: float = Field(14400, description="Seconds that a Koji scratch build may take, queueing included")
    boot_timeout: float = Field(60, description="Seconds from power-on to ssh under KVM; scaled without it")
    suite_timeout: float = Field(14400, description="Seconds that one test suite may take")
    tests_timeout: float = Field(
        43200, description="Seconds that all suites of a run may take together, their guests' boots included"
    )
    roles_path: tuple[Path, ...] = Field(
        (), description="Directories with Ansible roles for test suites, searched before our own roles"
    )
    ansible: dict[str, Path] = Field(
        {}, description='Directory of the ansible-playbook for branches, as shell patterns: {"f4[12]": "/opt/a/bin"}'
    )
    rerun_failed: bool = Field(
        False,
        description="Run a failing suite again, and on the base without the change, to show what to suspect first",
    )
    guests_dir: Path | None = Field(
        None,
        description="State of this host's guests, unless the block Guest machine names another; by default "
        "/var/lib/distgate/guests for root, ~/.local/state/distgate/guests for others",
    )
    compose_way: Literal["auto", "layered", "full"] = Field(
        "auto",
        description="How images are made: layered onto a base, installed in full, or as the package asks for",
    )
    compose_driver: Literal["auto", "loop", "rootless", "guestfs"] = Field(
        "auto", description="What mounts an image to install into: auto takes the fastest that this worker can use"
    )
    appliance_kernel: Path | None = Field(
        None,
        description="Kernel of the libguestfs appliance: a directory of modules with a vmlinuz; unset: the host's",
    )
    image_store: Path = Field(
        Path("/var/lib/distgate/images"),
        description="Directory of the base images, unless the block Image store names another; composed images refer "
        "to it",
    )
    image_store_limit: Annotated[str, AfterValidator(written_size)] = Field(
        "50G",
        description="What the base images may take of the disk, unless the block Image store names it: 500M, 50G",
    )
    image_factory: tuple[str, ...] = Field(
        ("imagefactory",),
        description="Command that builds base images, with imagefactory's arguments added to it, unless the block "
        "Image factory names another",
    )
    free_disk: Annotated[str, AfterValidator(written_size)] = Field(
        "5G", description="Disk that a worker needs free for artifacts, images and temporary files, each"
    )
    host: str = Field("", description="This host, as limits call it, for containers that run on it; empty: its name")
    guest_slots: int = Field(
        0,
        ge=0,
        description="Runs that may have guests on one host at a time, by Prefect's limit guests-HOST; 0: all",
    )
    koji_slots: int = Field(
        0, ge=0, description="Runs that may have a scratch build at a time, by Prefect's limit koji-SITE; 0: all"
    )
    worker_checks: tuple[str, ...] = Field(
        (), description="Checks of `distgate doctor` that a worker must pass to take runs; empty: all of them"
    )
    health_every: float = Field(300, gt=0, description="Seconds between two checks of a worker's own health")
    worker_state: Path | None = Field(
        None,
        description="Directory in which the health of this host's workers stands; by default "
        "/var/lib/distgate/workers for root, ~/.local/state/distgate/workers for others",
    )
    keep_days: float = Field(
        30, gt=0, description="Days for which clean-up leaves the artifacts and results of ended runs alone"
    )
    keep_ledger_days: float = Field(
        180, gt=0, description="Days for which clean-up leaves what the ledger knows of ended runs alone"
    )
    reports: tuple[str, ...] = Field(
        (),
        description="Where to report runs, nowhere by default: ci-messages, resultsdb, dist-git-flag, matrix, mail",
    )
    report_namespace: str = Field("distgate", description="First part of our tests' names in ci-messages, ResultsDB")
    report_team: str = Field("distgate", description="Who answers for these tests: the team's name in ci-messages")
    report_email: str = Field("", description="The team's address, which ci-messages must have")
    report_docs: str = Field("", description="Page about these tests, a URL, which ci-messages must have")
    resultsdb_url: str = Field("", description="ResultsDB up to its version: https://resultsdb.example/api/v2.0")
    resultsdb_user: str = Field("", description="Account for basic authentication; empty: the secret is a token")
    resultsdb_secret: Path | None = Field(None, description="File with ResultsDB's password or token")
    dist_git_flags_url: str = Field("https://src.fedoraproject.org", description="dist-git whose commits are flagged")
    dist_git_flags_token: Path | None = Field(
        None, description="File with an API token of dist-git that may flag commits (commit_flag)"
    )
    matrix_url: str = Field("", description="Matrix homeserver: https://matrix.example")
    matrix_room: str = Field("", description="ID of the room, which our account has joined: !abc:example")
    matrix_token: Path | None = Field(None, description="File with the access token of our Matrix account")
    mail_server: str = Field("127.0.0.1:25", description="SMTP server and port")
    mail_tls: bool = Field(False, description="Begin TLS (STARTTLS) before the login; a password needs it")
    mail_user: str = Field("", description="Account at the SMTP server; empty: no login")
    mail_password: Path | None = Field(None, description="File with the password of mail_user")
    mail_from: str = Field("", description="Sender of mails")
    mail_to: tuple[str, ...] = Field(
        (), description="Recipients; {repo} and {branch} stand for the change's: {repo}-maintainers@example.org"
    )
    metrics_listen: str = Field("127.0.0.1:9840", description="Address and port of the Prometheus endpoint")
    lab_state: Path = Field(Path(".lab"), description="State directory of the lab")
    cache_dir: Path = Field(
        Path("~/.cache/distgate/lab"), description="Where the lab keeps what is costly to make, by recipe"
    )

    @field_validator("deployed_for")
    @classmethod
    def _is_at_home(cls, value: str, info: ValidationInfo) -> str:
        # A staging run with production's ledger would be believed.
        if value and value != (environment := info.data.get("environment")):
            raise ValueError(f"the run is for {value}, and its worker for {environment} (DISTGATE_ENVIRONMENT)")
        return value

    @property
    def prefect_authorization(self) -> str:
        """The HTTP header Authorization for Prefect's API, made as Prefect's own client makes it; empty for none."""
        if self.prefect_auth_string is not None:
            return f"Basic {b64encode(self.prefect_auth_string.get_secret_value().encode()).decode()}"
        return f"Bearer {self.prefect_api_key.get_secret_value()}" if self.prefect_api_key is not None else ""

    @property
    def host_name(self) -> str:
        """What limits call this host."""
        return self.host or socket.gethostname()

    def deployment_of(self, pipeline: Pipeline) -> str:
        """The deployment whose runs answer the pushes that a pipeline accepted."""
        return self.atomic_deployment if pipeline == "atomic" else self.deployment

    def branches_of(self, pipeline: Pipeline) -> tuple[str, ...]:
        """The branches that a pipeline watches, as shell patterns."""
        branches = self.atomic_branches if pipeline == "atomic" else None
        return self.branches if branches is None else branches

    def manual_deployment_of(self, pipeline: Pipeline) -> str:
        """The deployment of a pipeline for forced re-runs."""
        return self.atomic_manual_deployment if pipeline == "atomic" else self.manual_deployment

    @property
    def cache(self) -> Path:
        return self.cache_dir.expanduser()

    @property
    def guests(self) -> Path:
        """Where the state of this host's guests is."""
        return _state(self.guests_dir, "guests")

    @property
    def workers(self) -> Path:
        """Where the health of this host's workers stands."""
        return _state(self.worker_state, "workers")


def _state(named: Path | None, usual: str) -> Path:
    default = "/var/lib/distgate" if os.geteuid() == 0 else "~/.local/state/distgate"
    return (named or Path(default, usual)).expanduser()


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once. Raises ConfigurationError that names the variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        variable = name if name.isupper() else f"DISTGATE_{name.upper()}"
        sentence = f"the setting {variable} is wrong: {first['msg'].removeprefix('Value error, ')}"
        raise ConfigurationError(sentence, hint="distgate/settings.py describes every setting") from error
    except SettingsError as error:  # a list that is no JSON
        raise ConfigurationError(f"a setting is wrong: {error}", hint='lists are JSON, such as ["rpms"]') from error
