"""The checks of what is beyond this host: Koji, the broker, Prefect, the ledger, and their clocks.

Each function returns its result, or raises the error that says why there is none. Nothing is changed there.
"""

from __future__ import annotations

import dataclasses
import ssl
import time
from email.utils import parsedate_to_datetime
from functools import partial
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

import httpx

from distgate.builds.koji import KojiClient, KojiProfile
from distgate.bus.queues import check_exchange
from distgate.doctor.report import CheckResult, Reading, judge_clock, judge_prefect
from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.ledger.database import file_of
from distgate.ledger.ledger import Ledger
from distgate.ledger.tables import SCHEMA
from distgate.prefect_api import NoBlock, PrefectApi
from distgate.runs.artifact_store import ArtifactStore

#: Seconds for one answer. No server is asked twice: what a doctor finds is true of this moment.
ANSWER_SECONDS = 10.0
#: The type of block that says where Koji is and who we are there (blocks.koji_instance.KojiInstance).
KOJI_BLOCK = "koji-instance"
#: The type of block that says where artifacts are kept (blocks.artifact_store.ArtifactStore); a site may have none.
STORE_BLOCK = "artifact-store"


class KojiAccount(KojiClient):
    """A Koji client that only asks who it is."""

    def account(self) -> str:
        """The account that the hub has for us, empty when it has none. Raises as KojiClient does."""
        with self._session() as session:
            user = session.getLoggedInUser()
            return str(user["name"]) if user else ""


def check_koji(api: str, site: str) -> CheckResult:
    """Log in to the hub of the site's block, as runs do."""
    profile = koji_profile(api, site)
    # koji's patience with a hub is for builds; here a person waits, and the check has a deadline.
    brief = dataclasses.replace(profile, timeout=ANSWER_SECONDS, retries=1, retry_interval=0.5)
    account = KojiAccount(brief).account()
    if account:
        return CheckResult(True, f"logged in to {profile.server} as {account}")
    return CheckResult(
        False,
        f"{profile.server} answers, but we have no account: the block {KOJI_BLOCK}/{site} logs in by {profile.auth}",
        "scratch builds need an account: gssapi, ssl or password",
    )


def check_artifacts(api: str, site: str) -> CheckResult:
    """Put a file into the site's artifact store, and remove it."""
    try:
        values = block_values(api, STORE_BLOCK, site)
    except NoBlock:
        return CheckResult(True, f"they stay on this host: there is no block {STORE_BLOCK}/{site}")
    ArtifactStore(values["url"], values["options"]).probe()
    return CheckResult(True, f"{values['url']} can be written to")


def check_broker(url: str, exchange: str) -> CheckResult:
    """Log in to the broker and look for the exchange that messages are published to."""
    check_exchange(url, exchange)
    where = urlsplit(url)
    return CheckResult(
        True, f"logged in to {where.hostname} as {where.username or 'guest'}; the exchange {exchange} is there"
    )


def check_prefect(api: str) -> CheckResult:
    """Ask the server for its version, and compare it with that of our own Prefect."""
    with PrefectApi(api, patience=0) as prefect:
        return judge_prefect(prefect.version(), metadata.version("prefect"))


def check_ledger(url: str) -> CheckResult:
    """Open the ledger for writing; one that is not there is not made."""
    file = file_of(url)
    if file is not None and not file.exists():
        return CheckResult(False, f"there is no ledger {file}", "DISTGATE_LEDGER_URL names it; the intake begins one")
    ledger = Ledger(url)
    try:
        with ledger.transaction():
            return CheckResult(True, f"opens for writing, schema {SCHEMA}")
    finally:
        ledger.close()


def check_clock(api: str, site: str) -> CheckResult:
    """Compare our clock with the servers that we share times with: Prefect's, and the hub's where it is known."""
    readers = {"Prefect": partial(read_clock, "Prefect", f"{api}/health"), "Koji": partial(_hub, api, site)}
    readings, silent = [], {}
    for server, read in readers.items():
        try:
            readings.append(read())
        except DistgateError as error:
            silent[server] = error.message
    return judge_clock(readings, silent)


def read_clock(server: str, url: str, ca: str = "") -> Reading:
    """The clock behind ``url``, which need not be a page that exists; ``ca`` is the file of its authority.

    Raises InfrastructureError when it does not answer, or answers without a date.
    """
    sent = time.time()
    answer = _get(url, ca=ca)
    received = time.time()
    try:
        date = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError) as error:
        raise InfrastructureError(f"{url} answers without a date") from error
    return Reading(server, sent, received, date)


def koji_profile(api: str, site: str) -> KojiProfile:
    """Where the hub of ``site`` is and who we are there, from its block document; see KojiInstance.hub."""
    values = block_values(api, KOJI_BLOCK, site)
    names = {field.name for field in dataclasses.fields(KojiProfile)}
    try:
        return KojiProfile(**{name: value for name, value in values.items() if name in names})
    except TypeError as error:
        raise ConfigurationError(f"the block {KOJI_BLOCK}/{site} is incomplete: {error}") from error


def block_values(api: str, kind: str, name: str) -> dict[str, Any]:
    """The values of a block document; see PrefectApi.block."""
    with PrefectApi(api, patience=0) as prefect:
        return prefect.block(kind, name)


def _hub(api: str, site: str) -> Reading:
    profile = koji_profile(api, site)
    return read_clock("Koji", profile.server, profile.serverca)


def _get(url: str, *, ca: str = "") -> httpx.Response:
    try:
        verify = ssl.create_default_context(cafile=ca or None)
        # trust_env=False: no proxy of the environment stands between us and what runs will speak to.
        with httpx.Client(timeout=ANSWER_SECONDS, trust_env=False, verify=verify) as client:
            return client.get(url)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ConfigurationError(f"{url} is no URL: {error}", hint="PREFECT_API_URL names the API") from error
    except (httpx.HTTPError, OSError) as error:
        raise InfrastructureError(
            f"{url} does not answer: {error or type(error).__name__}", hint="is the server up, and its address right?"
        ) from error
