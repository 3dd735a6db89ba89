"""Apps: adopted or not, ended or not, by their pidfd, their cgroup and their filter."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from apps_bench import Bench

from appswitch.agent.channel import Peer
from appswitch.agent.hello import Request
from appswitch.agent.journal import AppRecord
from appswitch.agent.launch import Caller
from appswitch.agent.logs import Event
from appswitch.errors import AppSwitchError, Denied, Exhausted, InvalidInput, Unavailable, Unsupported
from appswitch.interceptor import abi
from appswitch.model import App, Class, Expose, Labels


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def request(**changes: object) -> Request:
    fields: dict[str, object] = {
        "command": ("prog",),
        "app_class": Class(),
        "ip": None,
        "name": "",
        "exposes": (),
        "user": "",
        "interface": "",
        "new_netns": False,
        "dns_override": True,
    }
    return Request(**(fields | changes))  # type: ignore[arg-type]


def caller(process: subprocess.Popen[bytes], uid: int = 0) -> Caller:
    return Caller(Peer(process.pid, uid, uid), os.pidfd_open(process.pid))


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def test_inside_another_app(bench: Bench) -> None:
    """Whose socket the launcher holds tells whose filter is around it; its end is told by its cgroup."""

    async def work() -> None:
        apps = bench.apps()
        with socket.socket() as probe:
            inode = os.fstat(probe.fileno()).st_ino

            async def start(owner: int, **changes: object) -> App:
                bench.machine.kernel.owners[inode] = owner
                asks = replace(caller(bench.process()), probe=probe.fileno())
                return (await apps.start(request(**changes), asks)).app

            empty, own = await start(0, new_netns=True), await start(0)
            inner = await start(empty.id, new_netns=True)
            deeper = await start(inner.id)
            assert (empty.inside, own.inside, inner.inside, deeper.inside) == (0, 0, empty.id, empty.id)
            assert (await start(own.id)).inside == 0 and (await start(77)).inside == 0
        told = bench.machine.holder.inner
        assert [(app.id, app.cgroup) for app in told.values()] == [
            (app.id, app.cgroup) for app in (inner, deeper)
        ]
        assert bench.machine.cgroups.populated(apps._path(inner))  # before it goes on
        bench.end(bench.processes[2])
        await until(lambda: inner.id not in told)
        assert deeper.id in told
        apps.close()
        assert bench.journal.read().apps[2].app.inside == empty.id
        later, told = bench.apps(), told.copy()
        bench.machine.holder.inner.clear()
        for app in bench.registry.snapshot.apps:
            bench.registry.remove_app(app.id)
        later.adopt(bench.journal.read().apps)
        assert bench.machine.holder.inner == told
        later.close()

    asyncio.run(work())


def test_the_same_process_again(bench: Bench) -> None:
    """`ax run` as an app's first act: its own move into the first cgroup must not come last."""

    async def work() -> None:
        apps, process = bench.apps(), bench.process()
        first = (await apps.start(request(new_netns=True), caller(process))).app
        second = (await apps.start(request(), caller(process))).app
        assert list(bench.machine.cgroups.moved) == [apps._path(first), apps._path(second)]
        apps.close()

    asyncio.run(work())


def test_connect_wait(bench: Bench) -> None:
    async def work() -> None:
        apps, process = bench.apps(), bench.process()
        started = await apps.start(request(connect_wait=2.5), caller(process))
        assert bench.machine.kernel.attached[started.app.id][3] == 25 << abi.APP_WAIT_SHIFT
        assert bench.machine.kernel.waiting.on
        assert bench.journal.read().apps[0].app.connect_wait == 2.5
        bench.end(process)
        await until(lambda: not bench.machine.kernel.waiting.on)
        apps.close()

    asyncio.run(work())


def test_addresses(bench: Bench) -> None:
    async def work() -> None:
        apps, address = bench.apps(), IPv4Address("1.1.1.1")
        asked = (await apps.start(request(ip=address), caller(bench.process()))).app
        named = (await apps.start(request(name="web"), caller(bench.process()))).app
        same = (await apps.start(request(name="web"), caller(bench.process()))).app
        plain = (await apps.start(request(), caller(bench.process()))).app
        assert (asked.ip, plain.ip) == (address, IPv4Address("10.0.0.1"))
        assert named.ip == same.ip == bench.registry.vip("web") and named.ip.packed[0] == 241
        assert len({app.id for app in (asked, named, same, plain)}) == 4
        assert plain.user == 0 and plain.pid == bench.processes[3].pid
        apps.close()

    asyncio.run(work())


