"""The checks of a worker, each with a deadline; one that fails, hangs or breaks hides none of the others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache, partial

from distgate.base_images.site import read_site
from distgate.doctor import host, services
from distgate.doctor.report import CheckResult, Finding, Report
from distgate.errors import ConfigurationError, DistgateError
from distgate.settings import Settings
from distgate.text import parse_size
from distgate.waiting import Deadline

log = logging.getLogger(__name__)

#: Seconds for one check; emulating a boot sector on a busy host takes half of it.
SECONDS = 60.0


@dataclass(frozen=True)
class Check:
    """A name and a function: ``probe`` returns a result, or raises; ``heavy`` checks run one after another."""

    name: str
    probe: Callable[[], CheckResult]
    heavy: bool = False


def checks_of(config: Settings, *, free: int | None = None, seconds: float = SECONDS) -> tuple[Check, ...]:
    """All that a worker with these settings needs; ``free`` is in bytes (None: the setting), ``seconds`` bounds what
    a check starts."""
    free = parse_size(config.free_disk) if free is None else free
    site = cache(partial(read_site, config))  # read by the checks themselves: the server may be unreachable
    return (
        Check("kvm", partial(host.check_accelerator, seconds), heavy=True),
        Check("qemu", partial(host.check_qemu, seconds), heavy=True),
        Check("libvirt", lambda: host.check_libvirt(site().guests.directory), heavy=True),
        Check("sandbox", partial(host.check_sandbox, seconds), heavy=True),
        Check("compose", partial(host.check_compose, config.compose_driver, config.appliance_kernel), heavy=True),
        Check("disk", lambda: host.check_disk(config.artifacts_dir, site().images.directory, free)),
        Check("images", lambda: host.check_images(site().images.directory, config.branches)),
        Check("ansible", partial(host.check_ansible, config.ansible, config.roles_path)),
        Check("tmt", host.check_tmt),
        Check("koji", partial(services.check_koji, config.prefect_api_url, config.site)),
        Check("artifacts", partial(services.check_artifacts, config.prefect_api_url, config.site)),
        Check("broker", partial(services.check_broker, config.amqp_url, config.exchange)),
        Check("prefect", partial(services.check_prefect, config.prefect_api_url)),
        Check("ledger", partial(services.check_ledger, config.ledger_url)),
        Check("clock", partial(services.check_clock, config.prefect_api_url, config.site)),
    )


def chosen(checks: Sequence[Check], names: Collection[str]) -> tuple[Check, ...]:
    """Those of ``checks`` with these names, all without names. ConfigurationError for one that does not exist."""
    unknown = sorted(set(names) - {check.name for check in checks})
    if unknown:
        raise ConfigurationError(
            f"there is no check {', '.join(unknown)}", hint=f"there are {', '.join(check.name for check in checks)}"
        )
    return tuple(check for check in checks if not names or check.name in names)


def examine(checks: Sequence[Check], seconds: float = SECONDS) -> Report:
    """Every check's finding, in their order; one that takes longer than ``seconds`` is a failed one.

    Heavy checks run one after another, the others beside them. Never raises for what a check does.
    """
    light = {check.name: _RunningCheck(check) for check in checks if not check.heavy}
    end = Deadline(seconds)
    heavy = {check.name: _RunningCheck(check).finding(seconds) for check in checks if check.heavy}
    findings = heavy | {name: check.finding(end.remaining(), seconds) for name, check in light.items()}
    return Report(tuple(findings[check.name] for check in checks))


class _RunningCheck:
    """A check that runs in a thread of its own, which is not waited for once its time is over."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._outcome: CheckResult | None = None
        # A daemon: a call into a C library that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"doctor-{check.name}", daemon=True)
        self._thread.start()

    def finding(self, patience: float, limit: float | None = None) -> Finding:
        """The finding after ``patience`` more seconds; ``limit`` is the time that is named for a check that hangs."""
        self._thread.join(patience)
        late = CheckResult(
            False, f"it did not end within {limit or patience:g} s", "is the host overloaded? --timeout"
        )
        return Finding.of(self._check.name, self._outcome or late)

    def _run(self) -> None:
        self._outcome = _outcome_of(self._check.probe)


def _outcome_of(probe: Callable[[], CheckResult]) -> CheckResult:
    try:
        return probe()
    except DistgateError as error:
        last = error.evidence.strip().splitlines()[-1:]
        return CheckResult(False, ": ".join([error.message, *last]), error.hint)
    except OSError as error:
        return CheckResult(
            False,
            f"{error.strerror or error}: {error.filename or 'no file'}",
            "check its permissions and its disk",
        )
    except Exception as error:
        # Whatever is wrong with one check must not hide the others.
        log.debug("a check broke", exc_info=True)
        return CheckResult(
            False, f"the check itself broke: {type(error).__name__}: {error}", "this is a bug of distgate"
        )
