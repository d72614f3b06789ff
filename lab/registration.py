"""Saves the lab's block documents in its Prefect server: ``python -m lab.registration --world FILE``."""

from __future__ import annotations

import argparse
from pathlib import Path

from blocks import DistGit, GuestMachine, HostTests, ImageFactory, ImageStore, KojiInstance, OSTreeRepo
from blocks.site import SiteBlock
from lab.dist_git import host_tests
from lab.dist_git.lookaside import lookaside_address
from lab.distribution.rpm_repository import ensure_repository
from lab.images.base_image import TIMEOUT
from lab.images.deployed_disk import lab_deployer
from lab.images.imagefactory import COMMAND, INSTALL_URL, RESOURCES
from lab.images.tree import TREEFILE
from lab.world import KOJI_USER, World

#: The profile of the miniature cluster.
CLUSTER = Path(__file__).parent / "cluster"


def blocks_of(world: World) -> list[SiteBlock]:
    """The places of a lab: what a real site keeps under the name fedora."""
    deployer = lab_deployer()
    return [
        DistGit(
            url=f"{world.dist_git_url}/{{namespace}}/{{repo}}.git", lookaside=lookaside_address(world.dist_git_url)
        ),
        GuestMachine(state=str(world.guests_dir)),
        HostTests(
            suite_url=world.host_tests,
            suite_rev=host_tests.rev(world.state / "dist-git"),
            playbooks=list(host_tests.PLAYBOOKS),
            profile=str(CLUSTER),
        ),
        ImageFactory(command=list(COMMAND), install_url=INSTALL_URL, libvirt=RESOURCES.libvirt, timeout=TIMEOUT),
        ImageStore(
            root=str(world.images_dir),
            limit=world.images_limit,
            kickstarts={"*": str(world.kickstart)},
            key=str(world.images_key),
        ),
        OSTreeRepo(
            root=str(world.trees_dir),
            url=world.trees_url,
            driver="dnf",
            treefiles={"*": str(TREEFILE)},
            repositories={"lab": str(ensure_repository(world.cache, print).path)},
            disk_size=deployer.size,
            disk_root=deployer.root,
            disk_kargs=list(deployer.kargs),
        ),
        KojiInstance(
            server=world.koji_hub_url, topurl=world.koji_topurl, auth="password", user=KOJI_USER, password=KOJI_USER
        ),
    ]


def main() -> None:
    """Save every block of the lab under the name of its site."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--world", type=Path, required=True)
    world = World.read(parser.parse_args().world)
    for block in blocks_of(world):
        block.save(world.site, overwrite=True)


if __name__ == "__main__":
    main()
