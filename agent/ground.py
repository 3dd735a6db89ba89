"""What the daemon stands on, as one value: tests put other things in their place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from appswitch.agent import drivers
from appswitch.agent.holder_process import Holder
from appswitch.agent.logs import Log
from appswitch.agent.port_stock import RESERVED
from appswitch.agent.seams import Cgroups, HolderLike, KernelDriver, Networks, ResetterLike
from appswitch.agent.supervisor import Supervisor
from appswitch.errors import Unsupported
from appswitch.interceptor import cgroup, network
from appswitch.interceptor.kernel import Kernel
from appswitch.interceptor.reset import Resetter


@dataclass(frozen=True, slots=True)
class Ground:
    """See above."""

    require: Callable[[], None]
    """Raises Unsupported where the driver cannot run."""
    open_kernel: Callable[[Path, bool], KernelDriver]
    """(pin directory, clean)"""
    cgroups: Cgroups
    networks: Networks
    make_holder: Callable[[Path, Path, Callable[[int], None], Log, Supervisor], HolderLike]
    make_resetter: Callable[[], ResetterLike]
    reserved_ports: Path


def real_ground() -> Ground:
    """This machine."""
    return Ground(
        require_driver,
        lambda pins, clean: Kernel.open(pins, clean=clean),
        cgroup,
        network,
        Holder,
        Resetter,
        RESERVED,
    )


def require_driver() -> None:
    """Raises Unsupported with what is missing for the kernel driver."""
    for driver in drivers.probe():
        if driver.name == "kernel" and not driver.usable:
            raise Unsupported(f"the kernel driver cannot run here: {driver.reason}")