def test_equal_apps_share_a_class(bench: Bench) -> None:
    async def work() -> None:
        apps, other = bench.apps(), Class(Labels(frozenset([("a", "b")])))
        for app_class in (Class(), other, Class()):
            await apps.start(request(app_class=app_class, new_netns=True), caller(bench.process()))
        assert [entry[1] for entry in bench.machine.kernel.attached.values()] == [0, 1, 0]
        assert {entry[3] for entry in bench.machine.kernel.attached.values()} == {abi.APP_EMPTY}
        apps.close()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("changes", "uid", "error"),
    [
        ({"user": "root"}, 1000, Denied),
        ({"user": "0"}, 1000, Denied),
        ({"user": "99999999999"}, 0, InvalidInput),
        ({"exposes": (Expose(80, 8080),)}, 1000, Denied),
        ({"ip": IPv4Address("169.254.1.1")}, 0, AppSwitchError),
    ],
)
def test_refused(bench: Bench, changes: dict[str, object], uid: int, error: type[AppSwitchError]) -> None:
    async def work() -> None:
        apps, who = bench.apps(), caller(bench.process(), uid)
        with pytest.raises(error):
            await apps.start(request(**changes), who)
        os.close(who.pidfd)  # it stayed ours
        assert bench.registry.snapshot.apps == () and bench.journal.read().apps == ()
        assert list(bench.machine.cgroups.cgroup_root().iterdir()) == []
        apps.close()

    asyncio.run(work())


def test_a_user(bench: Bench) -> None:
    async def work() -> None:
        apps = bench.apps()
        started = await apps.start(request(user="root"), caller(bench.process()))
        assert started.user == (0, 0) and started.resolv == "/run/resolv.conf"
        own = await apps.start(request(dns_override=False), caller(bench.process(), 1000))
        assert own.user is None and own.app.user == 1000 and own.resolv == ""
        apps.close()

    asyncio.run(work())


def test_a_process_that_is_gone(bench: Bench) -> None:
    async def work() -> None:
        apps, process = bench.apps(), bench.process()
        who = caller(process)
        bench.end(process)
        with pytest.raises(Unavailable, match="ended during its launch"):
            await apps.start(request(), who)
        os.close(who.pidfd)
        assert bench.registry.snapshot.apps == ()
        apps.close()

    asyncio.run(work())


def test_full_tables(bench: Bench) -> None:
    async def work() -> None:
        apps, who = bench.apps(), caller(bench.process())
        bench.machine.kernel.room = 0
        with pytest.raises(Exhausted):
            await apps.start(request(), who)
        assert bench.registry.snapshot.apps == () and bench.machine.kernel.attached == {}
        bench.machine.kernel.room = 1000
        await apps.start(request(), who)
        apps.close()

    asyncio.run(work())


def test_an_empty_namespace_ends_with_its_filter(bench: Bench) -> None:
    async def work() -> None:
        apps, process = bench.apps(), bench.process()
        app = (await apps.start(request(new_netns=True), caller(process))).app
        await apps.inject(app, os.open(os.devnull, os.O_RDONLY))
        bench.machine.holder.living.add(app.id)  # a child, born before its parent was in the cgroup
        bench.machine.kernel.real_ports[app.id] = [20000]
        bench.end(process)
        await asyncio.sleep(0.05)
        apps.sweep()
        assert bench.registry.snapshot.apps == (app,)
        bench.machine.holder.living.clear()
        apps.hung_up(app.id)
        assert bench.registry.snapshot.apps == () and bench.freed == [20000]
        assert bench.machine.holder.held == {} and bench.journal.read().apps == ()
        apps.hung_up(app.id)  # told twice, heard once
        assert bench.log.count(Event.APP_ENDED) == 1
        apps.close()

    asyncio.run(work())


def record(bench: Bench, number: int, process: subprocess.Popen[bytes] | None, index: int = 0) -> AppRecord:
    """An app of an earlier daemon."""
    path = bench.machine.cgroups.create(0, f"{number:08x}")
    if process is not None:
        bench.machine.cgroups.move(process.pid, path)
    pid = process.pid if process else 1
    app = App(number, "u", Class(), IPv4Address("1.1.1.1"), pid=pid, cgroup=f"/ax-{number:08x}")
    return AppRecord(app, index)


def test_adoption(bench: Bench) -> None:
    async def work() -> None:
        apps, process, child = bench.apps(), bench.process(), bench.process()
        alive, dead = record(bench, 1, process, 3), record(bench, 2, None)
        orphan = record(bench, 4, child, 3)
        orphan = AppRecord(
            App(4, "u", Class(), IPv4Address("1.1.1.1"), pid=os.getpid(), cgroup=orphan.app.cgroup), 3
        )  # its number is another process's by now
        assert apps.adopt([alive, dead, orphan]) == [alive, orphan]
        assert bench.registry.class_index(Class()) == 3
        assert set(bench.machine.kernel.attached) == {1, 4} and bench.machine.kernel.forgotten == [2]
        assert not (bench.machine.cgroups.cgroup_root() / "ax-00000002").exists()
        apps.resume()
        bench.end(process)
        await until(lambda: bench.log.count(Event.APP_ENDED) == 2)
        assert [app.id for app in bench.registry.snapshot.apps] == [4]
        bench.end(child)
        apps.sweep()
        assert bench.registry.snapshot.apps == ()
        apps.close()

    asyncio.run(work())


