"""The whole daemon over a kernel, cgroups and a holder of the test's: starts, serves, survives, ends."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from errno import EACCES
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from daemon_bench import Bench, run
from worlds import POLICIES

from appswitch.agent.daemon import _failed
from appswitch.agent.journal import Journal
from appswitch.agent.logs import Event
from appswitch.agent.requests import NewPort, NewVService, vservice
from appswitch.errors import Conflict, Unsupported
from appswitch.interceptor.events import (
    AdmissionRefused,
    Denied,
    ListenerDown,
    ListenerUp,
    PoolEmpty,
    TableFull,
)
from appswitch.model import Backend, Destination, Mesh, PortMap, Protocol, Service, VService


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def app_id(answer: str) -> int:
    """From the daemon's reply."""
    return int(answer.split("id=")[1].split("\n")[0], 16)


def test_a_launch_from_hello_to_end(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon():
            program = bench.launch(ip="1.1.1.1", name="web", labels="role=test")
            answer = await program.answer()
            assert answer.startswith("ok\n") and "ip=1.1.1.1\n" in answer
            assert f"resolv={bench.run_dir}/resolv.conf" in answer
            number = app_id(answer)
            assert bench.machine.kernel.attached[number][2] == IPv4Address("1.1.1.1")
            assert bench.machine.holder.held == {number: 0}
            (app,) = await bench.get("apps")
            assert (app["name"], app["appip"], app["labels"]) == ("web", "1.1.1.1", ["role=test"])
            service = Service(number, Protocol.TCP, 80, 20000, cookie=5)
            bench.machine.kernel.real_ports[number] = [20000]
            bench.machine.kernel.push(ListenerUp(service))
            await bench.until(lambda: bench.log.count(Event.SERVICE_UP), "the service is known")
            (server,) = await bench.get("servers")
            assert server["serviceaddr"] == "1.1.1.1:80" and server["ipv4addr"].endswith(":20000")
            bench.machine.kernel.push(ListenerDown(service))
            await bench.until(lambda: bench.log.count(Event.SERVICE_DOWN), "the service is gone")
            program.end()
            await bench.until(lambda: bench.log.count(Event.APP_ENDED), "the app is gone")
            assert bench.machine.kernel.forgotten == [number]
            assert bench.machine.holder.held == {}
            assert await bench.get("apps") == []
            assert list(bench.machine.cgroups.cgroup_root().iterdir()) == []

    run(bench, work)
    assert bench.machine.holder.ended and bench.machine.kernel.removed and bench.machine.kernel.closed
    assert bench.machine.reserved.read_text() == "\n"
    assert not (bench.run_dir / "daemon.sock").exists() and not (bench.run_dir / "api.sock").exists()


def test_the_class_is_compiled_before_the_reply(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon():
            for index in range(3):
                await bench.launch(ip=f"1.1.1.{index}", labels=f"a={index}", new_netns=False).answer()
                assert len(bench.machine.kernel.tables.keys) >= 2 * (index + 1)

    run(bench, work)


def test_the_next_daemon_shows_the_same(bench: Bench) -> None:
    shown: list[object] = []

    async def show() -> list[object]:
        return [await bench.get(what) for what in ("apps", "servers", "vservices")]

    async def work() -> None:
        async with bench.daemon(killed=True) as daemon:
            first, second = (
                bench.launch(ip="1.1.1.1", labels="a=b"),
                bench.launch(name="web", new_netns=False),
            )
            numbers = [app_id(await first.answer()), app_id(await second.answer())]
            service = Service(numbers[0], Protocol.TCP, 80, 20000, cookie=7)
            bench.machine.kernel.listening = [service]
            bench.machine.kernel.push(ListenerUp(service))
            await bench.until(lambda: bench.log.count(Event.SERVICE_UP), "the service is known")
            await daemon.state.create_vservice(
                vservice(NewVService(name="v", ip="2.2.2.2", backends=["1.1.1.1"], ports=[NewPort(80, 80)]))
            )
            shown.append(await show())
            keys = dict(bench.machine.kernel.tables.keys)
        async with bench.daemon(killed=True):
            shown.append(await show())
            assert bench.log.count(Event.APP_ADOPTED) == 2
            assert bench.machine.kernel.tables.keys == keys, "tables stay as they are"
            assert set(bench.machine.kernel.attached) >= set(numbers)
            first.end()
            await bench.until(lambda: bench.log.count(Event.APP_ENDED), "an adopted app ends like any other")
        bench.machine.kernel.listening = []
        second.end()  # while no daemon lives
        async with bench.daemon():
            assert await bench.get("apps") == []
            assert [v["name"] for v in await bench.get("vservices")] == ["v"]
        async with bench.daemon("--clean"):
            assert await bench.get("vservices") == []

    run(bench, work)
    assert shown[0] == shown[1]


def test_an_app_outlives_its_first_process(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon():
            program, child = bench.launch(new_netns=False), bench.launch(new_netns=False)
            number = app_id(await program.answer())
            await child.answer()
            path = bench.machine.kernel.attached[number][0]
            bench.machine.cgroups.move(child.popen.pid, path)
            program.end()
            await asyncio.sleep(0.05)
            assert len(await bench.get("apps")) == 2
            child.end()
            await bench.until(lambda: bench.log.count(Event.APP_ENDED) == 2, "both are gone")

    run(bench, work)


def test_an_app_that_dies_half_way_through_its_launch(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon():
            await bench.launch("dies").answer()
            await bench.until(lambda: bench.log.count(Event.APP_ENDED), "the app is gone")
            await bench.until(lambda: bench.log.count(Event.APP_DIED_EARLY), "it is told")
            assert (await bench.launch(new_netns=False).answer()).startswith("ok")
        assert bench.log.count(Event.TASK_FAILED) == 0

    run(bench, work)


@pytest.mark.parametrize(
    ("hello", "code", "words"),
    [
        ({"ip": "999.1.1.1"}, 65, "--ip '999.1.1.1' is no IPv4 address"),
        ({"ip": "241.255.255.53"}, 73, "is the built-in DNS server's"),
        ({"labels": "nonsense"}, 65, "is no KEY=VALUE"),
        ({"user": "nobody-of-this-name"}, 65, "there is no such user on this node"),
    ],
)
def test_refused_launches_leave_nothing(bench: Bench, hello: dict[str, str], code: int, words: str) -> None:
    async def work() -> None:
        async with bench.daemon():
            answer = await bench.launch(**hello).answer()
            assert answer.startswith(f"error\ncode={code}\n") and words in answer
            assert await bench.get("apps") == []
            assert list(bench.machine.cgroups.cgroup_root().iterdir()) == []
            assert bench.machine.kernel.attached == {}
            assert (await bench.launch(new_netns=False).answer()).startswith("ok")

    run(bench, work)


def test_full_tables_refuse_one_launch_and_the_daemon_goes_on(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon():
            bench.machine.kernel.room = 0
            answer = await bench.launch(ip="1.1.1.1").answer()
            assert answer.startswith("error\ncode=75\n") and "full" in answer
            assert bench.log.count(Event.TABLE_FULL) == 1
            assert await bench.get("apps") == []

    run(bench, work)


@pytest.mark.parametrize("where", ["attach", "move"])
def test_a_kernel_that_refuses(bench: Bench, where: str) -> None:
    async def work() -> None:
        async with bench.daemon():
            part = bench.machine.kernel if where == "attach" else bench.machine.cgroups
            part.fail = PermissionError(1, "Operation not permitted")
            answer = await bench.launch(ip="1.1.1.1", new_netns=False).answer()
            assert answer.startswith("error\ncode=71\n") and "not permitted" in answer
            part.fail = None
            assert await bench.get("apps") == []
            assert (await bench.launch(ip="1.1.1.1", new_netns=False).answer()).startswith("ok")

    run(bench, work)


def test_lost_events_are_made_up_for(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon():
            number = app_id(await bench.launch(ip="1.1.1.1", new_netns=False).answer())
            bench.machine.kernel.listening = [Service(number, Protocol.TCP, 80, 20000)]
            bench.machine.kernel.overflows = 17
            await bench.until(lambda: bench.log.count(Event.EVENTS_LOST), "the loss is seen")
            assert len(await bench.get("servers")) == 1
            await asyncio.sleep(1.1)
            assert bench.log.count(Event.EVENTS_LOST) == 1

    run(bench, work)


def test_each_refusal_is_one_event(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon():
            stranger = AdmissionRefused(
                5, IPv4Address("9.9.9.9"), 99, 20000, Protocol.TCP, IPv4Address("10.0.0.1")
            )
            bench.machine.kernel.push(
                Denied(5, Destination(IPv4Address("1.1.1.1"), 80), EACCES, 0),
                stranger,
                PoolEmpty(5, 80, Protocol.TCP),
                TableFull(5, 80, Protocol.TCP),
                ListenerUp(Service(5, Protocol.TCP, 80, 1)),  # of no app that is known
            )
            await bench.until(lambda: bench.log.count(Event.TABLE_FULL), "all are taken")
            found = dict(bench.log.events)
            assert found[Event.CONNECT_DENIED]["error"] == "EACCES"
            assert found[Event.CONNECT_DENIED]["destination"] == "1.1.1.1:80/tcp"
            assert found[Event.ADMISSION_REFUSED]["source"] == "9.9.9.9:99"
            assert bench.machine.resetter.refused == [stranger]
            assert bench.log.count(Event.POOL_EMPTY) == 1
            assert bench.log.count(Event.SERVICE_UP) == 0

    run(bench, work)


def test_a_flood_of_refusals_is_counted(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon():
            denied = Denied(5, Destination(IPv4Address("1.1.1.1"), 80), EACCES, 0)
            bench.machine.kernel.push(*[denied] * 1000)
            await bench.until(lambda: bench.log.count(Event.REFUSALS_COUNTED), "the rest is counted")
            assert bench.log.count(Event.CONNECT_DENIED) == 200
            assert dict(bench.log.events)[Event.REFUSALS_COUNTED]["count"] == 800

    run(bench, work)


def test_the_pool(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon():
            assert sorted(bench.machine.kernel.queue) == list(range(20000, 20011))
            assert bench.machine.reserved.read_text() == "8080,20000-20010\n"
            await bench.until(lambda: bench.log.count(Event.POOL_LOW), "there are no more")
            assert (await bench.get("health"))["status"] == "degraded"
            assert bench.log.count(Event.POOL_LOW) == 1

    bench.machine.reserved.write_text("8080\n")
    run(bench, work)
    assert bench.machine.reserved.read_text() == "8080\n"


def test_a_port_that_the_host_uses_is_not_given(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon():
            assert sorted(bench.machine.kernel.queue) == [p for p in range(20000, 20011) if p != 20004]

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 20004))
        run(bench, work)


def test_two_daemons_on_one_run_directory(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon():
            with pytest.raises(Conflict, match=rf"another daemon \(pid {os.getpid()}\) runs on") as raised:
                async with bench.daemon():
                    pass
            assert "\n" not in str(raised.value)
            assert (await bench.get("health"))["status"]

    run(bench, work)


def test_a_run_directory_that_cannot_be(bench: Bench) -> None:
    async def work() -> None:
        bench.run_dir = Path("/proc/nowhere")
        with pytest.raises(Unsupported, match="run directory /proc/nowhere: No such file"):
            async with bench.daemon():
                pass

    run(bench, work)


def test_a_taken_rest_port(bench: Bench) -> None:
    async def work() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(Conflict, match=f"REST port {port} cannot be listened on"):
                async with bench.daemon("--rest-port", str(port)):
                    pass

    run(bench, work)


def test_a_broken_journal_line_is_one_event(bench: Bench) -> None:
    async def work() -> None:
        bench.run_dir.mkdir()
        (bench.run_dir / "journal").write_bytes(b"nonsense\n")
        async with bench.daemon():
            assert bench.log.count(Event.JOURNAL_BROKEN) == 1
            assert await bench.get("apps") == []

    run(bench, work)


def test_without_dns_there_is_no_resolv_conf(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon("--dns=false"):
            assert "resolv" not in await bench.launch(new_netns=False).answer()

    run(bench, work)


def test_expose(bench: Bench) -> None:
    async def refused(words: str, *exposes: str) -> None:
        answer = await bench.launch(expose=list(exposes)).answer()
        assert answer.startswith("error") and words in answer

    async def work() -> None:
        async with bench.daemon():
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                free = taken.getsockname()[1]
                await refused(f"port {free} of the node is in use", f"80:{free}")
            number = app_id(await bench.launch(expose=[f"80:{free}"], new_netns=False).answer())
            assert bench.machine.kernel.exposed == [(number, 80, free)]
            await refused(f"port {free} of the node is exposed by app {number:08x}", f"81:{free}")
            await refused("9.9.9.9 is not this node", "80:9.9.9.9:80")
            await refused("port 20003 of the node is one of --ports", "80:20003")
            await refused("is named twice", "80:1080", "80:1081")

    run(bench, work)


def pushed(number: int, weight: int = 1) -> VService:
    """A vservice as Istio's."""
    address = IPv4Address(0xF0F00000 + number)
    backend = Backend(IPv4Address("10.244.0.5"), 9080, weight)
    return VService(f"s{number}", (address,), (PortMap(80, 9080),), (backend,), origin="istio")


def test_a_large_push_goes_in_step_by_step(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon() as daemon:
            names = (("s0.default", (IPv4Address(0xF0F00000),)),)
            push = asyncio.create_task(
                daemon.state.apply_istio(Mesh(tuple(pushed(i) for i in range(1000)), names))
            )
            await bench.until(lambda: daemon.state.snapshot().vservices, "it begins")
            assert len(daemon.state.snapshot().vservices) < 1000, "others get their turn meanwhile"
            await push
            assert len(daemon.state.snapshot().vservices) == 1000
            changed = (pushed(0, 2), *(pushed(i) for i in range(2, 1000)))
            await daemon.state.apply_istio(Mesh(changed, names))
            shown = {v["name"]: v for v in await bench.get("vservices")}
            assert len(shown) == 999 and "s1" not in shown and shown["s0"]["backends"][0]["weight"] == 2
        saved = Journal(bench.run_dir, print).read_istio()
        assert len(saved.vservices) == 999 and saved.names == names

    run(bench, work)


def test_a_push_that_does_not_fit_leaves_the_last_good_one(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon() as daemon:
            await daemon.state.apply_istio(Mesh((pushed(0),)))
            bench.machine.kernel.room = 100
            table = tuple(pushed(i) for i in range(900))
            await daemon.state.apply_istio(Mesh(table, policies=POLICIES[:1]))
            assert daemon.state.snapshot().policies == POLICIES[:1], "who may connect is in force even so"
            assert [v.name for v in daemon.state.snapshot().vservices] == ["s0"]
            assert bench.log.count(Event.TABLE_FULL) == 1
            bench.machine.kernel.room = 1 << 30
            await bench.until(lambda: not daemon.state.problems(), "the tables are as before")
            assert (await bench.launch(new_netns=False).answer()).startswith("ok")
        kept = Journal(bench.run_dir, print).read_istio()
        assert kept.policies == POLICIES[:1] and [v.name for v in kept.vservices] == ["s0"]

    run(bench, work)


def test_without_istio_there_is_no_configuration_of_it(bench: Bench) -> None:
    async def work() -> None:
        async with bench.daemon() as daemon:
            for kind in ("clusters", "endpoints", "listeners", "routes", "xds"):
                assert await bench.get(kind) == []
            assert await daemon.state.istio_origin(IPv4Address("10.96.0.1"), 80) is None

    run(bench, work)


def test_an_error_in_a_callback_is_one_event(bench: Bench) -> None:
    """And the daemon goes on: asyncio's own words would go past the log."""
    _failed(bench.log, {"message": "Exception in callback", "exception": OSError(5, "bad"), "task": None})
    assert bench.log.events == [
        (Event.TASK_FAILED, {"task": "loop", "error": "OSError(5, 'bad')", "text": "Exception in callback"})
    ]
