"""The channels against servers that check as the real ones do: what arrives, and what each refusal means."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_stand_ins import ROOM, TOKEN, USER, MailStandIn, StandIn, mail_stand_in, stand_in

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.reports import channels
from distgate.reports.channel import ReportChannel, channel_names, open_channel
from distgate.reports.notice import Refused, RunEvent
from distgate.settings import Settings

REV = "ab" * 20
END = RunEvent(
    message_id="0d1f3c9a-1111-4222-8333-444455556666",
    pipeline="allpackages",
    suffix="",
    state="complete",
    status="FAILURE",
    own_status="FAILURE",
    namespace="rpms",
    repo="bash",
    branch="f41",
    rev=REV,
    username="jane",
    key=f"rpms/bash@f41#{REV}",
    build_id="0b6f7c1e-7a34-4f4c-9d4e-0d5e6a1f2b3c",
    build_url="http://ui/runs/1",
    main_topic="org.centos.prod",
    created_at=1_750_000_000.0,
    nvr="bash-5.2-1.fc41",
    task_id=4711,
    blame="package",
    sentence="bash f41 abababa: it does not boot (blame: package)",
)
NOTHING = RunEvent(**{**vars(END), "suffix": "image", "state": "complete"})


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture
def post() -> Iterator[MailStandIn]:
    with mail_stand_in() as running:
        yield running


@pytest.fixture
def site(tmp_path: Path, server: StandIn, post: MailStandIn) -> Settings:
    secret = tmp_path / "secret"
    secret.write_text(f"{TOKEN}\n")
    return Settings(
        resultsdb_url=f"{server.url}/api/v2.0",
        resultsdb_secret=secret,
        dist_git_flags_url=server.url,
        dist_git_flags_token=secret,
        matrix_url=server.url,
        matrix_room=ROOM,
        matrix_token=secret,
        mail_server=post.address,
        mail_from="ci@example.org",
        mail_to=("{repo}-owner@example.org", "all@example.org"),
    )


def opened(site: Settings, name: str, **other: Any) -> ReportChannel:
    return open_channel(name, site.model_copy(update=other))


HTTP: tuple[str, ...] = ("resultsdb", "dist-git-flag", "matrix")
EVERY: tuple[str, ...] = (*HTTP, "mail")


@pytest.mark.parametrize("name", EVERY)
def test_a_notice_that_is_nothing_to_a_channel_reaches_nobody(name: str, site: Settings, server: StandIn) -> None:
    assert opened(site, name).deliver(NOTHING) is False
    assert server.requests == []


def test_resultsdb_has_one_result_even_when_a_try_ended_in_the_dark(site: Settings, server: StandIn) -> None:
    channel = opened(site, "resultsdb")
    server.faults = [None]
    with pytest.raises(InfrastructureError, match="ResultsDB"):
        channel.deliver(END)
    assert channel.deliver(RunEvent(**{**vars(END), "repeated": True}))
    (result,) = server.results
    assert (result["outcome"], result["data"]["item"], result["ref_url"]) == ("FAILED", END.nvr, END.build_url)
    assert [status for *_, status in server.requests] == [201, 200]


def test_resultsdb_takes_a_password_as_well_as_a_token(site: Settings, server: StandIn) -> None:
    assert opened(site, "resultsdb", resultsdb_user=USER).deliver(END)
    with pytest.raises(ConfigurationError, match="401"):
        opened(site, "resultsdb", resultsdb_user="somebody").deliver(END)


def test_a_flag_is_changed_and_not_doubled(site: Settings, server: StandIn) -> None:
    channel = opened(site, "dist-git-flag")
    running = RunEvent(**{**vars(END), "suffix": "package", "state": "running", "status": "SUCCESS"})
    assert [channel.deliver(one) for one in (running, END, END)] == [True, True, True]
    ((rev, _), flag), *more = server.flags.items()
    assert more == []
    assert (rev, flag["status"], flag["percent"]) == (REV, "failure", "100")
    assert flag["comment"] == "it does not boot (blame: package)"
    assert [one["status"] for one in server.flagged] == ["pending", "failure", "failure"]


def test_what_is_said_twice_stands_in_the_room_once(site: Settings, server: StandIn) -> None:
    channel = opened(site, "matrix")
    assert channel.deliver(END)
    assert channel.deliver(END)
    (said,) = server.said.values()
    assert said["msgtype"] == "m.notice"
    assert said["body"].startswith("bash f41 fails (allpackages, abababa by jane)\n")
    assert END.build_url in said["body"]


def test_a_room_that_we_have_not_joined_is_for_the_site_to_mend(site: Settings) -> None:
    with pytest.raises(ConfigurationError, match="User not in room"):
        opened(site, "matrix", matrix_room="!other:example.org").deliver(END)


def test_a_mail_goes_to_the_packages_own_people_and_says_what_changed(site: Settings, post: MailStandIn) -> None:
    assert opened(site, "mail").deliver(END)
    ((mail, recipients),) = post.mails
    assert recipients == ["bash-owner@example.org", "all@example.org"]
    assert mail["Subject"] == "bash f41 fails (allpackages, abababa by jane)"
    assert mail["Message-ID"] == f"<{END.message_id}@distgate>"
    assert END.sentence in mail.get_content()


# what the mail server says to a recipient, and what it means; the other one is served
MAIL: list[tuple[str, str, type[Exception] | None]] = [
    ("550 no such user", "550 no such user", Refused),
    ("451 greylisted, try later", "451 greylisted", InfrastructureError),
]


@pytest.mark.parametrize(("answer", "words", "means"), MAIL)
def test_a_mail_server_refuses_for_good_or_for_now(
    answer: str, words: str, means: type[Exception], site: Settings, post: MailStandIn
) -> None:
    post.answers = {"bash-owner@example.org": answer}
    with pytest.raises(means, match=words):
        opened(site, "mail", mail_to=("{repo}-owner@example.org",)).deliver(END)
    assert post.mails == []
    assert opened(site, "mail").deliver(END), "one recipient of two is enough"


def test_a_mail_server_that_is_away_is_tried_again(site: Settings) -> None:
    with pytest.raises(InfrastructureError, match="mail server"):
        opened(site, "mail", mail_server="127.0.0.1:1").deliver(END)


# the status of an answer, and what it means to a report
STATUSES: list[tuple[int, type[Exception]]] = [
    (400, Refused),
    (404, Refused),
    (413, Refused),
    (422, Refused),
    (401, ConfigurationError),
    (403, ConfigurationError),
    (408, InfrastructureError),
    (429, InfrastructureError),
    (500, InfrastructureError),
    (503, InfrastructureError),
]


@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize(("status", "means"), STATUSES)
def test_the_status_says_whether_to_try_again_to_mend_or_never(
    name: str, status: int, means: type[Exception], site: Settings, server: StandIn
) -> None:
    server.faults = [status]
    with pytest.raises(means, match=f"{status}.*a fault of the test"):
        opened(site, name).deliver(END)


# a setting that is missing or wrong, and the channel that says so
MISSING: list[tuple[str, dict[str, Any], str]] = [
    ("resultsdb", {"resultsdb_url": ""}, "DISTGATE_RESULTSDB_URL is not set"),
    ("resultsdb", {"resultsdb_secret": Path("/nowhere")}, "DISTGATE_RESULTSDB_SECRET: cannot read /nowhere"),
    ("dist-git-flag", {"dist_git_flags_token": None}, "DISTGATE_DIST_GIT_FLAGS_TOKEN is not set"),
    ("matrix", {"matrix_room": ""}, "DISTGATE_MATRIX_ROOM is not set"),
    ("mail", {"mail_to": ()}, "DISTGATE_MAIL_TO is not set"),
    ("mail", {"mail_server": "localhost"}, "not HOST:PORT"),
    ("mail", {"mail_user": "ci", "mail_password": Path("/dev/null")}, "holds no secret"),
    ("ci-messages", {}, "DISTGATE_REPORT_EMAIL is not set"),
    ("ci-messages", {"report_email": "team@example.org"}, "DISTGATE_REPORT_DOCS is not set"),
]


@pytest.mark.parametrize(("name", "other", "words"), MISSING, ids=str)
def test_a_channel_names_the_setting_that_it_lacks(
    name: str, other: dict[str, Any], words: str, site: Settings
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        opened(site, name, **other)


def test_a_password_never_goes_over_the_wire_in_the_clear(site: Settings) -> None:
    with pytest.raises(ConfigurationError, match="DISTGATE_MAIL_TLS"):
        opened(site, "mail", mail_user="ci", mail_password=site.matrix_token)


@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize("status", [400, 401, 500])
def test_no_secret_is_in_a_log_or_in_an_error(
    name: str, status: int, site: Settings, server: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.faults = [status]
    with pytest.raises(DistgateError) as trouble:
        opened(site, name).deliver(END)
    assert TOKEN not in f"{trouble.value} {trouble.value.__cause__!r} {caplog.text}"


def test_every_channel_can_be_opened_under_its_name(site: Settings) -> None:
    whole = site.model_copy(update={"report_email": "team@example.org", "report_docs": "https://example.org"})
    every = channel_names()
    assert every == ["ci-messages", "dist-git-flag", "mail", "matrix", "resultsdb"]
    assert [open_channel(name, whole).name for name in every] == every


TOY = """
class Bell:
    name = "toy-bell"

    def deliver(self, notice):
        print("ding")
        return True


def open_channel(settings):
    return Bell()
"""


def test_a_new_channel_is_one_file(
    site: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toy_bell.py").write_text(TOY)
    monkeypatch.setattr(channels, "__path__", [*channels.__path__, str(tmp_path)])
    assert "toy-bell" in channel_names()
    assert open_channel("toy-bell", site).deliver(END)
    assert capsys.readouterr().out == "ding\n"


def test_a_channel_that_does_not_exist_is_refused_with_those_that_do(site: Settings) -> None:
    with pytest.raises(ConfigurationError, match="there is no channel 'pigeon'") as refusal:
        open_channel("pigeon", site)
    assert "matrix, resultsdb" in refusal.value.hint
