"""How values are kept that must be handed out again: sealed with a key beside the database.

A sealed value is `0x01`, a 96-bit random nonce, and what AES-256-GCM gives. Its associated data
say what it is the value of, so a row that was copied elsewhere does not open there.
The key file guards copies of the database, not of the whole folder.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from amba_runtime import entropy
from amba_runtime.errors import InternalCode, InternalError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_FORM = b"\x01"
_NONCE_BYTES = 12  # what GCM is made for: NIST SP 800-38D, 8.2
_TAG_BYTES = 16


class Sealer:
    """Seals, opens and indexes with one key. From any thread."""

    __slots__ = ("_cipher", "_index_key", "_seal_key")

    def __init__(self, key: bytes) -> None:
        """Args: key: 32 bytes; what is used is derived from it, one key for each purpose."""
        assert len(key) == KEY_BYTES
        self._seal_key = hmac.digest(key, b"amba-run seal 1", hashlib.sha256)
        self._index_key = hmac.digest(key, b"amba-run index 1", hashlib.sha256)
        self._cipher: AESGCM | None = None

    def seal(self, plain: bytes, aad: tuple[str, ...]) -> bytes:
        """Encrypt.

        Args:
            plain: the value.
            aad: what it is the value of; the same must be given to `open`.
        """
        nonce = entropy.key_bytes(_NONCE_BYTES)
        return _FORM + nonce + self._gcm().encrypt(nonce, plain, _bind(aad))

    def open(self, sealed: bytes, aad: tuple[str, ...]) -> bytes:
        """Decrypt.

        Raises:
            InternalError: SECRET_DAMAGED: changed, of another key, or the value of something else.
        """
        from cryptography.exceptions import InvalidTag

        body = 1 + _NONCE_BYTES
        if sealed[:1] == _FORM and len(sealed) >= body + _TAG_BYTES:
            try:
                return self._gcm().decrypt(sealed[1:body], sealed[body:], _bind(aad))
            except InvalidTag:
                pass
        raise InternalError(
            InternalCode.SECRET_DAMAGED,
            f"the stored value of {' / '.join(part for part in aad if part)} does not open: "
            "it was changed, or sealed with another key",
        )

    def index(self, value: str) -> bytes:
        """HMAC-SHA256 by which a token is found without being stored in the open; 32 bytes."""
        return hmac.digest(self._index_key, value.encode("utf-8", "surrogatepass"), hashlib.sha256)

    def _gcm(self) -> AESGCM:
        if self._cipher is None:
            # Some milliseconds to import: not for a server that has nothing sealed.
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._cipher = AESGCM(self._seal_key)
        return self._cipher


def _bind(aad: tuple[str, ...]) -> bytes:
    """The parts, each behind its length: ("a", "bc") and ("ab", "c") differ."""
    parts = [part.encode("utf-8", "surrogatepass") for part in aad]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
