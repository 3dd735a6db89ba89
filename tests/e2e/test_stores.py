"""Redis, PostgreSQL, iperf3: clients and servers that are not web, both under `ax run`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from e2e.node import Node
from e2e.servers import postgres_bin

CLIENT_IP = "2.2.2.2"


@pytest.mark.skipif(not shutil.which("redis-server"), reason="no redis-server here")
def test_redis(node: Node, mode: list[str], tmp_path: Path) -> None:
    ip = node.fresh_ip()
    server = ["redis-server", "--save", "", "--protected-mode", "no", "--dir", str(tmp_path)]
    node.start("--ip", ip, *mode, *server)
    node.wait_service(ip, 6379)
    cli = ["--ip", CLIENT_IP, *mode, "redis-cli", "-h", ip]
    assert node.run(*cli, "set", "colour", "green").ok() == "OK\n"
    assert node.run(*cli, "get", "colour").ok() == "green\n"
    assert f"addr={CLIENT_IP}:" in node.run(*cli, "client", "info").ok()
    assert node.run(*cli, "publish", "news", "none").ok() == "0\n"


@pytest.mark.skipif(not shutil.which("iperf3"), reason="no iperf3 here")
def test_iperf3(node: Node, mode: list[str]) -> None:
    ip = node.fresh_ip()
    node.start("--ip", ip, *mode, "iperf3", "-s")
    node.wait_service(ip, 5201)
    out = node.run("--ip", CLIENT_IP, *mode, "iperf3", "-c", ip, "-t", "1", "-P", "2", "-J").ok()
    report = json.loads(out)
    assert report["start"]["connected"][0]["remote_host"] == ip
    assert report["start"]["connected"][0]["local_host"] == CLIENT_IP
    assert report["end"]["sum_received"]["bytes"] > 1_000_000
    reverse = node.run(*mode, "iperf3", "-c", ip, "-t", "1", "-R", "-J").ok()
    assert json.loads(reverse)["end"]["sum_received"]["bytes"] > 1_000_000


@pytest.mark.skipif(postgres_bin() is None, reason="no PostgreSQL here")
def test_postgres(node: Node, mode: list[str], short_tmp: Path) -> None:
    folder = postgres_bin()
    assert folder is not None
    ip = node.fresh_ip()
    data = short_tmp / f"pg{len(mode)}"
    data.mkdir(mode=0o700)
    shutil.chown(data, "postgres", "postgres")
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
    initdb = [str(folder / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync"]
    subprocess.run([*as_postgres, *initdb], check=True, capture_output=True, timeout=60, cwd=short_tmp)
    with (data / "pg_hba.conf").open("a") as hba:
        hba.write(f"host all all {CLIENT_IP}/32 trust\n")
    options = ["-c", "listen_addresses=*", "-c", f"unix_socket_directories={data}", "-c", "fsync=off"]
    server = node.start(
        "--ip", ip, "--user", "postgres", *mode, str(folder / "postgres"), "-D", str(data), *options
    )
    node.wait_service(ip, 5432)
    node.wait(lambda: "ready to accept connections" in server.output(), "PostgreSQL is ready", 20)
    psql = ["--ip", CLIENT_IP, *mode, str(folder / "psql"), "-h", ip, "-U", "postgres", "-At"]
    sql = "create table t(a int); insert into t select generate_series(1, 1000); select sum(a) from t"
    assert node.run(*psql, "-c", sql).ok().endswith("500500\n")
    assert node.run(*psql, "-c", "select inet_client_addr()").ok() == f"{CLIENT_IP}\n"
    stranger = node.run("--ip", "2.2.2.3", *mode, *psql[2 + len(mode) :])
    assert "no pg_hba.conf entry for host" in stranger.err
    server.stop(2)  # SIGINT: fast shutdown
