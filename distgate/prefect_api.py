"""Prefect's REST API, as the services need it: post events, start runs, read their states."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.settings import settings

log = logging.getLogger(__name__)

#: One request; a busy server on SQLite may well take seconds.
ANSWER_SECONDS = 30.0
#: Prefect accepts more than 1.5 MB with "204 No Content" and then drops it silently.
LARGEST_EVENT = 1_000_000
#: Prefect evaluates a mapping with this key wherever it meets one: templates, secrets of the workspace, anything.
EVALUATED = "__prefect_kind"
PAGE = 200


class NotFound(ConfigurationError):
    """What the server does not have."""


class NoBlock(ConfigurationError):
    """A block document that does not exist."""


@dataclass(frozen=True)
class FlowRun:
    """A run as the server knows it: ``state_type`` is PENDING, RUNNING, COMPLETED, ..., ``state_name`` finer,
    ``state_at`` when it entered its state."""

    id: str
    name: str
    state_type: str
    state_name: str
    tags: tuple[str, ...]
    created: datetime
    run_count: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    deployment_id: str | None = None
    idempotency_key: str | None = None
    state_at: datetime | None = None

    @property
    def finished(self) -> bool:
        """Whether the state is final: the run will do nothing more unless it is retried."""
        return self.state_type in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


@dataclass(frozen=True)
class Limit:
    """A global concurrency limit: how many slots it has, and how many are used."""

    name: str
    slots: int
    used: int


class PrefectApi:
    """A client of the server at ``url`` (ending in /api); a context manager, safe to use from several threads.

    ``authorization`` is the HTTP header that lets us in: by default, as for Prefect's own client, what
    PREFECT_API_AUTH_STRING or PREFECT_API_KEY holds.

    A server that cannot be reached, restarts or is busy (5xx, 429) is asked again for ``patience`` seconds; after
    that every call raises InfrastructureError. What the server refuses raises ConfigurationError with its answer.
    """

    def __init__(self, url: str, *, patience: float = 60.0, authorization: str | None = None) -> None:
        self.url, self.patience = url.rstrip("/"), patience
        authorization_text = settings().prefect_authorization if authorization is None else authorization
        headers = {"Authorization": authorization_text} if authorization_text else {}
        # trust_env=False: no proxy of the environment stands between us and our own server.
        self._client = httpx.Client(timeout=ANSWER_SECONDS, trust_env=False, headers=headers)
        self._deployments: dict[str, str] = {}

    def __enter__(self) -> PrefectApi:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def healthy(self) -> bool:
        """Whether the server answers now; asks once and never raises."""
        try:
            return self._client.get(f"{self.url}/health", timeout=5).is_success
        except (httpx.HTTPError, httpx.InvalidURL):
            return False

    def version(self) -> str:
        """The server's version of Prefect."""
        return str(_content(self._call("GET", "/admin/version")))

    def post_event(self, event: Mapping[str, Any]) -> None:
        """Send one event: event, resource, payload and what else Prefect's schema knows.

        ``id`` and ``occurred`` are made here unless given, and stay the same however often it must be sent. A
        success means that the server has it in memory, not that anything came of it; the same id twice is one
        event only for a few minutes. Raises ConfigurationError for an event that would be dropped or evaluated.
        """
        _refuse_evaluated(event, "the event")
        whole = {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), **event}
        request = self._client.build_request("POST", f"{self.url}/events", json=[whole])
        if len(request.content) > LARGEST_EVENT:
            raise ConfigurationError(
                f"the event has {len(request.content)} bytes: Prefect drops those above {LARGEST_EVENT} unseen",
                hint="put into it what the run needs, and no patch",
            )
        self._call("POST", "/events", json=[whole])

    def create_flow_run(
        self,
        deployment: str,
        parameters: Mapping[str, Any],
        *,
        idempotency_key: str,
        tags: Sequence[str] = (),
        name: str = "",
        at: datetime | None = None,
        queue: str = "",
    ) -> FlowRun:
        """Start a run of ``deployment`` ("flow/deployment"), or return the one that has the same key already.

        ``at`` is when it is to begin (None: now), ``queue`` the work queue of the deployment's pool that it waits in.
        """
        _refuse_evaluated(parameters, "the parameters")
        wish: dict[str, Any] = {
            "parameters": dict(parameters),
            "idempotency_key": idempotency_key,
            "tags": list(tags),
            "state": {"type": "SCHEDULED"}
            | ({"state_details": {"scheduled_time": at.isoformat()}} if at is not None else {}),
        }
        wish |= {"work_queue_name": queue} if queue else {}
        answer = self._call(
            "POST",
            f"/deployments/{self.deployment_id(deployment)}/create_flow_run",
            json=wish | ({"name": name} if name else {}),
        )
        return _flow_run(_content(answer))

    def deployment_id(self, deployment: str) -> str:
        """The ID of "flow/deployment"; raises ConfigurationError when it was not deployed."""
        # Remembered: a redeployment keeps the ID.
        if deployment not in self._deployments:
            path = f"/deployments/name/{quote(deployment)}"
            hint = "`prefect deploy --all` makes the deployments of prefect.yaml"
            self._deployments[deployment] = str(_content(self._call("GET", path, hint=hint))["id"])
        return self._deployments[deployment]

    def queues(self, pool: str) -> list[str]:
        """The names of a work pool's queues. Raises ConfigurationError when there is no such pool."""
        hint = "`prefect work-pool create` makes one"
        answer = self._call("POST", f"/work_pools/{quote(pool)}/queues/filter", json={"limit": PAGE}, hint=hint)
        return [str(queue["name"]) for queue in _content(answer)]

    def describe_queue(self, pool: str, queue: str, description: str) -> None:
        """Set the description of a work pool's queue, which the UI shows; the queue is made unless it is there."""
        if queue not in self.queues(pool):
            wish = {"name": queue, "description": description}
            self._call("POST", f"/work_pools/{quote(pool)}/queues", json=wish)
            return
        path = f"/work_pools/{quote(pool)}/queues/{quote(queue)}"
        self._call("PATCH", path, json={"description": description})

    def limits(self) -> list[Limit]:
        """The server's global concurrency limits, by name; PAGE of them at most."""
        rows = _content(self._call("POST", "/v2/concurrency_limits/filter", json={"limit": PAGE, "offset": 0}))
        limits = [Limit(str(row["name"]), int(row["limit"]), int(row["active_slots"])) for row in rows]
        return sorted(limits, key=lambda limit: limit.name)

    def pool_of(self, deployment: str) -> str:
        """The name of the work pool in which runs of "flow/deployment" wait."""
        path = f"/deployments/{self.deployment_id(deployment)}"
        return str(_content(self._call("GET", path))["work_pool_name"])

    def block(self, kind: str, name: str) -> dict[str, Any]:
        """The values of a block document, secrets and the defaults of its type included, without loading Prefect.

        Raises NoBlock when there is none.
        """
        path = f"/block_types/slug/{quote(kind)}/block_documents/name/{quote(name)}?include_secrets=true"
        try:
            document = self._call("GET", path).json()
            properties = document["block_schema"]["fields"]["properties"]
            defaults = {field: schema["default"] for field, schema in properties.items() if "default" in schema}
            return defaults | dict(document["data"])
        except NotFound as error:
            raise NoBlock(
                f"there is no block {kind}/{name} on {self.url}",
                hint="`prefect block register -m blocks`, then save one; DISTGATE_SITE names the site",
            ) from error
        except DistgateError as error:
            message = f"the block {kind}/{name} cannot be read: {error.message}"
            raise type(error)(message, hint=error.hint, evidence=error.evidence) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InfrastructureError(
                f"{self.url} answers, and no block document", hint="PREFECT_API_URL ends in /api"
            ) from error

    def flow_run(self, run_id: str) -> FlowRun | None:
        """The run with this ID, or None when the server does not know it."""
        runs = self.flow_runs(ids=[run_id])
        return runs[0] if runs else None

    def flow_runs(
        self,
        *,
        ids: Sequence[str] | None = None,
        tags: Sequence[str] = (),
        state_types: Sequence[str] = (),
        deployment: str = "",
        since: datetime | None = None,
        limit: int = PAGE,
    ) -> list[FlowRun]:
        """Runs, the latest first: those with one of ``ids``, all of ``tags``, one of ``state_types``, and those that
        were to start at ``since`` or later."""
        wish: dict[str, Any] = {}
        if ids is not None:
            wish["id"] = {"any_": list(ids)}
        if tags:
            wish["tags"] = {"all_": list(tags)}
        if state_types:
            wish["state"] = {"type": {"any_": list(state_types)}}
        if deployment:
            wish["deployment_id"] = {"any_": [self.deployment_id(deployment)]}
        if since is not None:
            wish["expected_start_time"] = {"after_": since.isoformat()}
        return self._pages(wish, limit)

    def crash(self, run_id: str, message: str) -> None:
        """End a run whose process has died as Crashed: it frees its slot, and can be retried."""
        self._force(run_id, {"type": "CRASHED", "name": "Crashed", "message": message})

    def cancelled(self, run_id: str, message: str) -> None:
        """End a run as Cancelled whose cancellation no worker carries out any more: it frees its slot."""
        self._force(run_id, {"type": "CANCELLED", "name": "Cancelled", "message": message})

    def _force(self, run_id: str, state: Mapping[str, str]) -> None:
        self._call("POST", f"/flow_runs/{run_id}/set_state", json={"state": state, "force": True})

    def _pages(self, wish: Mapping[str, Any], limit: int) -> list[FlowRun]:
        runs: list[FlowRun] = []
        while len(runs) < limit:
            size = min(PAGE, limit - len(runs))
            query = {"flow_runs": wish, "sort": "START_TIME_DESC", "limit": size, "offset": len(runs)}
            page = _content(self._call("POST", "/flow_runs/filter", json=query))
            runs += [_flow_run(run) for run in page]
            if len(page) < size:
                break
        return runs

    def _call(self, method: str, path: str, *, json: Any = None, hint: str = "") -> httpx.Response:
        retrying = Retrying(
            retry=retry_if_exception_type(InfrastructureError),
            wait=wait_exponential_jitter(multiplier=0.3, max=8),
            stop=stop_after_delay(self.patience),
            before_sleep=before_sleep_log(log, logging.WARNING),
            reraise=True,
        )
        answer: httpx.Response = retrying(self._once, method, path, json, hint)
        return answer

    def _once(self, method: str, path: str, json: Any, hint: str) -> httpx.Response:
        try:
            answer = self._client.request(method, f"{self.url}{path}", json=json)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ConfigurationError(f"{self.url} is no URL: {error}", hint="PREFECT_API_URL names it") from error
        except httpx.HTTPError as error:
            raise InfrastructureError(
                f"the Prefect server at {self.url} does not answer: {error!r}",
                hint="PREFECT_API_URL has to be its address",
            ) from error
        if answer.is_success:
            return answer
        sentence = f"Prefect answers {answer.status_code} to {method} {path}"
        if answer.status_code >= 500 or answer.status_code in (408, 429):
            raise InfrastructureError(sentence, evidence=answer.text[:2000])
        if answer.status_code in (401, 403):
            hint = "PREFECT_API_AUTH_STRING or PREFECT_API_KEY is what the server asks for"
        kind = NotFound if answer.status_code == 404 else ConfigurationError
        raise kind(f"{sentence}: {answer.text[:200]}", hint=hint, evidence=answer.text[:2000])


def _content(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        hint = "PREFECT_API_URL names the API, and ends in /api; does a proxy or a page for people answer?"
        raise ConfigurationError(f"{answer.url} answers with no JSON", hint=hint) from error


def _refuse_evaluated(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        if EVALUATED in value:
            raise ConfigurationError(
                f"{where} would be evaluated by Prefect: it holds {EVALUATED}",
                hint="only validated strings belong there",
            )
        for inner in value.values():
            _refuse_evaluated(inner, where)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for inner in value:
            _refuse_evaluated(inner, where)


def _flow_run(fields: Mapping[str, Any]) -> FlowRun:
    state = fields.get("state") or {}
    return FlowRun(
        id=fields["id"],
        name=fields["name"],
        state_type=fields.get("state_type") or "",
        state_name=fields.get("state_name") or "",
        tags=tuple(fields.get("tags") or ()),
        created=_moment(fields["created"]),
        run_count=fields.get("run_count") or 0,
        parameters=fields.get("parameters") or {},
        deployment_id=fields.get("deployment_id"),
        idempotency_key=fields.get("idempotency_key"),
        state_at=_moment(state["timestamp"]) if state.get("timestamp") else None,
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
