# make venv    .venv with everything in it; .venv/bin/ax is the command
# make demo    the main job, end to end, explaining itself (root)
# make check   ruff, mypy, import-linter
# make test    all tests (kernel and end-to-end tests need root; others skip them with a reason)
# make bench   speed against native, in one run
# make clean   removes what the others made, but .venv

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILT := interceptor/_built

# Never import from the current directory: `xds`, `agent`… exist there without their package.
export PYTHONSAFEPATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PATH := $(PATH):/usr/sbin:/sbin:/usr/local/go/bin

# Debian packages, as PROBE=PACKAGE: a command on PATH, or an absolute file pattern.
RUNTIME_PACKAGES := \
	/usr/lib/*/libbpf.so.1=libbpf1
VENV_PACKAGES := \
	/usr/lib/python3*/ensurepip/__init__.py=python3-venv
DEMO_PACKAGES := \
	nginx=nginx-light curl=curl ip=iproute2
TEST_PACKAGES := $(DEMO_PACKAGES) \
	redis-server=redis-server iperf3=iperf3 wrk=wrk dig=dnsutils busybox=busybox-static runc=runc \
	/usr/lib/postgresql/*/bin/postgres=postgresql \
	bpftool=bpftool iptables=iptables systemd-analyze=systemd go=golang-go javac=default-jdk-headless node=nodejs git=git \
	qemu-system-x86_64=qemu-system-x86
# CPython's own suites (tests/oracle), which Debian's interpreter does not have with it.
DEBIAN_PYTHON := $(shell $(PYTHON) -c 'import sys; sys.base_prefix == "/usr" and print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
ifneq ($(DEBIAN_PYTHON),)
TEST_PACKAGES += /usr/lib/python$(DEBIAN_PYTHON)/test/test_socket.py=libpython$(DEBIAN_PYTHON)-testsuite
endif

# $(call packages,LIST): what of LIST is missing is installed by root; others are told the line to run.
# policy-rc.d (exit 101) keeps Debian's scripts from starting the servers that come with packages.
define packages
@missing=; for pair in $(1); do probe=$${pair%%=*}; \
	case $$probe in /*) ls $$probe >/dev/null 2>&1 ;; *) command -v $$probe >/dev/null ;; esac \
	|| missing="$$missing $${pair#*=}"; done; \
[ -z "$$missing" ] && exit 0; \
if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	echo "missing packages; as root, run: apt-get install --no-install-recommends$$missing" >&2; exit 1; fi; \
echo "installing:$$missing"; policy=/usr/sbin/policy-rc.d; \
if [ ! -e $$policy ]; then trap "rm -f $$policy" EXIT INT TERM; \
	printf '#!/bin/sh\nexit 101\n' >$$policy; chmod 755 $$policy; fi; \
apt-get update -q >/dev/null; \
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing >/dev/null
endef

.PHONY: venv demo check test bench clean test-packages demo-packages

venv: $(BUILT)/.done
	$(call packages,$(RUNTIME_PACKAGES))

$(VENV)/.installed: pyproject.toml setup.py
	@[ -x $(BIN)/python ] || $(MAKE) --no-print-directory .venv-packages
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade 'pip>=23' 'setuptools>=77' 'ziglang>=0.14'
	$(BIN)/python -m pip install -q --no-build-isolation -e '.[dev]'
	@touch $@

.PHONY: .venv-packages
.venv-packages:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory .venv-apt

.PHONY: .venv-apt
.venv-apt:
	$(call packages,$(VENV_PACKAGES))

$(BUILT)/.done: $(VENV)/.installed interceptor/build.py $(wildcard interceptor/bpf/* interceptor/launcher/*)
	$(BIN)/python -m appswitch.interceptor.build --install $(BIN)/ax
	@touch $@

test-packages:
	$(call packages,$(TEST_PACKAGES))

demo-packages:
	$(call packages,$(DEMO_PACKAGES))

demo: venv demo-packages
	$(BIN)/python istio-samples/demo.py

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: venv test-packages
	$(BIN)/python -m pytest

bench: venv test-packages
	$(BIN)/python bench/run.py

clean:
	rm -rf build dist src/*.egg-info $(BUILT) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
