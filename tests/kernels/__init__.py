"""Other kernels than this machine's: boots one in qemu and runs tests of ours in it.

`run.py` is the script; `kernel.py` gets a kernel and its modules from a Debian package; `image.py` packs
this interpreter, this source tree and the programs it needs into an initramfs (same paths as here, so
nothing is installed in the machine); `machine.py` boots it, without a network, and reads what it says.
"""
