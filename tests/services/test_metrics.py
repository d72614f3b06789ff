"""The Prometheus endpoint, and the dashboard and alerts that hold on to its names."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tiny_bases import Bench

from distgate.bus.announce import Announcer
from distgate.changes.change import Change
from distgate.changes.triage import Decision
from distgate.errors import ConfigurationError
from distgate.files import tail_of
from distgate.ledger.ledger import Ledger
from distgate.ledger.rejections import reject
from distgate.ledger.runs import RunFacts
from distgate.ledger.tables import OUTBOX
from distgate.operations.figures import StageEnds, same_error
from distgate.process import run
from distgate.reports.outbox import ReportOutbox
from distgate.settings import Settings
from distgate.waiting import wait_for
from lab.servers.prefect_server import PrefectServer
from lab.sites.entrance import start_service
from services.metrics import LedgerCollector, listen

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy/grafana/distgate.json"
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
ALERTS_TEST = ROOT / "tests/data/alerts_test.yml"
STAGES = [("package", "running"), ("package", "complete"), ("image", "running"), ("image", "complete")]
#: A name in an expression is a family's with one of these.
SUFFIXES = ("", "_total", "_bucket", "_sum", "_count")


def write(ledger: Ledger, name: str, status: str, **facts: str) -> None:
    """A run with the messages of two stages, the second of which took 40 s."""
    change = Change(namespace="rpms", repo=name, rev=f"{len(name):040x}", branch="f41", username="jane")
    announcer = Announcer(ledger, Settings())
    ledger.record(change, Decision("queued", "is tested", "accepted", change=change))
    ledger.claim(change, name, f"http://ui/{name}")
    for suffix, state in STAGES:
        announcer.stage(name, suffix, state)
    ledger.record_facts(name, RunFacts.model_validate(facts))
    announcer.close(name, status)  # type: ignore[arg-type]
    later = sa.case((OUTBOX.c.topic.endswith(".image.complete"), 40), else_=0)
    with ledger.transaction() as connection:
        mine = OUTBOX.update().where(OUTBOX.c.run_id == name)
        connection.execute(mine.values(created_at=time.time() - 1000 + later))


@pytest.fixture
def ledger(ledger_url: str) -> Ledger:
    """Runs of every kind, one message that was refused, one change that waits, one channel of reports."""
    made = Ledger(ledger_url)
    ReportOutbox(made, "matrix")
    write(made, "well", "SUCCESS")
    write(made, "red", "UNSTABLE", blame="package", sentence="red f41: 2 of 3 tests failed")
    for number in range(3):
        said = f"broken{number} f41 000000{number}: task {number}17 of the hub was lost (blame: infrastructure)"
        write(made, f"broken{number}", "FAILURE", blame="infrastructure", sentence=said)
    write(made, "lost", "ABORTED")
    waiting = Change(namespace="rpms", repo="waits", rev="cd" * 20, branch="f41", username="jane")
    made.record(waiting, Decision("queued", "is tested", "accepted", change=waiting))
    reject(made, "m-1", "org.example", "no commit")
    return made


def site(tmp_path: Path, ledger_url: str, **other: Any) -> Settings:
    own = {"ledger_url": ledger_url, "guests_dir": tmp_path, "image_store": tmp_path / "images"}
    return Settings(**own | other)


def scrape(figures: LedgerCollector) -> dict[str, Any]:
    """Families by name."""
    registry = CollectorRegistry()
    registry.register(figures)
    return {family.name: family for family in registry.collect()}


def values(family: Any) -> dict[tuple[str, ...], float]:
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


@contextmanager
def endpoint(tmp_path: Path, ledger_url: str, **other: str) -> Iterator[str]:
    """The service as a process of its own."""
    own = {
        "DISTGATE_LEDGER_URL": ledger_url,
        "DISTGATE_GUESTS_DIR": str(tmp_path),
        "DISTGATE_IMAGE_STORE": str(tmp_path / "images"),
        "DISTGATE_METRICS_LISTEN": "127.0.0.1:0",
    }
    log = tmp_path / "metrics.log"
    process = start_service("metrics", own | other, log)
    try:
        at = re.compile(r"http://\S+/metrics")
        yield wait_for("the endpoint", lambda: at.search(tail_of(log)), 60, evidence=lambda: tail_of(log)).group()
    finally:
        process.terminate()
        assert process.wait(30) == 0, tail_of(log)


def test_runs_are_counted_by_pipeline_verdict_and_blame(ledger: Ledger, ledger_url: str, tmp_path: Path) -> None:
    found = scrape(LedgerCollector(site(tmp_path, ledger_url)))
    assert values(found["distgate_runs_ended"]) == {
        ("allpackages", "SUCCESS", ""): 1,
        ("allpackages", "UNSTABLE", "package"): 1,
        ("allpackages", "FAILURE", "infrastructure"): 3,
        ("allpackages", "ABORTED", "unknown"): 1,
    }
    assert values(found["distgate_changes"]) == {("allpackages", "queued"): 7}
    assert values(found["distgate_queue_length"]) == {("allpackages",): 1, ("atomic",): 0}
    assert values(found["distgate_dead_letters"]) == {(): 1}
    assert values(found["distgate_outbox_messages"]) == {(): 6 * (len(STAGES) + 1)}
    assert 990 < values(found["distgate_outbox_oldest_age_seconds"])[()] < 1100
    assert values(found["distgate_reports_pending"]) == {("matrix",): 6 * (len(STAGES) + 1)}


def test_the_same_error_of_several_runs_is_one_however_its_numbers_differ(
    ledger: Ledger, ledger_url: str, tmp_path: Path
) -> None:
    ((key, count),) = values(scrape(LedgerCollector(site(tmp_path, ledger_url)))["distgate_same_error_runs"]).items()
    assert (key, count) == (("infrastructure", "task N of the hub was lost (blame: infrastructure)"), 3)
    assert same_error("no title at all 0123456789abcdef") == "no title at all N"


def test_a_stage_is_measured_once_however_often_it_is_scraped(
    ledger: Ledger, ledger_url: str, tmp_path: Path
) -> None:
    figures = LedgerCollector(site(tmp_path, ledger_url))
    for _ in range(2):
        found = scrape(figures)["distgate_stage_duration_seconds"]
    image = {
        sample.labels.get("le", sample.name[-3:]): sample.value
        for sample in found.samples
        if sample.labels["stage"] == "image"
    }
    assert (image["30.0"], image["60.0"], image["+Inf"], image["sum"]) == (0, 6, 6, 240)
    write(ledger, "another", "SUCCESS")
    after = scrape(figures)["distgate_stage_duration_seconds"]
    assert {one.value for one in after.samples if one.name.endswith("_count")} == {7}


def test_stages_without_an_end_are_forgotten_with_their_run(ledger: Ledger) -> None:
    ends = StageEnds()
    assert len(list(ends.read(ledger))) == 12
    assert list(ends.read(ledger)) == []
    assert ends._began == {}


def test_a_ledger_that_is_away_is_a_figure_and_no_crash(tmp_path: Path) -> None:
    found = scrape(LedgerCollector(site(tmp_path, "sqlite:////proc/nowhere/ledger.db")))
    assert values(found["distgate_up"]) == {(): 0}
    assert "distgate_runs_ended" not in found
    assert values(found["distgate_guests"]) == {("running",): 0, ("held",): 0}


def test_a_ledger_that_comes_back_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "gone").write_text("no directory")
    figures = LedgerCollector(site(tmp_path, f"sqlite:///{tmp_path}/gone/ledger.db"))
    assert values(scrape(figures)["distgate_up"]) == {(): 0}
    (tmp_path / "gone").unlink()
    assert values(scrape(figures)["distgate_up"]) == {(): 1}


def test_an_empty_ledger_has_every_figure_that_needs_no_run(ledger_url: str, tmp_path: Path) -> None:
    found = scrape(LedgerCollector(site(tmp_path, ledger_url)))
    assert values(found["distgate_up"]) == {(): 1}
    assert values(found["distgate_last_trigger_timestamp_seconds"]) == {(): 0}
    assert values(found["distgate_runs_running"]) == {("allpackages",): 0, ("atomic",): 0}


def test_the_limits_that_runs_wait_for_are_shown_with_who_holds_them(
    tmp_path: Path, prefect_server: PrefectServer
) -> None:
    api, name = prefect_server.api_url, f"koji-{uuid4().hex[:8]}"
    for made in (name, f"mine-{name}"):
        httpx.post(f"{api}/v2/concurrency_limits/", json={"name": made, "limit": 3}).raise_for_status()
    httpx.post(f"{api}/v2/concurrency_limits/increment", json={"names": [name], "slots": 2}).raise_for_status()
    found = scrape(LedgerCollector(site(tmp_path, f"sqlite:///{tmp_path}/ledger.db", prefect_api_url=api)))
    assert values(found["distgate_slots"])[(name,)] == 3
    assert values(found["distgate_slots_taken"])[(name,)] == 2
    assert (f"mine-{name}",) not in values(found["distgate_slots"])


def test_the_endpoint_speaks_prometheus_on_loopback_alone(ledger: Ledger, ledger_url: str, tmp_path: Path) -> None:
    with endpoint(tmp_path, ledger_url) as url:
        assert url.startswith("http://127.0.0.1:")
        text = httpx.get(url, timeout=60).text
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"distgate_up", "distgate_build_info", "distgate_stage_duration_seconds"} <= names


@pytest.mark.parametrize("wrong", ["9840", "localhost:", "127.0.0.1:99999", ""])
def test_a_listening_address_that_is_none_is_named(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="DISTGATE_METRICS_LISTEN"):
        listen(site(tmp_path, "sqlite://", metrics_listen=wrong))


# -- dashboard and alerts --


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    return [target["expr"] for panel in panels for target in panel["targets"]] + [rule["expr"] for rule in rules]


def test_dashboard_and_alerts_name_only_what_the_endpoint_has_and_it_has_nothing_unseen(
    ledger: Ledger, ledger_url: str, tmp_path: Path, prefect_server: PrefectServer
) -> None:
    bench = Bench(tmp_path / "images", tmp_path / "repository")
    bench.store.base(bench.definition())
    families = scrape(LedgerCollector(site(tmp_path, ledger_url, prefect_api_url=prefect_server.api_url)))
    assert {key: 0 <= age < 300 for key, age in values(families["distgate_base_age_seconds"]).items()} == {
        ("f41", bench.definition().name): True
    }
    known = {f"{family}{suffix}" for family in families for suffix in SUFFIXES}
    used = {name for expression in expressions() for name in re.findall(r"distgate_\w+", expression)}
    assert used - known == set()
    assert {one for one in families if not any(f"{one}{suffix}" in used for suffix in SUFFIXES)} == set()


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert (board["uid"], board["title"]) == ("distgate", "distgate")
    assert isinstance(board["schemaVersion"], int)
    assert "id" not in board, "Grafana gives numbers itself"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, f"{panel['title']} lies on another panel"
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["refId"] and target["expr"] for target in panel["targets"])
    variables = {one["name"] for one in board["templating"]["list"]}
    assert {name for one in expressions() for name in re.findall(r"\$(\w+)", one)} <= variables


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    page = (ROOT / "docs/metrics.md").read_text()
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        assert rule["alert"] in page, f"docs/metrics.md says nothing of {rule['alert']}"


def test_every_alert_is_shown_to_fire_and_to_be_silent() -> None:
    shown = [one for part in yaml.safe_load(ALERTS_TEST.read_text())["tests"] for one in part["alert_rule_test"]]
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    names = {rule["alert"] for rule in group["rules"]}
    assert {one["alertname"] for one in shown if one.get("exp_alerts")} == names
    assert {one["alertname"] for one in shown if not one.get("exp_alerts")} >= names - {"DistgateRunsFailOnOurSide"}


# Debian's package would start a Prometheus on whatever host runs the tests: ./run does not install it.
@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool comes with Debian's package prometheus")
@pytest.mark.parametrize("words", [("check", "rules", ALERTS), ("test", "rules", ALERTS_TEST)])
def test_the_alerts_fire_when_they_should_says_promtool(words: tuple[str | Path, ...]) -> None:
    assert "SUCCESS" in run(["promtool", *words], timeout=60).output