def test_adoption_of_an_app_whose_peer_is_not_numbered(bench: Bench) -> None:
    """Its record is of a release whose numbers of classes stood for addresses too."""

    async def work() -> None:
        apps = bench.apps()
        old = record(bench, 1, bench.process(), 3)
        known = replace(old.app, app_class=Class(address=old.app.ip), inside=7)
        assert apps.adopt([AppRecord(known, 3)]) == [AppRecord(replace(known, app_class=Class()), 3)]
        assert bench.registry.class_index(Class()) == 3
        apps.close()

    asyncio.run(work())


def test_adoption_of_programs_outside_their_cgroup(bench: Bench) -> None:
    """They were born before the first process entered it; their filter tells that they live."""

    async def work() -> None:
        apps, early = bench.apps(), record(bench, 1, None)
        bench.machine.holder.living.add(1)
        assert apps.adopt([early]) == [early]
        apps.resume()
        apps.sweep()
        assert [app.id for app in bench.registry.snapshot.apps] == [1]
        bench.machine.holder.living.clear()
        apps.hung_up(1)
        assert bench.registry.snapshot.apps == () and bench.log.count(Event.APP_ENDED) == 1
        apps.close()

    asyncio.run(work())


def test_an_app_is_in_the_journal_before_anybody_is_in_its_cgroup(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = []

    async def work() -> None:
        apps, cgroups = bench.apps(), bench.machine.cgroups
        move = cgroups.move

        def moving(pid: int, cgroup: Path) -> None:
            known.append([each.app.cgroup for each in bench.journal.read().apps])
            move(pid, cgroup)

        monkeypatch.setattr(cgroups, "move", moving)
        app = (await apps.start(request(), caller(bench.process()))).app
        assert known == [[app.cgroup]]
        cgroups.fail = ProcessLookupError()
        with pytest.raises(Unavailable):
            await apps.start(request(), caller(bench.process()))
        assert [each.app for each in bench.journal.read().apps] == [app]
        apps.close()

    asyncio.run(work())


def test_records_that_contradict_each_other(bench: Bench) -> None:
    async def work() -> None:
        apps, process, other = bench.apps(), bench.process(), bench.process()
        first = record(bench, 1, process, 0)
        second = record(bench, 2, other, 5)  # the same class under another number
        assert apps.adopt([first, second]) == [first]
        assert bench.log.count(Event.APP_REFUSED) == 1
        apps.resume()
        apps.close()

    asyncio.run(work())


def test_a_caller_in_a_place_without_a_network(bench: Bench) -> None:
    """Its sockets are the node's, whatever it asked for, and its lo has the app's address while it lives."""

    async def work() -> None:
        apps, networks, address = bench.apps(), bench.machine.networks, IPv4Address("1.1.1.1")
        networks.ours = False
        process = bench.process()
        for new_netns in (True, False):
            asked = request(ip=address, new_netns=new_netns, lonely=True)
            app = (await apps.start(asked, caller(process))).app
            assert app.new_netns
        assert [ip for _, ip in networks.shown] == [address, address]
        bench.end(process)
        await until(lambda: not bench.registry.snapshot.apps)
        await until(lambda: len(networks.shown) == 1)  # the other app had the address still
        networks.ours = True
        plain = (await apps.start(request(ip=address, lonely=True), caller(bench.process()))).app
        assert not plain.new_netns and len(networks.shown) == 1
        apps.close()

    asyncio.run(work())


def test_a_caller_with_a_network_of_its_own(bench: Bench) -> None:
    """The node's tables would lead it to the wrong loopback."""

    async def work() -> None:
        apps = bench.apps()
        bench.machine.networks.ours = False
        with pytest.raises(Unsupported, match="--new-netns=false: the caller has another network"):
            await apps.start(request(), caller(bench.process()))
        assert not bench.registry.snapshot.apps
        apps.close()

    asyncio.run(work())


def test_where_our_resolv_conf_cannot_be_shown(bench: Bench) -> None:
    """The built-in DNS answers for the app's own nameservers, unless the app does not want that."""

    async def work() -> None:
        apps, own = bench.apps(), (IPv4Address("127.0.0.53"),)
        asks = (await apps.start(request(nameservers=own), caller(bench.process()))).app
        assert (asks.nameservers, asks.app_class.asks_nameservers) == (own, True)
        left = request(nameservers=own, dns_override=False)
        app = (await apps.start(left, caller(bench.process()))).app
        assert (app.nameservers, app.app_class) == ((), Class())
        apps.close()

    asyncio.run(work())
