"""A site's block documents. Copy this file, change what is yours, and run it again after each change:

    PREFECT_API_URL=... .venv/bin/python /etc/distgate/site_blocks.py

docs/reference-blocks.md has every field; those that are not named here have the default that it shows.
"""

from __future__ import annotations

from blocks import DistGit, GuestMachine, ImageFactory, ImageStore, KojiInstance
from blocks.site import SiteBlock
from distgate.settings import settings

DOCUMENTS: list[SiteBlock] = [
    # Scratch builds are submitted as this principal. Workers alone read the keytab: mode 0640, root:distgate.
    KojiInstance(
        server="https://koji.fedoraproject.org/kojihub",
        topurl="https://kojipkgs.fedoraproject.org",
        auth="gssapi",
        principal="distgate/gate.example.org@FEDORAPROJECT.ORG",
        keytab="/etc/distgate/koji.keytab",
    ),
    DistGit(url="https://src.fedoraproject.org/{namespace}/{repo}.git"),
    # What is left out here is what each host's settings say: DISTGATE_IMAGE_STORE, DISTGATE_GUESTS_DIR, ...
    ImageStore(),
    GuestMachine(memory=2048),
    ImageFactory(),
    # Several hosts without a common file system (docs/deploy.md, Artifacts):
    # ArtifactStore(url="s3://distgate/artifacts", options={"key": "...", "secret": "..."}),
]


def main() -> None:
    """Save each document under the name of the site, instead of the one that was there."""
    for document in DOCUMENTS:
        document.save(settings().site, overwrite=True)
        print(f"saved {document.get_block_type_slug()}/{settings().site}")


if __name__ == "__main__":
    main()
