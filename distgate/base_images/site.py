"""What an operator says of a site's images and guests, and the one reader of it.

The block documents of the site say it. A field that is empty there, and every field where there is no Prefect server
or no such document, is what the settings of the process say: so runs, ``distgate images`` and the doctor of a host
work with the same store.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.guests.base import GuestMachineFields
from distgate.kickstart.base import ImageFactoryFields
from distgate.prefect_api import NoBlock, PrefectApi
from distgate.settings import Settings, settings
from distgate.text import parse_size, written_size

Fields = TypeVar("Fields", bound=BaseModel)


class ImageStoreFields(BaseModel):
    """Where base images are, and what they may be made of and cost."""

    root: str = Field(
        "",
        description="Directory of the store, the same on every host: images that were composed refer to it; empty: "
        "the host's DISTGATE_IMAGE_STORE",
    )
    limit: Annotated[str, AfterValidator(lambda text: text and written_size(text))] = Field(
        "",
        description="What base images may take of the disk: 500M, 50G, 1.5T; empty: DISTGATE_IMAGE_STORE_LIMIT",
    )
    kickstarts: dict[str, str] = Field(
        default_factory=dict,
        description="Path of a kickstart for each branch, * for all others; empty: those that distgate brings",
    )
    key: str = Field("", description="Path of the private ssh key that opens base images; empty: the store's own")
    max_age: float | None = Field(
        None, gt=0, description="Seconds after which a base is renewed when its repositories changed; empty: never"
    )
    boot_timeout: float = Field(180.0, gt=0, description="Seconds that a base may take to boot, under KVM")
    records: dict[str, str] = Field(
        default_factory=dict,
        description="Path of the JSON record of a base image made elsewhere, for each branch; * for all others",
    )

    @property
    def directory(self) -> Path:
        """The directory of the store."""
        return Path(self.root or settings().image_store)

    @property
    def most_bytes(self) -> int:
        """The limit in bytes."""
        return parse_size(self.limit or settings().image_store_limit)


@dataclass(frozen=True)
class Site:
    """What holds for runs of a site on this host."""

    images: ImageStoreFields
    factory: ImageFactoryFields
    guests: GuestMachineFields


def read_site(host: Settings) -> Site:
    """The site that the settings name, on this host.

    Raises ConfigurationError for a server that refuses us, and for a document that is none.
    """
    images, factory, guests = ImageStoreFields(), ImageFactoryFields(), GuestMachineFields()
    with PrefectApi(host.prefect_api_url, patience=0) as prefect, suppress(InfrastructureError):
        images = _read(prefect, "image-store", host.site, images)
        factory = _read(prefect, "image-factory", host.site, factory)
        guests = _read(prefect, "guest-machine", host.site, guests)
    return Site(
        images=_filled_in(images, root=str(host.image_store), limit=host.image_store_limit),
        factory=_filled_in(factory, command=list(host.image_factory)),
        guests=_filled_in(guests, state=str(host.guests)),
    )


def _read(prefect: PrefectApi, kind: str, name: str, otherwise: Fields) -> Fields:
    try:
        return type(otherwise).model_validate(prefect.block(kind, name))
    except NoBlock:
        return otherwise
    except ValidationError as error:
        raise ConfigurationError(
            f"the block {kind}/{name} is wrong: {error}", hint="docs/reference-blocks.md"
        ) from error


def _filled_in(fields: Fields, **defaults: object) -> Fields:
    return fields.model_copy(update={name: text for name, text in defaults.items() if not getattr(fields, name)})
