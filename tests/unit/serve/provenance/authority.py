"""Certificate authorities for tests, with every fault that a certificate can have."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from serve.provenance_settings import ProvenanceSettings

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def name(text: str) -> x509.Name:
    """Return a subject."""
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example Ltd"), x509.NameAttribute(NameOID.COMMON_NAME, text)]
    )


def usage(*, signs: bool, certifies: bool) -> x509.KeyUsage:
    """Return what a key is for."""
    others = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"),
        False,
    )
    return x509.KeyUsage(digital_signature=signs, key_cert_sign=certifies, crl_sign=certifies, **others)


@dataclass(frozen=True)
class Authority:
    """A root, and the certificates that it makes in ``folder``."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def issue(
        self,
        key: Key,
        *,
        begins: timedelta = timedelta(days=-1),
        ends: timedelta = timedelta(days=300),
        signs: bool = True,
        extended: bool = True,
    ) -> x509.Certificate:
        """Return the certificate of a key, valid between two times from now on."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name("Example signer"))
            .issuer_name(self.certificate.subject)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(signs=signs, certifies=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if extended:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def files(
        self, key: Key, *certificates: x509.Certificate, passphrase: bytes | None = None, written: Key | None = None
    ) -> dict[str, Any]:
        """Write a chain and a key, or the key ``written``; return the settings that name them."""
        chain, private = self.folder / "chain.pem", self.folder / "key.pem"
        chain.write_bytes(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates))
        encryption: KeySerializationEncryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
        private.write_bytes((written or key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return {"certificate": chain, "private_key": private}

    def settings(self, **c2pa: Any) -> ProvenanceSettings:
        """Return settings with which results are signed under this authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        return ProvenanceSettings.model_validate({"c2pa": {**self.files(key, self.issue(key)), **c2pa}})

    def root(self) -> Path:
        """Write the root's certificate, for those who trust it."""
        path = self.folder / "root.pem"
        path.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return path


def make_authority(folder: Path) -> Authority:
    """Return a new authority whose files are in ``folder``."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name("Example root"))
        .issuer_name(name("Example root"))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=4000))
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(usage(signs=False, certifies=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(folder, key, certificate)
