"""The doctor's looks at real things that work, and at real ones that are broken."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from koji_world import KojiWorld, koji_world
from small_disk import small_disk

from distgate.doctor import host, services
from distgate.doctor.checks import Check, examine
from distgate.doctor.report import CheckResult, Report
from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.ledger.ledger import Ledger
from distgate.process import run
from lab.servers.ports import free_ports
from lab.servers.prefect_server import PrefectServer
from lab.servers.rabbitmq import EXCHANGE, Broker

GIB = 1024**3
SAVE = """
import json, sys
from blocks import KojiInstance
for name, values in json.loads(sys.argv[1]).items():
    KojiInstance(auth="password", user="koji", **values).save(name)
"""


# -- one check does not hide another -----------------------------------------------------------------------------


def refuse() -> CheckResult:
    raise ConfigurationError("the hub refused us", hint="look at the keytab", evidence="a log\nits last line\n")


def trip() -> CheckResult:
    return CheckResult(True, str(Path("/nonexistent/file").read_text()))


def test_a_check_that_fails_breaks_or_hangs_is_a_finding_of_its_own() -> None:
    released = threading.Event()

    def hang() -> CheckResult:
        released.wait(60)
        return CheckResult(True, "too late")

    def bug() -> CheckResult:
        return CheckResult(True, {}["nothing"])  # type: ignore[typeddict-item, index]

    def fine() -> CheckResult:
        return CheckResult(True, "fine")

    checks = [
        *(Check("hangs", hang), Check("hangs, too", hang, heavy=True), Check("refuses", refuse, heavy=True)),
        *(Check("trips", trip), Check("has a bug", bug), Check("is well", fine, heavy=True)),
    ]
    report = examine(checks, seconds=0.5)
    released.set()
    assert [one.name for one in report.findings] == [one.name for one in checks]
    said = {one.name: (one.ok, one.detail) for one in report.findings}
    assert said == {
        "hangs": (False, "it did not end within 0.5 s"),
        "hangs, too": (False, "it did not end within 0.5 s"),
        "refuses": (False, "the hub refused us: its last line"),
        "trips": (False, "No such file or directory: /nonexistent/file"),
        "has a bug": (False, "the check itself broke: KeyError: 'nothing'"),
        "is well": (True, "fine"),
    }
    assert all(one.hint for one in report.findings if not one.ok)


def test_checks_that_are_not_heavy_run_side_by_side() -> None:
    both = threading.Barrier(2)

    def meet() -> CheckResult:
        return CheckResult(both.wait(30) >= 0, "met")

    assert examine([Check("one", meet), Check("other", meet)], seconds=30).ok


# -- this host ---------------------------------------------------------------------------------------------------


def test_a_worker_that_can_boot_confine_and_mount_is_told_so(tmp_path: Path) -> None:
    for seen in (
        host.check_accelerator(60),
        host.check_qemu(30),
        host.check_libvirt(tmp_path / "guests"),
        host.check_sandbox(60),
        host.check_compose("auto", None),
        host.check_tmt(),
    ):
        assert seen.ok, seen


def test_without_an_emulator_the_package_to_install_is_the_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    found = [Check("kvm", lambda: host.check_accelerator(12)), Check("qemu", lambda: host.check_qemu(12))]
    report = examine(found, 30)
    assert {one.hint for one in report.findings} == {"install qemu-system-x86 (Debian) or qemu-kvm (Fedora)"}
    assert not report.ok


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte."""
    with small_disk(tmp_path / "disk", "size=1m", lazily=True) as mounted:
        yield mounted


def test_a_directory_that_is_not_made_yet_has_the_room_of_its_parent(disk: Path) -> None:
    space = host.space_in(disk / "artifacts/of/runs", "artifacts")
    assert (space.free, space.writable) == (1024**2, True)


def test_a_full_disk_is_told_with_what_is_free(disk: Path, tmp_path: Path) -> None:
    (disk / "log").write_bytes(bytes(900 * 1024))
    seen = host.check_disk(tmp_path, disk / "images", 1024**2)
    assert not seen.ok
    assert seen.detail == f"images in {disk}/images: 124 KiB free of 1.0 MiB needed"


