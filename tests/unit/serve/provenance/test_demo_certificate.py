"""The demo's certificate is made once, is private, says what it is, and is renewed in time."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from serve.provenance.certificates import SOON, CertificateRefused
from serve.provenance.demo_certificate import NAME, VALID, demo_identity

NOW = datetime.now(UTC)


def test_it_is_made_at_the_first_start_and_kept(tmp_path: Path) -> None:
    first, second = demo_identity(tmp_path / "a" / "b"), demo_identity(tmp_path / "a" / "b")
    assert first.chain == second.chain
    assert first.is_test
    assert "TEST" in first.name == NAME
    leaf, root = x509.load_pem_x509_certificates(first.chain.encode())
    leaf.verify_directly_issued_by(root)
    (file,) = (tmp_path / "a" / "b").glob("*.pem")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert demo_identity(tmp_path / "other").chain != first.chain


def test_it_is_renewed_before_it_expires_and_when_it_is_damaged(tmp_path: Path) -> None:
    first = demo_identity(tmp_path, NOW)
    assert demo_identity(tmp_path, NOW + VALID - SOON - timedelta(days=1)).chain == first.chain
    renewed = demo_identity(tmp_path, NOW + VALID)
    assert renewed.chain != first.chain
    assert renewed.expires_at > NOW + VALID + SOON
    (file,) = tmp_path.glob("*.pem")
    file.write_bytes(file.read_bytes()[:300])
    assert demo_identity(tmp_path, NOW).sign(b"x")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CertificateRefused, match=r"cannot be kept in .*file.*set provenance.c2pa.folder"):
        demo_identity(tmp_path / "file")
