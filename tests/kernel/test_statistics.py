"""What the kernel says of our programs and maps."""

from __future__ import annotations

import os

from kernel.driver import Driver

from appswitch.interceptor.statistics import ProgramStatistics

DIAL = """
import socket
s = socket.socket(); s.bind(("", 80)); s.listen(64)
for _ in range(50):
    socket.create_connection(("1.1.1.1", 80)).close()
"""


def programs(driver: Driver) -> dict[str, ProgramStatistics]:
    return {each.name: each for each in driver.kernel.statistics.programs()}


def test_runs_are_counted_while_they_are_asked_for(driver: Driver) -> None:
    app = driver.app("1.1.1.1")
    before = programs(driver)
    driver.python(app, DIAL).ok()
    unasked = programs(driver)
    descriptor = driver.kernel.statistics.enable()
    try:
        driver.python(app, DIAL).ok()
    finally:
        os.close(descriptor)
    after = programs(driver)
    runs = after["ax_connect4"].runs - unasked["ax_connect4"].runs
    assert runs == 50
    assert 100 < (after["ax_connect4"].nanoseconds - unasked["ax_connect4"].nanoseconds) / runs < 1e6
    # unless something else on this machine asks at the same time, nothing was counted before
    assert unasked["ax_connect4"].runs - before["ax_connect4"].runs in (0, 50)
    assert all(each.memory and each.id for each in after.values())


def test_where_programs_hang(driver: Driver) -> None:
    assert {each.attached for each in driver.kernel.statistics.programs()} == {0}
    first = driver.app("1.1.1.1")
    driver.app("1.1.1.2")
    assert programs(driver)["ax_connect4"].attached == 2
    assert programs(driver)["ax_own_ingress"].attached == 0
    (driver.sandbox.cgroup / first).rmdir()
    assert programs(driver)["ax_connect4"].attached == 1


def test_maps_and_how_full_they_are(driver: Driver) -> None:
    app = driver.app("1.1.1.1")
    maps = {each.name: each for each in driver.kernel.statistics.maps()}
    assert (maps["ports"].entries, maps["ports"].capacity) == (0, 262144)
    assert maps["groups"].entries is None and maps["groups"].capacity == 131072
    assert maps["backends"].memory > 524288 * 16
    driver.serve(
        app,
        "import socket, time; s = socket.socket(); s.bind(('', 80)); s.listen(); print(1); time.sleep(99)",
    )
    assert {each.name: each for each in driver.kernel.statistics.maps()}["ports"].entries == 1
