"""A Koji instance and how we log in to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, SecretStr

from blocks.site import SiteBlock
from distgate.builds.base import BuildHub, KojiAuth

if TYPE_CHECKING:
    from distgate.builds.koji import KojiProfile


class KojiInstance(SiteBlock):
    """A Koji hub, its downloads, and the account that may start scratch builds."""

    _block_type_name: ClassVar[str | None] = "Koji instance"
    _block_type_slug: ClassVar[str | None] = "koji-instance"
    _description: ClassVar[str | None] = "The hub that scratch-builds commits, and our account there."

    server: str = Field("https://koji.fedoraproject.org/kojihub", description="Address of the hub")
    topurl: str = Field("https://kojipkgs.fedoraproject.org", description="Address below which task output is served")
    auth: KojiAuth = Field("gssapi", description="How to log in: gssapi, ssl, password, or none to read only")
    user: str = Field("", description="Account, for password")
    password: SecretStr = Field(SecretStr(""), description="Its password, for password")
    principal: str = Field("", description="Kerberos principal, for gssapi")
    keytab: str = Field("", description="Path of the keytab on the worker, for gssapi")
    cert: str = Field("", description="Path of the client certificate on the worker, for ssl")
    serverca: str = Field("", description="Path of the hub's CA certificate on the worker, for ssl")

    def hub(self) -> BuildHub:
        """A client of the hub."""
        from distgate.builds.koji import KojiClient

        return KojiClient(self.profile())

    def profile(self) -> KojiProfile:
        """Where the hub is, and who we are there."""
        from distgate.builds.koji import KojiProfile

        return KojiProfile(
            server=self.server,
            topurl=self.topurl,
            auth=self.auth,
            user=self.user,
            password=self.password.get_secret_value(),
            principal=self.principal,
            keytab=self.keytab,
            cert=self.cert,
            serverca=self.serverca,
        )
