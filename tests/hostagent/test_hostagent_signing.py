"""The lab's key: what it signs is verified by openssl with the certificate that it shows."""

import subprocess
from pathlib import Path

import pytest

from hostagent.signing import QUICK, STRONG, Signer, SigningError

DATA = b'{"vmId":"13f56399"}'
OTHER = Signer()


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(bits=STRONG)


def openssl(*arguments: str | Path) -> bytes:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout


@pytest.mark.parametrize("embedded", [True, False])
def test_a_signed_message_is_verified_with_the_certificate(
    signer: Signer, tmp_path: Path, embedded: bool
) -> None:
    (tmp_path / "message").write_bytes(signer.pkcs7(DATA, certificate=embedded))
    (tmp_path / "certificate").write_bytes(signer.certificate)
    certificate = () if embedded else ("-certfile", tmp_path / "certificate")
    message = ("-in", tmp_path / "message", "-inform", "DER")
    assert openssl("smime", "-verify", *message, "-noverify", *certificate) == DATA
    certificates = openssl("pkcs7", *message, "-print_certs")
    assert (b"BEGIN CERTIFICATE" in certificates) is embedded


def test_a_bare_signature_is_verified_with_the_certificate(signer: Signer, tmp_path: Path) -> None:
    for name, raw in (
        ("data", DATA),
        ("signature", signer.signature(DATA)),
        ("certificate", signer.certificate),
    ):
        (tmp_path / name).write_bytes(raw)
    public = openssl("x509", "-in", tmp_path / "certificate", "-noout", "-pubkey")
    (tmp_path / "public").write_bytes(public)
    assert b"Verified OK" in openssl(
        *("dgst", "-sha256", "-verify", tmp_path / "public"),
        *("-signature", tmp_path / "signature", tmp_path / "data"),
    )


def test_a_key_and_certificate_of_openssl_are_taken(tmp_path: Path) -> None:
    """A user has a key already."""
    both = openssl(
        *("req", "-x509", "-newkey", "rsa:3072", "-nodes", "-subj", "/CN=us", "-keyout", "-"),
        *("-out", "-"),
    )
    signer = Signer(both)
    (tmp_path / "message").write_bytes(signer.pkcs7(DATA, certificate=True))
    (tmp_path / "certificate").write_bytes(both)
    verify = ("smime", "-verify", "-inform", "DER", "-in", tmp_path / "message", "-purpose", "any")
    assert openssl(*verify, "-CAfile", tmp_path / "certificate") == DATA


def test_the_key_and_certificate_are_sound(signer: Signer, tmp_path: Path) -> None:
    (tmp_path / "both").write_bytes(signer.pem)
    assert b"RSA key ok" in openssl("rsa", "-check", "-noout", "-in", tmp_path / "both")
    told = openssl("x509", "-noout", "-text", "-in", tmp_path / "both")
    assert b"DNS:metadata.azure.com, DNS:*.metadata.azure.com" in told
    assert b"Public-Key: (2048 bit)" in told
    assert b"OK" in openssl("verify", "-CAfile", tmp_path / "both", tmp_path / "both")


def test_a_key_that_is_made_while_guests_wait_is_short(tmp_path: Path) -> None:
    (tmp_path / "certificate").write_bytes(OTHER.certificate)
    told = openssl("x509", "-noout", "-text", "-in", tmp_path / "certificate")
    assert f"Public-Key: ({QUICK} bit)".encode() in told
    (tmp_path / "message").write_bytes(OTHER.pkcs7(DATA, certificate=True))
    message = ("-in", tmp_path / "message", "-inform", "DER")
    assert openssl("smime", "-verify", *message, "-noverify") == DATA


def test_a_key_that_was_made_can_be_given_again(signer: Signer) -> None:
    again = Signer(signer.pem)
    assert again.pkcs7(DATA, certificate=True) == signer.pkcs7(DATA, certificate=True)
    assert OTHER.certificate != signer.certificate


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"no key",
        OTHER.certificate,
        OTHER.pem.partition(b"-----BEGIN C")[0],
        OTHER.pem.replace(b"MII", b"???"),
        OTHER.pem.replace(b"MII", b"MAA"),
        b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n" + OTHER.certificate,
    ],
)
def test_what_is_not_a_key_and_its_certificate_is_refused(pem: bytes) -> None:
    with pytest.raises(SigningError, match="private RSA key and its certificate"):
        Signer(pem)


def test_a_certificate_of_another_key_is_refused(signer: Signer) -> None:
    key = signer.pem.partition(b"-----BEGIN C")[0]
    with pytest.raises(SigningError, match="not this private key's"):
        Signer(key + OTHER.certificate)
