"""RSA keys and signatures (RFC 8017). Pure: randomness is an argument.

For an emulator's documents, not for secrets: it takes no care to run in constant time.
"""

from collections.abc import Callable
from hashlib import sha256
from math import gcd, lcm
from typing import Final, NamedTuple

_EXPONENT: Final = 65537
_SMALL: Final = [n for n in range(3, 2000, 2) if all(n % m for m in range(3, int(n**0.5) + 1, 2))]
_ROUNDS: Final = 8
"""Of Miller and Rabin's test: random numbers of this size hardly pass one of them."""

_DIGEST_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")
"""DER before a SHA-256 digest: RFC 8017 §9.2, note 1."""

Random = Callable[[int], int]
"""Returns a random number of so many bits, as `secrets.randbits`."""


class Key(NamedTuple):
    """A private key: its modulus, exponents and primes."""

    n: int
    e: int
    d: int
    p: int
    q: int


def make(bits: int, random: Random) -> Key:
    """Return a new key, after a second or so for 2048 bits."""
    while True:
        p, q = _prime(bits // 2, random), _prime(bits // 2, random)
        order = lcm(p - 1, q - 1)
        if p != q and gcd(_EXPONENT, order) == 1:
            return Key(p * q, _EXPONENT, pow(_EXPONENT, -1, order), p, q)


def _prime(bits: int, random: Random) -> int:
    while True:
        # The two highest bits are set, so that the product has all its bits.
        number = random(bits) | 3 << bits - 2 | 1
        if all(number % small for small in _SMALL) and _is_prime(number, random):
            return number


def _is_prime(number: int, random: Random) -> bool:
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(_ROUNDS):
        power = pow(2 + random(number.bit_length() - 1), odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def sign(key: Key, data: bytes) -> bytes:
    """Return the signature: RSASSA-PKCS1-v1_5 with SHA-256, RFC 8017 §8.2.1."""
    size = (key.n.bit_length() + 7) // 8
    told = _DIGEST_INFO + sha256(data).digest()
    padded = b"\0\1" + b"\xff" * (size - len(told) - 3) + b"\0" + told
    number = int.from_bytes(padded, "big")
    # By the primes it is four times as fast: RFC 8017 §5.1.2.
    by_p = pow(number % key.p, key.d % (key.p - 1), key.p)
    by_q = pow(number % key.q, key.d % (key.q - 1), key.q)
    signed = by_q + key.q * (pow(key.q, -1, key.p) * (by_p - by_q) % key.p)
    return signed.to_bytes(size, "big")
