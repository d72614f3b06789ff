"""The artifacts of a run lie where its site wants them, and come from there to another host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from object_store import ObjectStore, running_object_store

from blocks import ArtifactStore as ArtifactStoreBlock
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.runs.artifact_store import INDEX, LIST, ArtifactStore

RUN = "4f7c2a"
Opened = Callable[[], ArtifactStore]
NO_TEXT = os.fsdecode(b"results/na\xefve.log")
FILES = {
    "run.json": "{}",
    "build/root.log": "root",
    "tests/a b#c?.xml": "<x/>",
    "tests/page.html": "<script>",
    "image/x.qcow2": "QFI",
    NO_TEXT: "latin",
}


@pytest.fixture(scope="module")
def s3() -> Iterator[ObjectStore]:
    with running_object_store() as running:
        yield running


@pytest.fixture(params=["directory", "file", "s3"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, s3: ObjectStore) -> Opened:
    """Opens one store anew, as another process would."""
    urls = {"directory": str(tmp_path / "a store"), "file": f"file://{tmp_path}/store", "s3": f"{s3.bucket()}/runs/"}
    options = s3.options if request.param == "s3" else {}
    return lambda: ArtifactStore(urls[request.param], options)


def filled(room: Path) -> Path:
    for name, content in FILES.items():
        path = room / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return room


def content(room: Path) -> dict[str, str]:
    files = (path for path in room.rglob("*") if path.is_file() and path.name != LIST)
    return {str(path.relative_to(room)): path.read_text() for path in files}


def test_another_host_gets_what_was_kept(tmp_path: Path, opened: Opened) -> None:
    assert opened().upload(filled(tmp_path / "here" / RUN)) == len(FILES)
    assert opened().download(RUN, tmp_path / "there")
    assert content(tmp_path / "there" / RUN) == FILES
    assert [path.name for path in (tmp_path / "there").iterdir()] == [RUN]


def test_only_what_changed_is_copied_and_what_is_gone_is_removed(tmp_path: Path, opened: Opened) -> None:
    room = filled(tmp_path / "here" / RUN)
    opened().upload(room)
    assert opened().upload(room) == 0
    (room / "run.json").write_text("[]")
    shutil.rmtree(room / "tests")
    assert opened().upload(room) == 1
    opened().download(RUN, tmp_path / "there")
    assert content(tmp_path / "there" / RUN) == content(room)
    assert "tests/page.html" not in content(room)


def test_two_hosts_take_turns_at_a_run(tmp_path: Path, opened: Opened) -> None:
    here, there = tmp_path / "here" / RUN, tmp_path / "there" / RUN
    opened().upload(filled(here))
    opened().download(RUN, there.parent)
    (there / "run.json").write_text('{"by": "there"}')
    (there / "build" / "root.log").unlink()
    assert opened().upload(there) == 1
    (here / "stale.log").write_text("of the try before")
    opened().download(RUN, here.parent)
    assert content(here) == content(there)


def test_a_host_that_has_the_last_copy_keeps_what_it_learnt_since(tmp_path: Path, opened: Opened) -> None:
    room = filled(tmp_path / RUN)
    opened().upload(room)
    (room / "later.log").write_text("of a run that was killed")
    assert opened().download(RUN, tmp_path)
    assert (room / "later.log").exists()


def test_links_and_pipes_that_tests_left_are_not_followed(tmp_path: Path, opened: Opened) -> None:
    room = filled(tmp_path / "here" / RUN)
    (room / "tests" / "secret.log").symlink_to("/etc/passwd")
    (room / "everything").symlink_to("/etc")
    os.mkfifo(room / "tests" / "pipe.log")
    assert opened().upload(room) == len(FILES)
    opened().download(RUN, tmp_path / "there")
    assert content(tmp_path / "there" / RUN) == FILES


def test_a_run_that_nobody_kept_is_not_brought(tmp_path: Path, opened: Opened) -> None:
    assert not opened().download(RUN, tmp_path)
    assert list(tmp_path.glob("*/run.json")) == []


def test_runs_are_listed_and_dropped(tmp_path: Path, opened: Opened) -> None:
    assert opened().runs() == []
    for run in ("one", "two"):
        opened().upload(filled(tmp_path / "here" / run))
    assert opened().runs() == ["one", "two"]
    opened().remove("one")
    opened().remove("never")
    assert opened().runs() == ["two"]
    assert not opened().download("one", tmp_path)


def test_the_index_leads_to_every_file(tmp_path: Path, s3: ObjectStore) -> None:
    url = s3.bucket()
    ArtifactStore(url, s3.options).upload(filled(tmp_path / RUN))
    page = s3.files().cat_file(f"{url}/{RUN}/{INDEX}").decode()
    assert '<a href="tests/a%20b%23c%3F.xml">tests/a b#c?.xml</a>' in page
    assert page.count("<li>") == len(FILES)


KINDS = {
    "build/root.log": "text/plain; charset=utf-8",
    "run.json": "text/plain; charset=utf-8",
    "tests/page.html": "text/plain; charset=utf-8",
    "image/x.qcow2": "application/octet-stream",
    INDEX: "text/html; charset=utf-8",
}


def test_a_browser_shows_text_and_runs_no_page_of_a_strangers(tmp_path: Path, s3: ObjectStore) -> None:
    url = s3.bucket()
    ArtifactStore(url, s3.options).upload(filled(tmp_path / RUN))
    assert {name: s3.files().info(f"{url}/{RUN}/{name}")["ContentType"] for name in KINDS} == KINDS


def test_a_store_that_is_away_is_our_infrastructure(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    store = ArtifactStore(str(tmp_path / "a file" / "store"))
    with pytest.raises(InfrastructureError, match="a file/store does not do its work: NotADirectoryError"):
        store.upload(filled(tmp_path / RUN))
    assert not (tmp_path / RUN / LIST).exists()


def test_a_bucket_that_does_not_exist_is_our_infrastructure(tmp_path: Path, s3: ObjectStore) -> None:
    with pytest.raises(InfrastructureError, match=r"s3://nowhere/runs does not do its work: .*bucket does not exist"):
        ArtifactStore("s3://nowhere/runs", s3.options).upload(filled(tmp_path / RUN))


def test_a_url_that_nothing_understands_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the artifact store gopher://here cannot be opened") as refused:
        ArtifactStore("gopher://here")
    assert "a URL that fsspec understands" in refused.value.hint


def test_a_site_says_where_its_store_is(tmp_path: Path, s3: ObjectStore) -> None:
    url = s3.bucket()
    block = ArtifactStoreBlock(url=url, options=s3.options)
    block.store().upload(filled(tmp_path / RUN))
    assert ArtifactStore(url, s3.options).runs() == [RUN]
    assert "tests" not in repr(block)