def test_a_read_only_disk_is_told_for_all_that_is_to_be_written_there(disk: Path, tmp_path: Path) -> None:
    (disk / "images").mkdir()
    run(["mount", "-o", "remount,ro", disk], timeout=10)
    seen = host.check_disk(disk / "artifacts", tmp_path, 0)
    assert (seen.ok, seen.detail) == (False, f"artifacts in {disk}/artifacts: not writable")
    for other in (host.check_libvirt(disk / "guests"), host.check_images(disk / "images", ["rawhide"])):
        assert not other.ok
        assert other.hint


def test_a_file_where_a_directory_should_be_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "images").touch()
    assert not host.space_in(tmp_path / "images/bases", "images").writable


def test_a_store_without_bases_is_fit_and_one_that_is_not_there_is_not(tmp_path: Path) -> None:
    seen = host.check_images(tmp_path, ["rawhide"])
    assert (seen.ok, seen.detail) == (True, "a qualified base image for no branch; none for rawhide")
    assert not host.check_images(tmp_path / "none", ["rawhide"]).ok


def test_a_site_s_own_ansible_and_roles_must_be_there(tmp_path: Path) -> None:
    assert host.check_ansible({}, []).ok
    assert f"no ansible-playbook in {tmp_path}" in host.check_ansible({"f4[12]": tmp_path}, []).detail
    assert f"no directory of roles {tmp_path}/roles" in host.check_ansible({}, [tmp_path / "roles"]).detail
    (tmp_path / "ansible-playbook").touch()
    assert host.check_ansible({"f4[12]": tmp_path}, [tmp_path]).detail.endswith("others for f4[12]")


# -- servers -----------------------------------------------------------------------------------------------------


