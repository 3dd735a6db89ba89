"""Real servers, configured for a folder of their own, that several tests and benchmarks start."""

from __future__ import annotations

import pwd
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .node import Node
from .sandbox import Process

PROGRAMS = Path(__file__).parent / "programs"
PYTHON = sys.executable

_NGINX = """
{user}
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; multi_accept on; }}
http {{
    access_log {log};
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    server {{
        listen {port}{options};
        listen [::]:{port}{options};
        location / {{ {location} }}
    }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A started nginx and where its files are."""

    process: Process
    folder: Path

    def access_log(self) -> str:
        """One line a request; the client's address first."""
        return (self.folder / "access.log").read_text()


def nginx_argv(
    folder: Path, text: str, *, port: int = 80, workers: int = 2, proxy_to: str = "", log: bool = True
) -> list[str]:
    """Writes a configuration into `folder`: answers with `text`, or passes on to http://PROXY_TO."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(text)
    location = f"proxy_pass http://{proxy_to}; " if proxy_to else f"root {folder};"
    options = " reuseport backlog=4096" if workers > 1 else " backlog=4096"
    user = "user root;" if pwd.getpwuid(folder.stat().st_uid).pw_name == "root" else ""
    conf = folder / "nginx.conf"
    fields = {"user": user, "workers": workers, "folder": folder, "port": port, "options": options}
    access = f"{folder}/access.log" if log else "off"
    conf.write_text(_NGINX.format(**fields, location=location, log=access))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    return [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(conf), "-g", "daemon off;"]


def start_nginx(
    node: Node, *ax_args: str, name: str, ip: str, port: int = 80, workers: int = 2, proxy_to: str = ""
) -> Nginx:
    """nginx under `ax run --ip IP`, listening on IPv4 and [::], once it is in the service table."""
    folder = Path(tempfile.mkdtemp(prefix=f"nginx-{name}-", dir=node.base))
    argv = nginx_argv(folder, f"{name}\n", port=port, workers=workers, proxy_to=proxy_to)
    before = sum(row["serviceaddr"] == f"{ip}:{port}" for row in node.servers())
    process = node.start("--ip", ip, *ax_args, *argv)
    node.wait_service(ip, port, before + 1)
    return Nginx(process, folder)


def start_echo(node: Node, *ax_args: str, name: str, ip: str, port: int = 7000) -> Process:
    """`programs/echo.py` (asyncio) under `ax run --ip IP`, once it is in the service table."""
    before = sum(row["serviceaddr"] == f"{ip}:{port}" for row in node.servers())
    process = node.start("--ip", ip, *ax_args, PYTHON, str(PROGRAMS / "echo.py"), name, str(port))
    node.wait_service(ip, port, before + 1)
    return process


def postgres_bin() -> Path | None:
    """Debian's folder of PostgreSQL programs (the newest version), or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None
