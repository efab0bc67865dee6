"""Settings of provenance: how results say that a machine made them, and who may ask.

They are part of ``serve.config.AppConfig``. The attribute docstrings describe the chart's values.
"""

from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from deployments.settings import Settings

Algorithm = Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"]
"""The algorithms with which a manifest can be signed."""


class MetadataSettings(Settings):
    """Metadata that is not signed: IPTC's digital source type, software and model, in XMP."""

    enabled: bool = True
    """Whether results carry XMP that says how they were made. It is what most programs read. The
    EU's AI Act (Art. 50) asks for a mark that machines can read; without it, and without `c2pa`,
    only the watermark is left."""
    request: bool = False
    """Whether XMP also holds the time and the request id. Then the bytes of two results differ even
    where request and seed are the same. A signed manifest holds both in any case."""


class C2paSettings(Settings):
    """Manifests by C2PA, which are signed, so that a change of the file can be seen."""

    enabled: bool = True
    """Whether results carry a signed manifest. It takes a certificate: without one, only the demo
    signs, with a test certificate that nobody trusts. The Code of Practice for the EU's AI Act asks
    for signed metadata beside a watermark: an operator without a certificate owes it."""
    certificate: Path | None = None
    """File of the certificate chain in PEM, that of the signing key first, without the root. It is
    read when a replica starts."""
    private_key: Path | None = None
    """File of the private key in PEM (PKCS#8, without a passphrase)."""
    signer: str | None = None
    """Function that signs in place of `private_key`, such as `company.kms:sign`: it gets the bytes
    to sign and returns the signature (ECDSA as r and s, one after the other)."""
    algorithm: Algorithm | None = None
    """Algorithm of the signature. If absent, it follows from the key. A `signer` needs it."""
    timestamp_url: str | None = None
    """URL of a timestamp authority (RFC 3161). Its timestamps keep manifests valid after the
    certificate has expired. If absent, no network is used."""
    timestamp_timeout_s: float = Field(default=10, gt=0)
    """Seconds within which the timestamp authority must have answered. If it has not, the manifest
    has no timestamp, and `X-Provenance` says so."""
    timeout_s: float = Field(default=60, gt=0)
    """Seconds within which a result must be signed. If it is not, it is sent without a manifest,
    and `X-Provenance` says so."""
    max_memory_bytes: int = Field(default=2**30, gt=0)
    """Maximum memory for signing a result or reading a manifest, in bytes."""
    model: bool = False
    """Whether the manifest names the model."""
    seed: bool = False
    """Whether the manifest holds the seed, by which whoever knows the prompt can make it again."""
    folder: Path = Path("~/.local/state/ryla/provenance")
    """Folder in which the demo keeps its test certificate. `~` is the home of the user."""

    @property
    def has_certificate(self) -> bool:
        """Whether a certificate is configured."""
        return self.certificate is not None

    @field_validator("timestamp_url", mode="after")
    @classmethod
    def _is_a_url(cls, url: str | None) -> str | None:
        if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            raise ValueError("must be a URL such as `http://timestamp.example.org`")
        return url

    @field_validator("signer", mode="after")
    @classmethod
    def _is_a_function(cls, signer: str | None) -> str | None:
        if signer is not None:
            module, _, function = signer.partition(":")
            if not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
                raise ValueError("must name a module and a function, such as `company.kms:sign`")
        return signer

    @model_validator(mode="after")
    def _one_signer(self) -> "C2paSettings":
        if self.private_key is not None and self.signer is not None:
            raise ValueError("set private_key or signer, not both")
        signs = self.private_key is not None or self.signer is not None
        if signs and self.certificate is None:
            raise ValueError("a key signs nothing without its certificate: set certificate")
        if self.certificate is not None and not signs:
            raise ValueError("a certificate signs nothing without its key: set private_key or signer")
        if self.signer is not None and self.algorithm is None:
            raise ValueError("set algorithm to that of the key with which the signer signs")
        return self


