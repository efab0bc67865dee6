"""Values of provenance: the secrets with which results are marked, and the timestamp authority."""

from pydantic import Field

from helm.generator.base import Name, Object, Values


class Provenance(Values):
    """How results are marked as AI-generated.

    Other settings are in `config.provenance`; docs/provenance.md says what the law asks for.
    """

    certificate_secret: Name = ""
    """Name of the Secret with the certificate chain, under the key `chain.pem`, and its private
    key, under the key `key.pem`, with which manifests (C2PA) are signed. It is mounted only in pods
    that can run the Runner, which reads it when it starts. If empty, results are not signed."""
    watermark_secret: Name = ""
    """Name of the Secret with the secret of the watermark, under the key `key`. If empty, a
    published one is used, with which anyone can find the watermark, and remove it. It is mounted
    only in pods that can run the Runner or the ingress. Earlier secrets can stand beside it under
    other keys: name them in `config.provenance.watermark.keys`, such as
    `/etc/ryla/watermark/old`."""
    timestamp_url: str = Field(default="", pattern=r"^(https?://[^@/]+(/.*)?)?$")
    """URL of a timestamp authority (RFC 3161), whose timestamps keep manifests valid after the
    certificate has expired. It contains no password."""
    timestamp_peers: list[Object] = [{"ipBlock": {"cidr": "0.0.0.0/0"}}]
    """Peers that match the timestamp authority. They are reached on the port of `timestampUrl` if
    `networkPolicy.egress` is enabled."""
