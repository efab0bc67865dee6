"""The certificate and the key with which manifests are signed, checked before the first is.

The key stays in this process: the process that builds a manifest asks for each signature.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from serve.provenance_settings import Algorithm, C2paSettings

Sign = Callable[[bytes], bytes]
"""Returns the signature of its argument, as COSE has it: that of ECDSA is r and s."""

SOON = timedelta(days=30)
"""The time before the end of a certificate from which on the log says so."""
_CURVES: dict[str, tuple[Algorithm, hashes.HashAlgorithm]] = {
    "secp256r1": ("es256", hashes.SHA256()),
    "secp384r1": ("es384", hashes.SHA384()),
    "secp521r1": ("es512", hashes.SHA512()),
}
_RSA: dict[Algorithm, hashes.HashAlgorithm] = {"ps256": hashes.SHA256(), "ps384": hashes.SHA384(), "ps512": hashes.SHA512()}
MIN_RSA_BITS = 2048


class CertificateRefused(Exception):
    """Nothing can be signed with the configured certificate or key; the message says why."""


@dataclass(frozen=True)
class Identity:
    """Who signs: the certificate chain in PEM, and what signs with its key.

    ``is_test`` says that it is the demo's, which nobody trusts.
    """

    chain: str
    algorithm: Algorithm
    sign: Sign
    name: str
    expires_at: datetime
    is_test: bool = False

    def has_expired(self, now: datetime | None = None) -> bool:
        """Return whether the certificate is not valid any more at ``now``, so it may not sign."""
        return (now or datetime.now(UTC)) >= self.expires_at


def load_identity(settings: C2paSettings, now: datetime | None = None) -> Identity | None:
    """Return the configured identity, or None if no certificate is configured.

    Raises ``CertificateRefused`` for files that cannot be read, a key that does not belong to the
    certificate, and a certificate that is not valid at ``now`` or not for signing.
    """
    if settings.certificate is None:
        return None
    chain = _read(settings.certificate, "provenance.c2pa.certificate")
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError as error:
        raise CertificateRefused(f"{settings.certificate} has no certificate in PEM ({_word(error)})") from None
    leaf = certificates[0]
    _check(leaf, certificates, path=settings.certificate, now=now or datetime.now(UTC))
    if settings.signer is not None:
        assert settings.algorithm is not None
        algorithm, sign = settings.algorithm, _function(settings.signer)
    else:
        assert settings.private_key is not None
        algorithm, sign = _key(settings.private_key, leaf, settings)
    return identity_of(certificates, algorithm, sign)


def load_trust_anchors(path: Path) -> str:
    """Return the root certificates of a file, in PEM; raise ``CertificateRefused``."""
    setting = "provenance.verify.trust_anchors"
    try:
        certificates = x509.load_pem_x509_certificates(_read(path, setting))
    except ValueError as error:
        raise CertificateRefused(
            f"{setting}: {path} is not a file of certificates in PEM ({_word(error)}); `openssl x509 -inform der` converts DER"
        ) from None
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates).decode()


def identity_of(certificates: list[x509.Certificate], algorithm: Algorithm, sign: Sign, *, is_test: bool = False) -> Identity:
    """Return the identity of a chain, whose first certificate is that of the key."""
    names = certificates[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates).decode()
    name = str(names[0].value) if names else certificates[0].subject.rfc4514_string()
    return Identity(chain, algorithm, sign=sign, name=name, expires_at=certificates[0].not_valid_after_utc, is_test=is_test)


def signer_of(key: object, wanted: Algorithm | None = None) -> tuple[Algorithm, Sign]:
    """Return the algorithm of a private key, and what signs with it; raise ValueError."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.name not in _CURVES:
            raise ValueError(f"keys on the curve {key.curve.name} sign no manifests: use P-256, P-384 or P-521")
        algorithm, digest = _CURVES[key.curve.name]
        size = (key.key_size + 7) // 8
        elliptic = key

        def sign(data: bytes) -> bytes:
            r, s = decode_dss_signature(elliptic.sign(data, ec.ECDSA(digest)))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    elif isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm, sign = "ed25519", key.sign
    elif isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA_BITS:
            raise ValueError(f"the RSA key has {key.key_size} bits: at least {MIN_RSA_BITS} are needed")
        algorithm = wanted if wanted in _RSA else "ps256"
        rsa_key, rsa_digest = key, _RSA[algorithm]

        def sign(data: bytes) -> bytes:
            return rsa_key.sign(data, padding.PSS(padding.MGF1(rsa_digest), rsa_digest.digest_size), rsa_digest)

    else:
        raise ValueError(f"{type(key).__name__} signs no manifests: use an elliptic curve, RSA or Ed25519")
    if wanted is not None and wanted != algorithm:
        raise ValueError(f"the key signs with {algorithm}, and provenance.c2pa.algorithm is {wanted}")
    return algorithm, sign


def _key(path: Path, leaf: x509.Certificate, settings: C2paSettings) -> tuple[Algorithm, Sign]:
    try:
        key = load_pem_private_key(_read(path, "provenance.c2pa.private_key"), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateRefused(f"{path} has no private key in PEM without a passphrase ({_word(error)})") from None
    whole = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*whole) != leaf.public_key().public_bytes(*whole):
        raise CertificateRefused(f"the key in {path} is not that of the first certificate in {settings.certificate}")
    try:
        return signer_of(key, settings.algorithm)
    except ValueError as error:
        raise CertificateRefused(f"{path}: {error}") from None


def _check(leaf: x509.Certificate, chain: list[x509.Certificate], path: Path, now: datetime) -> None:
    if now >= leaf.not_valid_after_utc:
        raise CertificateRefused(
            f"the certificate in {path} expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: renew it"
        )
    if now < leaf.not_valid_before_utc:
        raise CertificateRefused(
            f"the certificate in {path} is valid only from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"
        )
    if leaf.issuer == leaf.subject:
        raise CertificateRefused(f"the first certificate in {path} has signed itself, which C2PA refuses: let a CA sign it")
    for below, above in pairwise(chain):
        if below.issuer != above.subject:
            raise CertificateRefused(
                f"the certificates in {path} are not a chain: after `{below.subject.rfc4514_string()}` must come that of its "
                f"issuer, `{below.issuer.rfc4514_string()}`"
            )
    try:
        leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise CertificateRefused(
            f"the certificate in {path} does not say what its key is for: C2PA asks for the key usage digitalSignature and an "
            "extended key usage such as emailProtection"
        ) from None
    if not usage.digital_signature:
        raise CertificateRefused(f"the certificate in {path} is not for signing: its key usage lacks digitalSignature")


def _function(name: str) -> Sign:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise CertificateRefused(f"provenance.c2pa.signer: `{name}` cannot be imported ({error})") from None
    if not callable(found):
        raise CertificateRefused(f"provenance.c2pa.signer: `{name}` is not a function")
    sign: Sign = found
    return sign


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise CertificateRefused(f"{setting}: {path} cannot be read ({error.strerror})") from None


def _word(error: Exception) -> str:
    return str(error).split("\n")[0][:120]