class WatermarkSettings(Settings):
    """An imperceptible watermark in the pixels of every frame."""

    enabled: bool = True
    """Whether results carry a watermark, which survives where metadata is lost. The Code of
    Practice for the EU's AI Act asks for it beside signed metadata."""
    key: Path | None = None
    """File of the secret from which the watermark's pattern is made. If absent, a published one is
    used: anyone can then find the watermark, and remove it."""
    keys: list[Path] = Field(default=[], max_length=4)
    """Files of the secrets that were in use before `key`, whose watermarks `/verify` still reads.
    At most four, since each is looked for in each file."""
    key_id: int = Field(default=0, ge=0, le=15)
    """Number that the watermark carries beside the request's: which deployment, or which secret."""


class AigcSettings(Settings):
    """The labels that China's GB 45438-2025 asks for."""

    enabled: bool = False
    """Whether results carry the metadata `AIGC` of GB 45438-2025. It is required of services that
    are offered to the public in China."""
    visible: bool = False
    """Whether results also show the label `AI生成` in a corner: pictures always, and videos for the
    first two seconds."""
    producer: str = Field(default="", max_length=200)
    """Name or code of the provider, which the metadata must hold."""

    @model_validator(mode="after")
    def _has_a_producer(self) -> "AigcSettings":
        if self.enabled and not self.producer.strip():
            raise ValueError("GB 45438-2025 asks for the provider: set producer to its name or code")
        if self.visible and not self.enabled:
            raise ValueError("the visible label goes with the metadata: set enabled, too")
        return self


class VerifySettings(Settings):
    """`POST /verify`, which says what marks a file carries."""

    open: bool = False
    """Whether `/verify` needs no key. The EU's Code of Practice asks for detection that is free of
    charge: an operator who leaves this off owes it in another way."""
    per_minute: int = Field(default=20, ge=1)
    """Maximum number of files that one caller may have verified in a minute. A further one gets a
    429. The limit keeps the answers from showing how to remove the watermark."""
    concurrency: int = Field(default=2, ge=1)
    """Number of files that one replica of the ingress verifies at the same time."""
    max_cpu_s: float = Field(default=20, gt=0)
    """Maximum CPU time for one file, in seconds."""
    trust_anchors: Path | None = None
    """File of the root certificates, in PEM, under which a manifest counts as trusted, such as the
    C2PA trust list. If absent, a manifest is at most valid. It is checked at the start and read
    again for each file that is verified."""


class ProvenanceSettings(Settings):
    """How results say that they were made by a machine."""

    metadata: MetadataSettings = MetadataSettings()
    """Metadata that is not signed."""
    c2pa: C2paSettings = C2paSettings()
    """Signed manifests."""
    watermark: WatermarkSettings = WatermarkSettings()
    """The watermark in the pixels."""
    aigc: AigcSettings = AigcSettings()
    """China's labels."""
    verify: VerifySettings = VerifySettings()
    """Who may ask what marks a file carries."""

    def published(self, *, demo: bool) -> dict[str, Any]:
        """Return what callers may know. The ``demo`` has a certificate of its own for tests.

        `sources` says what becomes of a source with marks: they are kept in the result, or the
        source is refused because nothing here could keep them.
        """
        certificate = ("own" if self.c2pa.has_certificate else "test" if demo else None) if self.c2pa.enabled else None
        return {
            "metadata": self.metadata.enabled,
            "c2pa": {"certificate": certificate},
            "sources": {
                "c2pa": "refused" if certificate is None else "kept",
                "metadata": "kept" if self.metadata.enabled else "refused",
            },
            "watermark": self.watermark.enabled,
            "aigc": {"metadata": self.aigc.enabled, "visible": self.aigc.visible},
            "verify": {"needs_key": not self.verify.open, "per_minute": self.verify.per_minute},
        }
