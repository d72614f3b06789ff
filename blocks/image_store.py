"""Where qualified base images are, and how a package gets into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from blocks.guest_machine import GuestMachine
from blocks.image_factory import ImageFactory
from blocks.site import SiteBlock
from distgate.base_images.site import ImageStoreFields
from distgate.errors import ConfigurationError
from distgate.guests.base import GuestHost
from distgate.images.base import BaseImage, ImageComposer, read_base
from distgate.kickstart.base import ImageBuilder
from distgate.steps import Progress

if TYPE_CHECKING:
    from distgate.base_images.definition import BaseDefinition
    from distgate.base_images.store import BaseStore
    from distgate.kickstart.definition import Kind
    from distgate.rpm.nevra import Nevra


class ImageStore(ImageStoreFields, SiteBlock):
    """Base images on the worker's host: built by the site's image factory, qualified on its guest machine."""

    _block_type_name: ClassVar[str | None] = "Image store"
    _block_type_slug: ClassVar[str | None] = "image-store"
    _description: ClassVar[str | None] = "Base images that commits are composed onto."

    def store(self, builder: ImageBuilder | None = None, guests: GuestHost | None = None) -> BaseStore:
        """The store, with the image factory and the guest machine of the same site unless others are given."""
        from distgate.base_images.open import open_store

        factory = ImageFactory() if builder else ImageFactory.of(self._site)
        return open_store(
            self,
            builder=builder or factory.builder(),
            guests=guests or GuestMachine.of(self._site).guests(),
            build_timeout=factory.timeout,
        )

    def identity(self) -> str:
        """The name of the store, which hosts that share it share: an image can be used where its base lies."""
        from distgate.base_images.entries import store_identity

        return store_identity(self.directory)

    def ssh_key(self) -> Path:
        """The private key that opens the site's guests; the public one is beside it."""
        from distgate.base_images.open import key_of

        return key_of(self)

    def definition(self, branch: str, kind: Kind = "cloud") -> BaseDefinition:
        """What the base image of a branch is made from. ConfigurationError when nothing is known of it."""
        from distgate.base_images.open import definition_of

        return definition_of(branch, self.ssh_key(), self.kickstarts, kind)

    def kickstart(self, branch: str, repository_url: str, packages: Sequence[Nevra]) -> str:
        """The definition of an image with ``packages`` of a repository in it; see with_packages_under_test."""
        from distgate.kickstart.edit import with_packages_under_test

        return with_packages_under_test(self.definition(branch).kickstart, repository_url, packages)

    def base(self, branch: str, progress: Progress = lambda _line: None) -> BaseImage:
        """The qualified base image of a branch, built when there is none. See BaseStore.base."""
        record = self._record(branch)
        return _external(record) if record else self.store().base(self.definition(branch), progress)

    @contextmanager
    def leased_base(self, branch: str, holder: str, progress: Progress = lambda _line: None) -> Iterator[BaseImage]:
        """``base``, protected from pruning during the block; ``holder`` names who uses it, such as a run's ID."""
        record = self._record(branch)
        if record:
            yield _external(record)
            return
        with self.store().leased_base(self.definition(branch), holder, progress) as base:
            yield base

    @contextmanager
    def lease(self, branch: str, identity: str, holder: str) -> Iterator[BaseImage]:
        """The base ``identity`` of a branch, protected from pruning during the block. Raises Gone when it is not
        there any more, ConfigurationError when the branch's record is that of another one."""
        record = self._record(branch)
        if record is None:
            with self.store().lease(identity, holder) as base:
                yield base
            return
        base = _external(record)
        if base.identity != identity:
            raise ConfigurationError(
                f"the base image of {branch} is {base.identity} now, and was {identity} when the image was made",
                hint="run the change again",
            )
        yield base

    def composer(self) -> ImageComposer:
        """The ``layered`` way: packages are installed offline."""
        from distgate.images.layered import OfflineInstaller

        return OfflineInstaller.configured()

    def installer(self, branch: str, repository_url: str) -> ImageComposer:
        """The ``full`` way: the site's image factory installs anew; ``repository_url`` is where it finds the
        packages under test."""
        from distgate.images.full import FullInstaller

        factory, definition = ImageFactory.of(self._site), self.definition(branch)
        return FullInstaller(
            builder=factory.builder(),
            kickstart=lambda packages: self.kickstart(branch, repository_url, packages),
            name=f"{definition.name}-{branch}",
            release=definition.release,
            timeout=factory.timeout,
        )

    def _record(self, branch: str) -> Path | None:
        path = self.records.get(branch) or self.records.get("*")
        return Path(path) if path else None


def _external(record: Path) -> BaseImage:
    if not record.is_file():
        raise ConfigurationError(f"the base image's record {record} does not exist", hint="is this the right host?")
    return read_base(record)
