"""The process inside the namespaces of distgate.rpm.transaction: mounts, dnf, scripts, and all of it undone.

It is process 1 of its namespace, and is run by distgate.sandbox.child.run_in_namespaces.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError, PackageError
from distgate.mounts import guestfs, loop, rootless
from distgate.mounts.root import InstallRoot, system_directories
from distgate.process import ProcessFailed, run
from distgate.rpm.dnf import ENVIRONMENT, EVIDENCE, TIMEOUT, Dnf, Refused, as_request
from distgate.rpm.dnf_output import exclude_each_other, named_in, parts_of
from distgate.rpm.file_attributes import apply, capabilities, clock_of, labels, policy_of
from distgate.rpm.installable import Choice, NotInstallable, Refusal, Rival, greatest
from distgate.rpm.transaction import Databases, Script, Transaction, check_host
from distgate.sandbox.child import carry_out
from distgate.steps import Steps


def perform(transaction: Transaction, workspace: Path, steps: Steps) -> Databases:
    """Install and run the scripts. Raises InfrastructureError when that filled the host's disk."""
    databases = _perform(transaction, workspace, steps)
    check_host(workspace, "")
    return databases


def _perform(transaction: Transaction, workspace: Path, steps: Steps) -> Databases:
    with ExitStack() as cleanups:
        installroot = cleanups.enter_context(_installroot(transaction, workspace, steps))
        dnf = Dnf(transaction, installroot, workspace, steps)
        with steps.step("read database"):
            before = tuple(dnf.query())
        if not transaction.requests and not transaction.scripts:
            return Databases(before, before)
        since = clock_of(installroot.root)
        try:
            with system_directories(installroot, dnf.shared):
                choice = _install(dnf, before)
                for script in transaction.scripts:
                    _run_script(dnf.bwrap, installroot.root, script)
            _finish_attributes(dnf, before, since, workspace)
            with steps.step("read back"):
                installed = tuple(dnf.query())
            run(["sync", "--file-system", installroot.root], timeout=TIMEOUT, error=InfrastructureError)
        except DistgateError as error:
            check_host(workspace, error.evidence)
            raise
    return Databases(before, installed, choice.omitted)


def _installroot(transaction: Transaction, workspace: Path, steps: Steps) -> AbstractContextManager[InstallRoot]:
    if transaction.image:
        where = (transaction.image, transaction.offset, workspace, steps)
        if transaction.driver == "guestfs":
            kernel, cache = transaction.appliance_kernel, transaction.appliance_cache
            return guestfs.mounted(*where, kernel=kernel, cache=cache)
        return {"loop": loop.mounted, "rootless": rootless.mounted}[transaction.driver](*where)
    if transaction.root:
        return nullcontext(InstallRoot(transaction.root))
    raise ConfigurationError("a transaction needs an image or a directory")


def _install(dnf: Dnf, before: Sequence[str]) -> Choice:
    """All that was asked for, or the greatest set of it where the transaction allows that."""
    requests, choosing = dnf.transaction.requests, dnf.transaction.choosing
    refusal = None
    if choosing != "first":
        try:
            dnf.install(requests, before)
            return Choice(requests)
        except Refused as error:
            if choosing == "never" or len(requests) < 2:
                raise
            refusal = Refusal(error.message, error.evidence, tuple(named_in(requests, error.evidence)))
    try:
        with dnf.steps.step("choose"):
            choice = greatest(requests, dnf.attempt, refusal, _rivals(requests, before))
    except NotInstallable as error:
        raise PackageError(str(error), evidence=error.refusal.output[-EVIDENCE:]) from None
    dnf.install(choice.requests, before)
    return choice


def _rivals(requests: Sequence[str], before: Sequence[str]) -> Rival:
    """Of what was built, that stays which the root holds an earlier build of; what excludes it does not come."""
    called = {parts_of(request)[0]: request for request in requests}
    present = {called[name]: as_request(line) for line in before if (name := line.partition("|")[0]) in called}
    new = [request for request in requests if request not in present]

    def rival(name: str, refusal: Refusal) -> str | None:
        if name in present:
            return None
        # Which of the new ones it is does not matter: the refused one may only depend on that.
        rivals = (stays for stays, old in present.items() if exclude_each_other(new, (stays, old), refusal.output))
        return next(rivals, None)

    return rival


def _finish_attributes(dnf: Dnf, before: Sequence[str], since: int, workspace: Path) -> None:
    installroot = dnf.installroot
    attributes = []
    if not installroot.binary_attributes:
        unchanged = {as_request(line) for line in before} - set(dnf.transaction.requests)
        changed = [name for name in map(as_request, dnf.query()) if name not in unchanged]
        attributes += list(capabilities(dnf, changed, workspace))
    policy = policy_of(installroot.root)
    if policy:
        with dnf.steps.step("label"):
            attributes += labels(installroot.root, policy, since, dnf.bwrap)
    apply(installroot, attributes)


def _run_script(confinement: Sequence[str], root: Path, script: Script) -> None:
    inside = root / "run" / script.name
    inside.write_text(script.body)
    argv: list[str | Path] = [*confinement, "chroot", root, script.interpreter, f"/run/{script.name}"]
    try:
        done = run(argv, timeout=TIMEOUT, env=ENVIRONMENT | {"HOME": "/root"})
    except ProcessFailed as error:
        print(error.evidence, flush=True)
        if script.fatal:
            raise InfrastructureError(f"{script.name} failed", evidence=error.evidence) from None
    else:
        print(done.output, end="", flush=True)


if __name__ == "__main__":
    sys.exit(carry_out(Transaction, perform))
