"""Settings: what wins over what, and that an error names source, value and reason."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.agent import settings_parse
from appswitch.agent.settings import LATER, Settings
from appswitch.agent.settings_load import HelpWanted, load, options
from appswitch.errors import UsageError


def test_defaults_are_the_manuals() -> None:
    settings = load([], {})
    assert settings == Settings()
    assert settings.rest_port == 6664
    assert settings.driver.ports == ((40000, 60000),)
    assert settings.dns.enabled and settings.dns.domain == "appswitch.local"
    assert settings.node.cluster == "appswitch"
    assert settings.driver.vip_range == IPv4Network("241.0.0.0/8")
    assert settings.driver.dns_ip == IPv4Address("241.255.255.53")


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "ax.conf"
    file.write_text("# comment\n\nAX_REST_PORT=1000\nAX_NODE_NAME='from file'\nAX_CLUSTER = \"west\"\n")
    file.write_text(file.read_text().replace("from file", "file"))
    environ = {
        "AX_REST_PORT": "2000",
        "AX_DNS_DOMAIN": "env.local.",
        "AX_CONFIG_FILE": str(file),
        "AX_DNS": "",
    }
    settings = load(["--rest-port=3000"], environ)
    assert (settings.rest_port, settings.node.name, settings.node.cluster) == (3000, "file", "west")
    assert settings.dns.domain == "env.local"
    assert load([], environ).rest_port == 2000
    assert load(["--config", str(file)], {}).rest_port == 1000


@pytest.mark.parametrize(
    ("words", "value"), [(["--dns"], True), (["--dns=false"], False), (["--dns=true"], True)]
)
def test_switches(words: list[str], value: bool) -> None:
    assert load(words, {}).dns.enabled is value
    assert load([*words, "--clean"], {}).clean is True


@pytest.mark.parametrize(
    ("words", "environ", "error"),
    [
        (["--rest-port", "x"], {}, "--rest-port: 'x' is no number from 0 to 65535"),
        ([], {"AX_REST_PORT": "70000"}, "AX_REST_PORT: '70000' is no number from 0 to 65535"),
        (["--connect-wait", "1h"], {}, "--connect-wait: '1h' is no time (10s, 500ms, 2m, or seconds)"),
        ([], {"AX_CONNECT_WAIT": "601s"}, "AX_CONNECT_WAIT: '601s' is longer than 10m"),
        (["--ports", "9-8"], {}, "--ports: '9-8' has '9-8', whose end is before its start"),
        (["--ports", "1,x"], {}, "--ports: '1,x' has 'x', which is no number from 1 to 65535"),
        (["--dns=maybe"], {}, "--dns: 'maybe' is neither true nor false"),
        (["--dns-servers", "8.8.8"], {}, "--dns-servers: '8.8.8' has '8.8.8', which is no IPv4 address"),
        (["--vip-range", "1.0.0.0/30"], {}, "--vip-range: '1.0.0.0/30' must have a prefix from /8 to /24"),
        (["--istio", "istiod"], {}, "--istio: 'istiod' is no HOST:PORT"),
        (["--istio-node-id", "a~b~c.n~d"], {}, "--istio-node-id: has no meaning without --istio HOST:PORT"),
        ([], {"AX_ISTIO_MODE": "sotw"}, "AX_ISTIO_MODE: has no meaning without --istio HOST:PORT"),
        (["--istio", "i:1", "--istio-mode", "ads"], {}, "--istio-mode: 'ads' is neither delta nor sotw"),
        (
            ["--istio", "i:1", "--istio-token", "t"],
            {},
            "--istio-token: has no meaning without --istio-ca",
        ),
        (
            ["--istio", "i:1", "--istio-ca-cert", "c", "--istio-cert", "d"],
            {},
            "--istio-cert: has no meaning without --istio-key FILE",
        ),
        (
            ["--istio", "i:1", "--istio-ca-cert", "c", "--istio-key", "d"],
            {},
            "--istio-key: has no meaning without --istio-cert FILE",
        ),
        (["--istio-locality", "a//b"], {}, "--istio-locality: 'a//b' is no REGION/ZONE/SUBZONE"),
        (["--istio-meta", "A=b,c"], {}, "--istio-meta: 'A=b,c' has 'c', which is no KEY=VALUE"),
        (["--istio-meta", "LABELS=x"], {}, "--istio-meta: 'LABELS=x' has LABELS, which is no text"),
        (
            ["--driver", "user"],
            {},
            "--driver: 'user' comes with a later release; this one has the kernel driver",
        ),
        (["--rest-port"], {}, "--rest-port: needs a value (number)"),
        (["--wat"], {}, "unknown flag '--wat' (ax daemon -h lists the flags)"),
        (["wat"], {}, "unexpected argument 'wat' (ax daemon -h lists the flags)"),
        (["--config", "/nonexistent"], {}, "--config: cannot read '/nonexistent': No such file or directory"),
        (["--run-dir", "/" + "a" * 100], {}, "room for a Unix socket's name"),
    ],
)
def test_errors_name_source_value_and_reason(words: list[str], environ: dict[str, str], error: str) -> None:
    with pytest.raises(UsageError) as raised:
        load(words, environ)
    assert error in str(raised.value)
    assert raised.value.exit_code == 64
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("line", ["AX_NOPE=1", "REST", "AX_REST_PORT=x", "AX_TLS=true"])
def test_a_bad_line_of_the_file_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "ax.conf"
    file.write_text(f"AX_NODE_NAME=n\n{line}\n")
    with pytest.raises(UsageError, match="line 2"):
        load(["--config", str(file)], {})


@pytest.mark.parametrize("later", LATER, ids=lambda later: later.flag)
def test_flags_of_later_releases_are_declared_and_refused(later: object) -> None:
    flag, metavar = later.flag, later.metavar  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="comes with a later release"):
        load([flag, "1"] if metavar else [flag], {})
    with pytest.raises(UsageError, match=f"{later.variable}: "):  # type: ignore[attr-defined]
        load([], {later.variable: "1"})  # type: ignore[attr-defined]


def test_help_lists_every_flag() -> None:
    with pytest.raises(HelpWanted) as raised:
        load(["-h"], {})
    text = str(raised.value)
    for flag in [o.flag for _, o in options(Settings)] + [later.flag for later in LATER] + ["--config"]:
        assert f"  {flag}" in text


@given(st.text(max_size=40))
def test_parsers_raise_only_value_error(text: str) -> None:
    for _, option in options(Settings):
        try:
            option.parse(text)
        except ValueError:
            pass


def test_overlapping_ranges_are_merged() -> None:
    assert settings_parse.port_ranges("6000-8000,4000,4001,7000-9000") == ((4000, 4001), (6000, 9000))