@contextmanager
def answering(headers: dict[str, str], page: bytes = b"{}") -> Iterator[str]:
    """The address of a server that answers everything with ``page``, and with no date but that in ``headers``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            for name, value in {"Content-Length": str(len(page)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/api"
        server.shutdown()
        thread.join()


#: By how many seconds the other clock is ahead; whether that is fit; a part of what is said.
CLOCKS = [
    (0, True, "within 5 s of Prefect; Koji was not asked"),
    (3600, False, "s ahead of this host"),
    (-60, False, "s behind this host"),
]


@pytest.mark.parametrize(("ahead", "fit", "said"), CLOCKS)
def test_a_clock_is_compared_by_the_date_of_an_answer(ahead: float, fit: bool, said: str) -> None:
    with answering({"Date": formatdate(time.time() + ahead, usegmt=True)}) as api:
        seen = services.check_clock(api, "nosuch")
    assert seen.ok is fit
    assert said in seen.detail


@pytest.mark.parametrize("headers", [{}, {"Date": "yesterday"}], ids=["no date", "no time"])
def test_an_answer_without_a_date_is_no_clock(headers: dict[str, str]) -> None:
    with answering(headers) as api:
        seen = services.check_clock(api, "nosuch")
    assert not seen.ok
    assert "answers without a date" in seen.detail


def nobody() -> str:
    return f"http://127.0.0.1:{free_ports(1)[0]}/api"


#: What is looked at, and the class of its error, while nobody listens there.
AWAY: list[tuple[Callable[[], CheckResult], type[DistgateError], str]] = [
    (lambda: services.check_prefect(nobody()), InfrastructureError, "does not answer"),
    (lambda: services.check_koji(nobody(), "fedora"), InfrastructureError, "koji-instance/fedora cannot be read"),
    (
        lambda: services.check_broker(nobody().replace("http", "amqp"), EXCHANGE),
        InfrastructureError,
        "cannot be reached",
    ),
    (lambda: services.check_prefect("localhost:4200/api"), ConfigurationError, "is no URL"),
    (lambda: services.check_koji("localhost:4200/api", "fedora"), ConfigurationError, "is no URL"),
    (lambda: services.check_ledger("sqlite:ledger.db"), ConfigurationError, "cannot be opened"),
]


@pytest.mark.parametrize(("look", "error", "said"), AWAY)
def test_a_server_that_is_away_or_misnamed_is_an_error_with_a_hint(
    look: Callable[[], CheckResult], error: type[DistgateError], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        look()
    assert caught.value.hint


@pytest.mark.parametrize("page", [b"<html>", b"[]", b"{}", b'{"data": 7, "block_schema": {"fields": {}}}'])
def test_a_page_for_people_is_no_block_and_no_version(page: bytes) -> None:
    with answering({}, page) as api:
        with pytest.raises(InfrastructureError, match="no block document"):
            services.check_koji(api, "fedora")
        checked = examine([Check("prefect", lambda: services.check_prefect(api))])
    assert not checked.ok
    assert "bug" not in checked.findings[0].hint


def test_the_broker_s_exchange_and_our_account_there_are_proved(broker: Broker) -> None:
    seen = services.check_broker(broker.url, EXCHANGE)
    assert seen.ok
    assert f"the exchange {EXCHANGE} is there" in seen.detail
    with pytest.raises(ConfigurationError, match="nosuch"):
        services.check_broker(broker.url, "nosuch")
    address = broker.url.rpartition("@")[2]
    wrong = f"amqp://jane:s3cret@{address}"
    with pytest.raises(ConfigurationError, match="refuses us") as caught:
        services.check_broker(wrong, EXCHANGE)
    assert "s3cret" not in str(caught.value)


def test_a_ledger_opens_with_our_schema_and_is_never_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    assert not services.check_ledger(url).ok
    assert list(tmp_path.iterdir()) == []
    Ledger(url).close()
    assert services.check_ledger(url).ok
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE schema SET version = 1"))
    engine.dispose()
    with pytest.raises(ConfigurationError, match="has schema 1"):
        services.check_ledger(url)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[KojiWorld]:
    with koji_world(tmp_path_factory.mktemp("doctor"), cache) as running:
        yield running


@pytest.fixture(scope="module")
def sites(hub: KojiWorld, prefect_server: PrefectServer) -> str:
    """The address of a Prefect server that knows a site that may log in, one that may not, and one without a hub."""
    known = {
        "healthy": {"server": hub.profile.server, "password": "koji"},
        "refused": {"server": hub.profile.server, "password": "wrong"},
        "away": {"server": nobody(), "password": "koji"},
    }
    words = [sys.executable, "-c", SAVE, json.dumps(known)]
    run(words, timeout=180, env=prefect_server.environment, cwd=Path(__file__).parents[2])
    return prefect_server.api_url


def check_site(api: str, site: str) -> Report:
    return examine([Check("koji", lambda: services.check_koji(api, site))])


#: The site, whether its hub lets us in, a part of what is said.
SITES = [
    ("healthy", True, "as koji"),
    ("refused", False, "refused us: invalid username or password"),
    ("away", False, "cannot reach the hub"),
    ("nosuch", False, "there is no block koji-instance/nosuch"),
]


@pytest.mark.parametrize(("site", "fit", "said"), SITES, ids=[case[0] for case in SITES])
def test_koji_is_asked_with_the_credentials_of_the_site_s_block(sites: str, site: str, fit: bool, said: str) -> None:
    (found,) = check_site(sites, site).findings
    assert found.ok is fit, found
    assert said in found.detail
    assert found.ok or found.hint


def test_a_real_server_is_compatible_and_its_clock_and_the_hub_s_are_ours(sites: str) -> None:
    assert services.check_prefect(sites).ok
    seen = services.check_clock(sites, "healthy")
    assert (seen.ok, seen.detail) == (True, "within 5 s of Prefect, Koji")


# -- the artifact store ------------------------------------------------------------------------------------------


SAVE_STORE = "import sys; from blocks import ArtifactStore; ArtifactStore(url=sys.argv[1]).save(sys.argv[2])"


def test_a_store_that_takes_a_file_is_fit_and_so_is_a_site_without_one(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    (tmp_path / "a file").touch()
    for site, url in {"kept": f"{tmp_path}/store", "broken": f"{tmp_path}/a file/store"}.items():
        run([sys.executable, "-c", SAVE_STORE, url, site], timeout=120, env=prefect_server.environment)
    seen = services.check_artifacts(prefect_server.api_url, "kept")
    assert (seen.ok, seen.detail) == (True, f"{tmp_path}/store can be written to")
    assert list((tmp_path / "store").iterdir()) == []
    assert "they stay on this host" in services.check_artifacts(prefect_server.api_url, "elsewhere").detail
    with pytest.raises(InfrastructureError, match="a file/store does not do its work"):
        services.check_artifacts(prefect_server.api_url, "broken")
