"""The test certificate with which the demo signs. It is made at the first start.

Its root is made with it and then forgotten, so nobody trusts it, and nobody should.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from filelock import FileLock, Timeout

from serve.provenance.certificates import SOON, CertificateRefused, Identity, identity_of, signer_of

NAME = "ryla-serve TEST certificate, not trusted"
_ORGANISATION = "TEST: nobody vouches for this"
VALID = timedelta(days=365)
LOCK_TIMEOUT_S = 30
_FILE = "test-certificate.pem"


def demo_identity(folder: Path, now: datetime | None = None) -> Identity:
    """Return the identity in ``folder``, which is made if it is not there or will soon expire.

    Key and certificates are in one file that only its owner can read. Raises ``CertificateRefused``
    if it can be neither read nor written.
    """
    now = now or datetime.now(UTC)
    file = folder.expanduser() / _FILE
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(file.with_suffix(".lock"), timeout=LOCK_TIMEOUT_S):
            found = _read(file, now)
            if found is None:
                _replace(file, _make(now))
                found = _read(file, now)
    except (OSError, Timeout) as error:
        raise CertificateRefused(
            f"the demo's test certificate cannot be kept in {file.parent} ({error}): set provenance.c2pa.folder to a folder "
            "that can be written to, or provenance.c2pa.enabled to false"
        ) from None
    assert found is not None
    return found


def _read(file: Path, now: datetime) -> Identity | None:
    try:
        content = file.read_bytes()
        certificates = x509.load_pem_x509_certificates(content)
        algorithm, sign = signer_of(load_pem_private_key(content, None))
    except (FileNotFoundError, ValueError):
        return None
    if now + SOON > certificates[0].not_valid_after_utc:
        return None
    return identity_of(certificates, algorithm, sign, is_test=True)


def _replace(file: Path, content: bytes) -> None:
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
    new.replace(file)


def _make(now: datetime) -> bytes:
    """Return a new key with its certificate and that of the root, in PEM."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name, name = _name(f"{NAME} (root)"), _name(NAME)
    root_id = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    root = (
        _builder(root_name, root_name, now)
        .public_key(root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(root_id, critical=False)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        _builder(name, root_name, now)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(root_id), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + leaf.public_bytes(Encoding.PEM) + root.public_bytes(Encoding.PEM)


def _builder(subject: x509.Name, issuer: x509.Name, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + VALID)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
