"""What pyproject.toml cannot say: the C parts, compiled by zig, go into the wheel.

The launcher becomes the `ax` command; the BPF object and the launchers of all architectures
(one of them is mounted into containers) go inside the package.
"""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

# After setuptools, whose distutils this is.
# isort: split
from distutils.command.build_scripts import build_scripts

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from appswitch.interceptor.build import BUILT, build, install

INSIDE = Path("appswitch", "interceptor", "_built")


class BuildPy(build_py):
    """Compiles, and copies the outputs into the package."""

    def run(self) -> None:
        super().run()
        built = build()
        if not self.editable_mode:  # an editable install finds them in the source tree
            target = Path(self.build_lib, INSIDE)
            target.mkdir(parents=True, exist_ok=True)
            for path in built:
                shutil.copy(path, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = list(super().get_outputs(include_bytecode))
        if self.editable_mode:
            return outputs
        return outputs + [str(Path(self.build_lib, INSIDE, path.name)) for path in build()]


class BuildScripts(build_scripts):
    """Installs this machine's launcher as `ax`: distutils itself takes only text for a script."""

    def run(self) -> None:
        build()
        Path(self.build_dir).mkdir(parents=True, exist_ok=True)
        install(Path(self.build_dir, "ax"))

    def get_source_files(self) -> list[str]:
        return []


class BdistWheel(bdist_wheel):
    """Any Python 3, one platform: the launcher is static and runs on glibc and musl alike."""

    def get_tag(self) -> tuple[str, str, str]:
        machine = platform.machine()
        return "py3", "none", f"manylinux2014_{machine}.musllinux_1_1_{machine}"


class BinaryDistribution(Distribution):
    """Has machine code, though no extension module."""

    def has_ext_modules(self) -> bool:
        return True

    def has_scripts(self) -> bool:
        return True


setup(
    distclass=BinaryDistribution,
    scripts=[str(BUILT / "ax")],  # a name only: BuildScripts makes it
    cmdclass={
        "bdist_wheel": BdistWheel,
        "build_py": BuildPy,
        "build_scripts": BuildScripts,
    },
)
