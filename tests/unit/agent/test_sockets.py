"""Inodes from /proc/net."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from unit.agent.rest_state import manual_node1

from appswitch.agent.sockets import listening, read_sockets
from appswitch.model import Protocol, Service

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LISTENS = (
    "   0: 00000000:9C40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 829 1 0 100\n"
)
CONNECTED = LISTENS.replace(" 0A ", " 01 ").replace("829", "830")


def test_only_listeners_are_read() -> None:
    def lines() -> list[str]:
        return [HEAD, LISTENS, "noise\n", CONNECTED, LISTENS.replace("9C40", "9C41")]

    assert list(listening(lines(), Protocol.TCP)) == [(40000, 829)]
    assert list(listening(lines(), Protocol.UDP)) == [(40000, 829), (40000, 830), (40001, 829)]


@given(st.lists(st.text(st.characters(codec="ascii"), max_size=120), max_size=4))
def test_any_text_is_read_without_error(lines: list[str]) -> None:
    list(listening([HEAD, *lines], Protocol.UDP))


def test_rows_with_and_without_inode(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_text(HEAD + LISTENS)
    rows = read_sockets(manual_node1(), tmp_path)
    assert [(row.appid, row.inode) for row in rows] == [("f00001bb", 829), ("f000028e", 0)]
    assert [row.inode for row in read_sockets(manual_node1(), tmp_path / "missing")] == [0, 0]


def test_a_real_socket() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        service = Service(0xF00001BB, Protocol.TCP, 80, server.getsockname()[1])
        (row,) = read_sockets(replace(manual_node1(), services=(service,)))
        assert row.inode == os.fstat(server.fileno()).st_ino
