"""What a run made lies in the site's artifact store when a stage ends, and comes from there to another worker."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from prefect import get_run_logger

from blocks import ArtifactStore
from distgate.errors import DistgateError
from distgate.settings import settings

if TYPE_CHECKING:
    from distgate.runs.artifact_store import ArtifactStore as Store

P = ParamSpec("P")
R = TypeVar("R")


def artifacts_dir() -> Path:
    """Where runs of this host have their directories."""
    return settings().artifacts_dir.resolve()


@cache
def artifact_store(site: str) -> Store | None:
    """The artifact store of a site; None where artifacts stay on the host that made them."""
    document = ArtifactStore.saved(site)
    return document.store() if document else None


def upload(site: str, run_dir: Path) -> None:
    """Copy what is new in a run's directory to the site's store. Raises InfrastructureError when that cannot be
    reached."""
    store = artifact_store(site)
    if store is not None:
        store.upload(run_dir)


def upload_or_log(site: str, run_dir: Path) -> None:
    """``upload``, for when the outcome of a run must stand whether its artifacts can be copied or not."""
    try:
        upload(site, run_dir)
    except DistgateError as error:
        get_run_logger().error("the artifacts in %s are on this host only: %s", run_dir, error)


def download(site: str, run_id: str) -> None:
    """Have the artifacts of an earlier attempt, or of an earlier run, on this host, if the store has them."""
    store = artifact_store(site)
    if store is not None and store.download(run_id, artifacts_dir()):
        get_run_logger().info("the artifacts of run %s are as %s has them", run_id, store.url)


def uploads_artifacts(stage: Callable[P, R]) -> Callable[P, R]:
    """Let a stage, whose first argument is the job, end when its artifacts are in the store: messages name them."""

    @wraps(stage)
    def and_upload(*args: P.args, **kwargs: P.kwargs) -> R:
        job: Any = args[0]
        try:
            result = stage(*args, **kwargs)
        except Exception:
            upload_or_log(job.site, job.run_dir.root)
            raise
        upload(job.site, job.run_dir.root)
        return result

    return and_upload
