"""TLS to a server like Istiod's: real handshakes, tokens, and what is said where it fails."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from appswitch.agent.tasks import spawn
from appswitch.errors import InvalidInput
from appswitch.xds.ads import Config, Ignored, Rejected, Withheld
from appswitch.xds.client import DELTA_METHOD, SERVICE, Client
from appswitch.xds.delta import Delta
from appswitch.xds.requests import NodeInfo
from appswitch.xds.transport import ISTIOD, Claims, Transport, read_claims

NODE = NodeInfo("sidecar~10.244.9.1~client-1.default~default.svc.cluster.local")
NOW = 1_800_000_000.0


def jwt(**claims: Any) -> str:
    """A token that nobody has signed."""
    parts = ({"alg": "none"}, {"sub": "system:serviceaccount:shop:web", "aud": ["istio-ca"], **claims})
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*texts, "signature"])


@dataclass
class Ears:
    """Remembers why streams ended."""

    reasons: list[str] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish(self, config: Config) -> None:
        pass

    def connected(self) -> None:
        pass

    def disconnected(self, reason: str, delay: float) -> None:
        self.reasons.append(reason)
        self.moved.set()

    def rejected(self, rejected: Rejected | Ignored | Withheld) -> None:
        pass

    def fell_back(self, reason: str) -> None:
        pass


@dataclass
class Istiod:
    """Ends each stream after its first request, as `answer` says; what it saw."""

    folder: Path
    authority: trustme.CA
    answer: Callable[[Any], Any]
    port: int = 0
    authorizations: list[str] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)

    def transport(self, **changes: Any) -> Transport:
        root = self.folder / "root.pem"
        self.authority.cert_pem.write_to_path(root)
        return replace(Transport(f"127.0.0.1:{self.port}", root), **changes)

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    async def serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        self.authorizations.append(metadata.get("authorization", ""))
        names = context.auth_context().get("x509_subject_alternative_name", ())
        self.clients += [name.decode() for name in names]
        async for _ in requests:
            await self.answer(context)
            return


@contextlib.asynccontextmanager
async def istiod(
    folder: Path,
    answer: Callable[[Any], Any] = lambda _: asyncio.sleep(0),
    *,
    names: tuple[str, ...] = (ISTIOD,),
    tls: bool = True,
    certificates: bool = False,
) -> AsyncIterator[Istiod]:
    made = Istiod(folder, trustme.CA(), answer)
    handlers = {DELTA_METHOD: grpc.stream_stream_rpc_method_handler(made.serve)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if tls:
        leaf = made.authority.issue_cert(*names)
        pair = leaf.private_key_pem.bytes(), b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        root = made.authority.cert_pem.bytes()
        credentials = grpc.ssl_server_credentials([pair], root if certificates else None, certificates)
        made.port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        made.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield made
    finally:
        await server.stop(0)


async def reasons(
    transport: Transport, count: int = 1, between: Callable[[], Any] = lambda: None
) -> list[str]:
    """Why the first `count` streams ended."""
    ears = Ears()

    async def soon(_: float) -> None:
        between()
        await asyncio.sleep(0.02)

    subject = Client(transport, NODE, ears, Delta(), soon, lambda _, high: high)
    task = spawn("client", subject.run())
    try:
        async with asyncio.timeout(20):
            while len(ears.reasons) < count:
                ears.moved.clear()
                await ears.moved.wait()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return ears.reasons


def test_a_token_is_read_anew_for_each_stream(tmp_path: Path) -> None:  # C56
    async def scenario() -> None:
        async with istiod(tmp_path) as server:
            token = server.file("token", "first\n")
            await reasons(server.transport(token=token), 2, lambda: server.file("token", "second\n"))
            assert server.authorizations[0] == "Bearer first"
            assert server.authorizations[-1] == "Bearer second"

    asyncio.run(scenario())


def test_a_client_certificate(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with istiod(tmp_path, certificates=True) as server:
            leaf = server.authority.issue_cert("web.shop")
            leaf.private_key_pem.write_to_path(tmp_path / "key")
            leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert")
            await reasons(server.transport(cert=tmp_path / "cert", key=tmp_path / "key"))
            assert set(server.clients) == {"web.shop"}
            assert set(server.authorizations) == {""}
            assert "UNAVAILABLE" in (await reasons(server.transport()))[0]

    asyncio.run(scenario())


@pytest.mark.parametrize(("target", "name"), [("localhost", "localhost"), ("127.0.0.1", ISTIOD)])
def test_whose_certificate_is_expected(tmp_path: Path, target: str, name: str) -> None:
    async def scenario() -> None:
        async with istiod(tmp_path, names=(name,)) as server:
            said = await reasons(server.transport(target=f"{target}:{server.port}"))
            assert said == ["the server ended the stream"]
            said = await reasons(server.transport(server_name="other.example"))
            assert "Istiod's certificate is not for 'other.example' (--istio-server-name)" in said[0]

    asyncio.run(scenario())


def test_the_wrong_root(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with istiod(tmp_path) as server:
            server.authority = trustme.CA()
            said = await reasons(server.transport())
            assert (
                f"({tmp_path}/root.pem (--istio-ca-cert) is not the root of Istiod's certificate)" in said[0]
            )

    asyncio.run(scenario())


@pytest.mark.parametrize("tls", [True, False])
def test_tls_on_one_side_alone(tmp_path: Path, tls: bool) -> None:
    async def scenario() -> None:
        async with istiod(tmp_path, tls=tls) as server:
            said = await reasons(Transport(f"127.0.0.1:{server.port}") if tls else server.transport())
            hint = "does the port speak TLS (--istio-ca-cert)?" if tls else "the port speaks plaintext"
            assert said[0].startswith("UNAVAILABLE: ") and hint in said[0]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("token", "hint"),
    [
        (None, "it wants a token (--istio-token) or a certificate"),
        ("garbage", "/token (--istio-token) holds no JSON web token"),
        (jwt(exp=5), "/token expired "),
        (jwt(aud="kubernetes"), "/token is for kubernetes, not for istio-ca"),
        (jwt(), "it does not take the token in "),
    ],
)
def test_who_is_not_authenticated(tmp_path: Path, token: str | None, hint: str) -> None:
    refuse = grpc.StatusCode.UNAUTHENTICATED, "authentication failure"

    async def scenario() -> None:
        async with istiod(tmp_path, lambda context: context.abort(*refuse)) as server:
            file = server.file("token", token) if token else None
            said = await reasons(server.transport(token=file))
            assert said[0].startswith("UNAUTHENTICATED: authentication failure (") and hint in said[0]

    asyncio.run(scenario())


def test_advice_on_the_rest(tmp_path: Path) -> None:
    transport = Transport("istiod:15012", tmp_path / "root", tmp_path / "token")
    (tmp_path / "token").write_text(jwt())
    said = transport.advice(grpc.StatusCode.PERMISSION_DENIED, "authorization failed", NOW)
    assert "of 'system:serviceaccount:shop:web'" in said and "--istio-meta" in said
    certified = replace(transport, token=None, cert=tmp_path / "cert")
    assert "--istio-meta" in certified.advice(grpc.StatusCode.PERMISSION_DENIED, "", NOW)
    assert f"{tmp_path}/cert" in certified.advice(grpc.StatusCode.UNAUTHENTICATED, "", NOW)
    assert transport.advice(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", NOW) == ""
    assert transport.advice(grpc.StatusCode.UNAVAILABLE, "something else", NOW) == ""
    assert Transport("istiod:15010").advice(grpc.StatusCode.UNAVAILABLE, "Connection refused", NOW) == ""


@pytest.mark.parametrize(
    ("broken", "text", "reason"),
    [
        ("ca_cert", None, "--istio-ca-cert {}: No such file or directory"),
        ("ca_cert", "nonsense", "--istio-ca-cert {}: no certificate in PEM form"),
        ("token", "  \n", "--istio-token {}: it is empty"),
        ("token", "two words", "--istio-token {}: it is no token"),
        ("token", "x" * (1 << 21), "--istio-token {}: it is too long"),
        ("key", "nonsense", "--istio-key {}: "),
        ("cert", None, "--istio-cert {}: No such file or directory"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, broken: str, text: str | None, reason: str) -> None:
    """The next stream looks again."""
    authority = trustme.CA()
    leaf = authority.issue_cert("web.shop")
    files = {name: tmp_path / name for name in ("ca_cert", "token", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca_cert"])
    files["token"].write_text("token")
    leaf.cert_chain_pems[0].write_to_path(files["cert"])
    leaf.private_key_pem.write_to_path(files["key"])
    files[broken].unlink()
    if text is not None:
        files[broken].write_text(text)
    said = asyncio.run(reasons(Transport("127.0.0.1:1", **files), 2))
    assert all(reason.format(files[broken]) in each for each in said), said


def test_claims() -> None:
    assert read_claims(jwt(exp=12.5)) == Claims("system:serviceaccount:shop:web", ("istio-ca",), 12.5)
    assert read_claims(jwt(aud="a")).audiences == ("a",)
    for text in ("", "a.b", "a.b.c", f"a.{base64.urlsafe_b64encode(b'[]').decode()}.c"):
        with pytest.raises(InvalidInput, match="it is no JSON web token"):
            read_claims(text)


@given(
    st.text(max_size=60)
    | st.builds(lambda part: f"a.{base64.urlsafe_b64encode(part).decode()}.c", st.binary())
)
def test_claims_of_anything(text: str) -> None:
    try:
        read_claims(text)
    except InvalidInput:
        pass
