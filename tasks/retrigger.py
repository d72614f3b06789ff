"""Runs that people start: the change that they mean is found, whichever way they name it."""

from __future__ import annotations

from prefect import get_run_logger, task

from blocks import DistGit, KojiInstance
from distgate.drivers.retrigger_lookup import SiteLookup
from distgate.retrigger import Asked, Named, change_of
from distgate.settings import settings


@task(name="Find change")
def find_change(named: Named, site: str) -> Asked:
    """The change that ``named`` means on a site's dist-git and Koji. Raises as distgate.retrigger.change_of."""
    url, koji = DistGit.of(site).url, KojiInstance.of(site)
    lookup = SiteLookup(lambda namespace, repo: url.format(namespace=namespace, repo=repo), koji.profile())
    asked = change_of(named, lookup, settings())
    build = f", with the packages of Koji task {asked.koji_task}" if asked.koji_task else ""
    get_run_logger().info("what is tested: %s%s", asked.change.key, build)
    return asked
