"""How a stream reaches Istiod: in plaintext, or by TLS with a token or a client certificate.

Files are read anew for each stream: Kubernetes replaces tokens and certificates under us.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec

from appswitch.errors import InvalidInput

AUDIENCE = "istio-ca"
"""Of the tokens that Istiod takes (its default, `TOKEN_AUDIENCES`)."""
ISTIOD = "istiod.istio-system.svc"
"""A name in every Istiod's certificate."""
MAX_FILE = 1 << 20
"""Bytes of a token, key or certificate file."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a JSON web token says of itself (RFC 7519); nothing of it is verified here."""

    subject: str
    """`system:serviceaccount:NAMESPACE:SERVICE-ACCOUNT`."""
    audiences: tuple[str, ...]
    expires: float | None
    """Seconds since the epoch."""


class _Payload(msgspec.Struct):
    sub: str = ""
    aud: str | list[str] = ""
    exp: float | None = None


def read_claims(token: str) -> Claims:
    """The claims of a token.  Raises InvalidInput."""
    parts = token.split(".")
    if len(parts) != 3:
        raise InvalidInput("it is no JSON web token")
    try:
        data = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        payload = msgspec.json.decode(data, type=_Payload)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput(f"it is no JSON web token: {error}") from error
    audiences = (payload.aud,) if isinstance(payload.aud, str) else tuple(payload.aud)
    return Claims(payload.sub, audiences, payload.exp)


@dataclass(frozen=True, slots=True)
class Transport:
    """Where Istiod is, and how to speak to it."""

    target: str
    """HOST:PORT."""
    ca_cert: Path | None = None
    """PEM; None: plaintext."""
    token: Path | None = None
    """A JSON web token."""
    cert: Path | None = None
    """PEM, the leaf first; with `key`."""
    key: Path | None = None
    server_name: str = ""
    """Looked for in Istiod's certificate; empty: the target's host, or `ISTIOD` where that is an address."""

    def channel(self, options: Sequence[tuple[str, Any]]) -> grpc.aio.Channel:
        """A new channel.  Raises InvalidInput, which names flag and file."""
        if self.ca_cert is None:
            return grpc.aio.insecure_channel(self.target, options=options)
        return grpc.aio.secure_channel(
            self.target,
            self._credentials(),
            options=(*options, ("grpc.ssl_target_name_override", self.expected_name)),
        )

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of a stream's request.  Raises InvalidInput."""
        if self.token and self.ca_cert is None:
            raise InvalidInput("--istio-token: a token is never sent in plaintext: give --istio-ca-cert, too")
        return (("authorization", f"Bearer {self._read_token()}"),) if self.token else ()

    @property
    def expected_name(self) -> str:
        """The name that Istiod's certificate must have."""
        host = self.target.rpartition(":")[0].strip("[]")
        try:
            ip_address(host)
        except ValueError:
            return self.server_name or host
        return self.server_name or ISTIOD

    def _credentials(self) -> grpc.ChannelCredentials:
        root = _read(self.ca_cert, "--istio-ca-cert")
        certificate = _read(self.cert, "--istio-cert") if self.cert else None
        key = _read(self.key, "--istio-key") if self.key else None
        # gRPC says nothing of a file that it cannot use: it is a channel that never connects.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=root.decode("ascii"))
        except (ValueError, ssl.SSLError) as error:
            raise InvalidInput(f"--istio-ca-cert {self.ca_cert}: no certificate in PEM form") from error
        if self.cert:
            try:
                context.load_cert_chain(self.cert, self.key, password=lambda: "")
            except (OSError, ValueError) as error:
                reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "unusable"
                raise InvalidInput(f"--istio-cert {self.cert}, --istio-key {self.key}: {reason}") from error
            if (certificate, key) != (_read(self.cert, "--istio-cert"), _read(self.key, "--istio-key")):
                raise InvalidInput(f"--istio-cert {self.cert}: it is just being replaced")
        return grpc.ssl_channel_credentials(root, key, certificate)

    def _read_token(self) -> str:
        token = _read(self.token, "--istio-token").strip()
        if not token.isascii() or not token.decode("ascii").isprintable() or b" " in token:
            raise InvalidInput(f"--istio-token {self.token}: it is no token")
        return token.decode("ascii")

    def advice(self, code: grpc.StatusCode, details: str, now: float) -> str:
        """What to look at after Istiod's refusal, or "".  `now`: seconds since the epoch."""
        match code:
            case grpc.StatusCode.UNAUTHENTICATED:
                return self._unauthenticated(now)
            case grpc.StatusCode.PERMISSION_DENIED:
                claims = self._claims()
                owner = (
                    f"the token in {self.token} is of {claims.subject!r}"
                    if claims
                    else "a certificate or token"
                )
                return f"{owner}: namespace (--istio-node-id) and SERVICE_ACCOUNT (--istio-meta) must be its"
            case grpc.StatusCode.INVALID_ARGUMENT:
                return "see --istio-node-id, --istio-meta and variables ISTIO_META_*"
            case grpc.StatusCode.UNAVAILABLE:
                return self._unavailable(details)
        return ""

    def _claims(self) -> Claims | None:
        try:
            return read_claims(self._read_token()) if self.token else None
        except InvalidInput:
            return None

    def _unauthenticated(self, now: float) -> str:
        if self.token is None:
            if self.cert is None:
                return "it wants a token (--istio-token) or a certificate (--istio-cert, --istio-key)"
            return f"it does not take the certificate in {self.cert}: of another CA, or expired?"
        claims = self._claims()
        if claims is None:
            return f"{self.token} (--istio-token) holds no JSON web token"
        if claims.expires is not None and claims.expires <= now:
            return f"the token in {self.token} expired {now - claims.expires:.0f} s ago"
        if AUDIENCE not in claims.audiences:
            audiences = ", ".join(claims.audiences) or "nobody"
            return f"the token in {self.token} is for {audiences}, not for {AUDIENCE}"
        return f"it does not take the token in {self.token} of {claims.subject!r}: is it of this cluster?"

    def _unavailable(self, details: str) -> str:
        if self.ca_cert is None:
            ended = "Socket closed" in details or "Connection reset" in details
            return "does the port speak TLS (--istio-ca-cert)?" if ended else ""
        if "CERTIFICATE_VERIFY_FAILED" in details:
            return f"{self.ca_cert} (--istio-ca-cert) is not the root of Istiod's certificate"
        if "Hostname Verification Check failed" in details:
            return f"Istiod's certificate is not for {self.expected_name!r} (--istio-server-name)"
        if "WRONG_VERSION_NUMBER" in details:
            return "the port speaks plaintext: take the TLS port, or leave out --istio-ca-cert"
        return ""


def _read(path: Path | None, flag: str) -> bytes:
    """A file's bytes, not empty.  Raises InvalidInput."""
    assert path is not None
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise InvalidInput(f"{flag} {path}: {error.strerror}") from error
    if not data.strip() or len(data) > MAX_FILE:
        raise InvalidInput(f"{flag} {path}: it is {'empty' if not data.strip() else 'too long'}")
    return data
