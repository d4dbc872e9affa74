"""Signed documents: EC2's instance identity and Azure's attested document, by one key.

Runs in the responder's process. It uses no library: that would cost each node 50 ms and 15 MB, and
nothing may be imported once privileges are given up. It reads no file, and writes the key nowhere.

`der` is the encoding, `rsa` the keys and signatures.
"""

from functools import cached_property
from secrets import randbits
from typing import Final

from hostagent.signing import rsa
from hostagent.signing.der import (
    BITS,
    CONTEXT,
    NULL,
    OCTETS,
    OID,
    SEQUENCE,
    SET,
    TEXT,
    TIME,
    UTC_TIME,
    DerError,
    below,
    from_pem,
    integer,
    made,
    pem,
)

STRONG: Final = 2048
"""Bits of a key that every library accepts; making it takes a second."""

QUICK: Final = 1024
"""Bits of a key that is made while guests wait: in a tenth of that. OpenSSL verifies what it signs,
but trusts its certificate as an authority only at a low level of security."""

_DOMAIN: Final = b"metadata.azure.com"
"""Azure's clients accept a certificate of this domain or of one below it."""

_SINCE: Final = made(UTC_TIME, b"150101000000Z")
_UNTIL: Final = made(TIME, b"20650101000000Z")
"""The certificate's validity. The metadata plane's clock may be ten years ahead."""

_NULL: Final = made(NULL)
_RSA: Final = made(SEQUENCE, made(OID, bytes.fromhex("2a864886f70d010101")), _NULL)
_RSA_SHA256: Final = made(SEQUENCE, made(OID, bytes.fromhex("2a864886f70d01010b")), _NULL)
_SHA256: Final = made(SEQUENCE, made(OID, bytes.fromhex("608648016503040201")), _NULL)
_DATA: Final = made(OID, bytes.fromhex("2a864886f70d010701"))
_SIGNED_DATA: Final = made(OID, bytes.fromhex("2a864886f70d010702"))
_COMMON_NAME: Final = made(OID, bytes.fromhex("550403"))
_ALTERNATIVE_NAMES: Final = made(OID, bytes.fromhex("551d11"))


class SigningError(ValueError):
    """What is given is not a private RSA key and its certificate."""


class Signer:
    """A private RSA key and its self-signed certificate."""

    def __init__(self, text: bytes | None = None, *, bits: int = QUICK) -> None:
        """Use the key (PKCS #8) and the certificate in this PEM; raises SigningError.

        None: make them when they are first needed, with a key of so many bits.
        """
        self._bits = bits
        if text is not None:
            self._pair = _read(text)

    @cached_property
    def _pair(self) -> tuple[rsa.Key, bytes]:
        key = rsa.make(self._bits, randbits)
        return key, _certificate(key, randbits(64))

    @property
    def pem(self) -> bytes:
        """The private key and the certificate."""
        key, _ = self._pair
        of_crt = (key.d % (key.p - 1), key.d % (key.q - 1), pow(key.q, -1, key.p))
        numbers = made(SEQUENCE, *map(integer, (0, *key, *of_crt)))
        private = made(SEQUENCE, integer(0), _RSA, made(OCTETS, numbers))
        return pem("PRIVATE KEY", private) + self.certificate

    @property
    def certificate(self) -> bytes:
        """The certificate, as PEM: what a signature is verified with."""
        return pem("CERTIFICATE", self._pair[1])

    def pkcs7(self, data: bytes, *, certificate: bool) -> bytes:
        """Return the data as a signed PKCS #7 message (RFC 2315 §9), with the `certificate` or
        without.

        It has no signed attributes, so that the same data give the same bytes.
        """
        key, whole = self._pair
        serial, issuer = _names(whole)
        signer = made(
            SEQUENCE,
            integer(1),
            made(SEQUENCE, issuer, serial),
            _SHA256,
            _RSA,
            made(OCTETS, rsa.sign(key, data)),
        )
        message = made(
            SEQUENCE,
            integer(1),
            made(SET, _SHA256),
            made(SEQUENCE, _DATA, made(CONTEXT, made(OCTETS, data))),
            made(CONTEXT, whole) if certificate else b"",
            made(SET, signer),
        )
        return made(SEQUENCE, _SIGNED_DATA, made(CONTEXT, message))

    def signature(self, data: bytes) -> bytes:
        """Return the data's bare signature: PKCS #1 v1.5 with SHA-256."""
        return rsa.sign(self._pair[0], data)


def _certificate(key: rsa.Key, serial: int) -> bytes:
    """Return a certificate of the key, signed by itself (RFC 5280 §4.1)."""
    name = made(SEQUENCE, made(SET, made(SEQUENCE, _COMMON_NAME, made(TEXT, _DOMAIN))))
    domains = (made(0x82, domain) for domain in (_DOMAIN, b"*." + _DOMAIN))
    extension = made(SEQUENCE, _ALTERNATIVE_NAMES, made(OCTETS, made(SEQUENCE, *domains)))
    public = made(SEQUENCE, integer(key.n), integer(key.e))
    told = made(
        SEQUENCE,
        made(CONTEXT, integer(2)),  # version 3
        integer(serial),
        _RSA_SHA256,
        name,
        made(SEQUENCE, _SINCE, _UNTIL),
        name,
        made(SEQUENCE, _RSA, made(BITS, b"\0", public)),
        made(CONTEXT + 3, made(SEQUENCE, extension)),
    )
    return made(SEQUENCE, told, _RSA_SHA256, made(BITS, b"\0", rsa.sign(key, told)))


def _read(text: bytes) -> tuple[rsa.Key, bytes]:
    try:
        (_, private, _) = below(from_pem("PRIVATE KEY", text))[2]
        numbers = [int.from_bytes(content, "big") for _, content, _ in below(private)]
        key = rsa.Key(*numbers[1:6])
        certificate = from_pem("CERTIFICATE", text)
        _names(certificate)
        (_, public, _) = below(certificate, 0)[6:][0]
    except (DerError, TypeError, IndexError) as error:
        raise SigningError(
            f"it must be a private RSA key and its certificate, in PEM: {error}"
        ) from error
    if key.n.to_bytes(key.n.bit_length() // 8 + 1, "big") not in public:
        raise SigningError("the certificate is not this private key's")
    return key, certificate


def _names(certificate: bytes) -> tuple[bytes, bytes]:
    """Return the certificate's serial number and issuer, which name it. Raises DerError."""
    told = below(certificate, 0)
    if len(told) < 7 or told[0][0] != CONTEXT:
        raise DerError("the certificate is not of version 3")
    return told[1][2], told[3][2]
