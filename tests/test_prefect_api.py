"""The client of Prefect's REST API: against a real server, and against one that has bad days."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from uuid import uuid4

import httpx
import pytest

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.prefect_api import PrefectApi
from distgate.waiting import wait_for
from lab.servers.ports import free_ports
from lab.servers.prefect_server import PrefectServer

RESOURCE = {"prefect.resource.id": "distgate.test"}


class BadDays(HTTPServer):
    """Answers with each of ``statuses`` once, then with 200, and remembers what it was sent."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses, self.bodies = statuses, list[Any]()
        self.page = b"[]"
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api"


class _Handler(BaseHTTPRequestHandler):
    server: BadDays

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(self.server.page)))
        self.end_headers()
        self.wfile.write(self.server.page)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def bad_days(request: pytest.FixtureRequest) -> Iterator[BadDays]:
    with BadDays(list(request.param)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def deployment(prefect_server: PrefectServer) -> str:
    """A deployment that nobody runs, made over the API."""
    with httpx.Client(base_url=f"{prefect_server.api_url}/", trust_env=False, timeout=30) as client:
        # Prefect answers 503 while another writer holds its SQLite; both calls may be repeated.
        flow = wait_for("a flow", lambda: _made(client, "flows/", {"name": "quiet"}), 60)
        wish = {"name": "test", "flow_id": flow["id"]}
        wait_for("a deployment", lambda: _made(client, "deployments/", wish), 60)
    return "quiet/test"


def _made(client: httpx.Client, path: str, wish: dict[str, str]) -> dict[str, Any] | None:
    answer = client.post(path, json=wish)
    return answer.json() if answer.is_success else None


@pytest.fixture
def api(prefect_server: PrefectServer) -> Iterator[PrefectApi]:
    with PrefectApi(prefect_server.api_url) as client:
        yield client


def event(**payload: Any) -> dict[str, Any]:
    return {"event": "distgate.test", "resource": RESOURCE, "payload": payload}


def test_the_same_idempotency_key_gives_the_same_run(api: PrefectApi, deployment: str) -> None:
    key = uuid4().hex
    first = api.create_flow_run(deployment, {"rev": "a"}, idempotency_key=key, tags=["rpms", "f41"], name="bash f41")
    again = api.create_flow_run(deployment, {"rev": "a"}, idempotency_key=key)
    assert again.id == first.id
    assert (first.name, first.parameters, first.idempotency_key) == ("bash f41", {"rev": "a"}, key)
    assert set(first.tags) >= {"rpms", "f41"}
    assert first.state_type == "SCHEDULED"
    assert not first.finished


def test_runs_are_found_by_id_tag_state_and_deployment(api: PrefectApi, deployment: str) -> None:
    tag = uuid4().hex
    runs = [api.create_flow_run(deployment, {}, idempotency_key=uuid4().hex, tags=[tag]) for _ in range(3)]
    ids = {one.id for one in runs}
    assert {one.id for one in api.flow_runs(tags=[tag])} == ids
    assert {one.id for one in api.flow_runs(tags=[tag], state_types=["SCHEDULED"])} == ids
    assert api.flow_runs(tags=[tag], state_types=["RUNNING"]) == []
    assert {one.id for one in api.flow_runs(deployment=deployment)} >= ids
    assert [one.id for one in api.flow_runs(ids=[runs[0].id])] == [runs[0].id]
    assert len(api.flow_runs(tags=[tag], limit=2)) == 2
    found = api.flow_run(runs[1].id)
    assert found
    assert found.id == runs[1].id
    assert api.flow_run(str(uuid4())) is None
    assert api.flow_runs(ids=[]) == []


def test_a_deployment_that_was_not_made_is_a_mistake_in_the_configuration(api: PrefectApi) -> None:
    with pytest.raises(ConfigurationError, match="404") as caught:
        api.create_flow_run("all-packages/nowhere", {}, idempotency_key="x")
    assert "prefect deploy" in caught.value.hint


def test_an_event_is_accepted(api: PrefectApi) -> None:
    api.post_event(event(change="a"))


def test_an_event_that_prefect_cannot_read_is_a_mistake_and_quotes_prefect(api: PrefectApi) -> None:
    with pytest.raises(ConfigurationError, match="422") as caught:
        api.post_event({"event": "distgate.test"})
    assert "resource" in caught.value.evidence


@pytest.mark.parametrize(
    "payload",
    [
        {"__prefect_kind": "workspace_variable", "variable_name": "secret"},
        {"summary": {"__prefect_kind": "jinja", "template": "{{ 7*7 }}"}},
        {"files": [{"deep": [{"__prefect_kind": "json"}]}]},
    ],
)
def test_what_prefect_would_evaluate_never_reaches_it(payload: dict[str, Any]) -> None:
    with PrefectApi("http://127.0.0.1:9/api") as api:
        with pytest.raises(ConfigurationError, match="evaluated"):
            api.post_event(event(change=payload))
        with pytest.raises(ConfigurationError, match="evaluated"):
            api.create_flow_run("flow/deployment", {"change": payload}, idempotency_key="x")


def test_an_event_that_prefect_would_drop_for_its_size_is_refused() -> None:
    with PrefectApi("http://127.0.0.1:9/api") as api, pytest.raises(ConfigurationError, match="drops"):
        api.post_event(event(patch="x" * 1_100_000))


@pytest.mark.parametrize("bad_days", [[503, 500, 429]], indirect=True)
def test_a_server_that_has_trouble_is_asked_again_with_the_same_event(bad_days: BadDays) -> None:
    with PrefectApi(bad_days.url) as api:
        api.post_event(event(change="a"))
    assert len(bad_days.bodies) == 4
    assert len({body[0]["id"] for body in bad_days.bodies}) == 1


@pytest.mark.parametrize("bad_days", [[503] * 50], indirect=True)
def test_a_server_that_stays_in_trouble_is_infrastructure(bad_days: BadDays) -> None:
    with PrefectApi(bad_days.url, patience=0.5) as api, pytest.raises(InfrastructureError, match="503"):
        api.post_event(event(change="a"))


def test_a_server_that_is_away_is_infrastructure() -> None:
    [port] = free_ports(1)
    with PrefectApi(f"http://127.0.0.1:{port}/api", patience=0.1) as api:
        assert not api.healthy()
        with pytest.raises(InfrastructureError, match="does not answer"):
            api.version()


@pytest.mark.parametrize("bad_days", [[]], indirect=True)
def test_a_page_for_people_where_the_api_should_be_is_told(bad_days: BadDays) -> None:
    bad_days.page = b"<!doctype html><title>Prefect</title>"
    with PrefectApi(bad_days.url) as prefect, pytest.raises(ConfigurationError, match="answers with no JSON"):
        prefect.flow_runs()
