"""Signed documents: EC2's instance identity and Azure's attested document, by one key.

Runs in the responder's process. The key is read or made when the first document is signed: a
responder that signs nothing does not load the library. It never writes the key anywhere.
"""

from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

_BITS: Final = 2048
_KEY: Final = b"PRIVATE KEY-----"
_CERTIFICATE: Final = b"BEGIN CERTIFICATE-----"
_DOMAIN: Final = "metadata.azure.com"
"""Azure's clients accept a certificate of this domain or of one below it."""

_SINCE: Final = datetime(2015, 1, 1, tzinfo=UTC)
_UNTIL: Final = datetime(2065, 1, 1, tzinfo=UTC)
"""The certificate's validity. The metadata plane's clock may be ten years ahead."""


class SigningError(ValueError):
    """What is given is not a private key and its certificate."""


class Signer:
    """A private RSA key and its self-signed certificate."""

    def __init__(self, pem: bytes | None = None) -> None:
        """Use the key and the certificate in `pem`; None: make them when they are first needed.

        Raises SigningError if one of them is missing. They are read when they are first needed.
        """
        if pem is not None and any(label not in pem for label in (_KEY, _CERTIFICATE)):
            raise SigningError("not a private key and a certificate in PEM")
        self._pem = pem

    @cached_property
    def _pair(self) -> "tuple[RSAPrivateKey, Certificate]":
        return _made() if self._pem is None else _read(self._pem)

    @property
    def pem(self) -> bytes:
        """The private key and the certificate. Raises SigningError, as all others do."""
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        key, _ = self._pair
        private: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return private + self.certificate

    @property
    def certificate(self) -> bytes:
        """The certificate, as PEM: what a signature is verified with."""
        from cryptography.hazmat.primitives.serialization import Encoding

        certificate: bytes = self._pair[1].public_bytes(Encoding.PEM)
        return certificate

    def pkcs7(self, data: bytes, *, certificate: bool) -> bytes:
        """Return the data as a signed PKCS#7 message (DER), with the `certificate` or without.

        It has no signed attributes, so that the same data give the same bytes.
        """
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import Encoding
        from cryptography.hazmat.primitives.serialization.pkcs7 import (
            PKCS7Options,
            PKCS7SignatureBuilder,
        )

        key, signer = self._pair
        options = [PKCS7Options.Binary, PKCS7Options.NoAttributes]
        if not certificate:
            options.append(PKCS7Options.NoCerts)
        builder = PKCS7SignatureBuilder().set_data(data).add_signer(signer, key, SHA256())
        message: bytes = builder.sign(Encoding.DER, options)
        return message

    def signature(self, data: bytes) -> bytes:
        """Return the data's bare signature: PKCS #1 v1.5 with SHA-256."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        signature: bytes = self._pair[0].sign(data, PKCS1v15(), SHA256())
        return signature


def _made() -> "tuple[RSAPrivateKey, Certificate]":
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import NameOID

    key = generate_private_key(65537, _BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _DOMAIN)])
    names = x509.SubjectAlternativeName([x509.DNSName(_DOMAIN), x509.DNSName(f"*.{_DOMAIN}")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_SINCE)
        .not_valid_after(_UNTIL)
        .add_extension(names, critical=False)
    )
    return key, builder.sign(key, SHA256())


def _read(pem: bytes) -> "tuple[RSAPrivateKey, Certificate]":
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    try:
        key = load_pem_private_key(pem, password=None)
        certificate = load_pem_x509_certificate(pem)
    except (ValueError, TypeError) as error:
        raise SigningError(f"not a private key and a certificate in PEM: {error}") from error
    if not isinstance(key, RSAPrivateKey):
        raise SigningError("the private key is not RSA")
    if certificate.public_key() != key.public_key():
        raise SigningError("the certificate is not this private key's")
    return key, certificate
