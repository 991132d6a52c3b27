# The two commands to start with: `sudo make demo` and `sudo make test`.
# Both first run scripts/install, which does nothing if everything is installed.

VENV   := .venv
PYTHON := $(VENV)/bin/python
# Number of parallel test processes: two per CPU, because much of the suite waits for packets and timers.
JOBS   := $(shell n=$$(nproc); echo $$((n > 4 ? 8 : 2 * n)))

# The tests that need neither root nor the kernel's nftables.
UNIT   := tests/unit tests/golden tests/property tests/dnszone tests/gateway -m "not lab and not long" -n $(JOBS) --dist worksteal

# nft and ip are in sbin, which is not in the PATH of ordinary users. Without
# PYTHONNOUSERSITE, a .venv of an older checkout would include ~/.local.
export PATH := $(PATH):/usr/sbin:/sbin
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help install install-command man demo tour test unit coverage test-long fuzz test-cluster test-e2e lint format golden bench bench-daemon bench-traffic deb image fresh clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install:  ## install missing Debian packages, and create .venv with the pinned Python packages
	@scripts/install

install-command: _root install  ## kproxy and netns-lab in /usr/local/bin, with man pages and completion
	ln -sfn $(CURDIR)/$(VENV)/bin/kproxy $(CURDIR)/$(VENV)/bin/netns-lab /usr/local/bin/
	$(PYTHON) -m kproxy.cli.man /usr/local/share/man/man1
	cd /usr/local/share && mkdir -p bash-completion/completions zsh/site-functions fish/vendor_completions.d
	$(VENV)/bin/kproxy completion bash > /usr/local/share/bash-completion/completions/kproxy
	$(VENV)/bin/kproxy completion zsh > /usr/local/share/zsh/site-functions/_kproxy
	$(VENV)/bin/kproxy completion fish > /usr/local/share/fish/vendor_completions.d/kproxy.fish

man: install  ## the man pages in build/man: man -l build/man/kproxy.1
	$(PYTHON) -m kproxy.cli.man build/man

demo: _root install  ## run the example Services in a lab on this machine, and print a report
	@$(PYTHON) -m tour.demo

tour: _root install  ## a book's chapter about Services, step by step, in a lab on this machine; also as a page
	@$(PYTHON) -m tour

test: _root lint  ## lint, then all tests except the long ones; CI runs this
	$(PYTHON) -m pytest -m "not long" -n $(JOBS) --dist worksteal

unit: install  ## the tests that need no root; they take less than a minute
	$(PYTHON) -m pytest $(UNIT)

coverage: install  ## branch coverage of the tests that need no root; fails if a pure room has less than 90%
	$(PYTHON) -m pytest $(UNIT) --cov --cov-report=
	@$(PYTHON) -m tests.coverage_rooms

test-long: _root install  ## the long property tests and stories (KPROXY_LONG_MINUTES, default 30)
	$(PYTHON) -m pytest -m "not lab and not long" --hypothesis-profile random tests/property tests/dnszone tests/unit
	$(PYTHON) -m pytest -m long --hypothesis-profile random

fuzz: install  ## send mutated bytes to everything that reads (KPROXY_LONG_MINUTES, default 60)
	@$(PYTHON) -m pip --disable-pip-version-check --no-input install -q --no-deps -r requirements-fuzz.txt
	$(PYTHON) -m pytest -m long tests/fuzz

# If both are set, KUBEBUILDER_ASSETS is used, because KUBECONFIG in the environment may name a cluster in production.
test-cluster: _root install  ## run the cluster tests against a real API server: KUBEBUILDER_ASSETS=DIR or KUBECONFIG=FILE
	@[ -x "$(KUBEBUILDER_ASSETS)/kube-apiserver" -a -x "$(KUBEBUILDER_ASSETS)/etcd" ] || [ -z "$(KUBEBUILDER_ASSETS)" -a -r "$(KUBECONFIG)" ] || { \
	  echo "make test-cluster: name a folder with kube-apiserver and etcd, or the kubeconfig of a cluster for tests:" \
	    "make test-cluster KUBEBUILDER_ASSETS=DIR, or KUBECONFIG=FILE (docs/cluster.md)" >&2; exit 1; }
	$(if $(KUBEBUILDER_ASSETS),KPROXY_TEST_ASSETS=$(abspath $(KUBEBUILDER_ASSETS)),KPROXY_TEST_KUBECONFIG=$(abspath $(KUBECONFIG))) \
	  $(PYTHON) -m pytest -m "not long" tests/stories/test_cluster*.py \
	  tests/apiserver/test_formats.py tests/apiserver/test_lists.py tests/apiserver/test_watches.py tests/apiserver/test_writes.py

test-e2e: install  ## run Kubernetes' own tests of Services against a cluster: E2E_TEST=PROGRAM KUBECONFIG=FILE
	@[ -n "$(E2E_TEST)" -a -n "$(KUBECONFIG)" ] || { \
	  echo "make test-e2e: name the program and a kubeconfig: make test-e2e E2E_TEST=path/to/e2e.test KUBECONFIG=FILE" \
	    "(docs/cluster.md)" >&2; exit 1; }
	@$(PYTHON) -m tests.e2e "$(abspath $(E2E_TEST))" "$(abspath $(KUBECONFIG))"

lint: install  ## ruff check, ruff format --check, mypy --strict
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

format: install  ## apply the fixes and the format of ruff
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

golden: install  ## rewrite the golden rulesets and the generated tables of docs/; check the diff before you commit it
	$(PYTHON) -m pytest tests/golden --rewrite-golden

bench: _root install  ## print the tables of docs/comparison.md and docs/performance.md
	@$(PYTHON) -m bench
	@$(PYTHON) -m bench.daemon

BENCHED = $(if $(KUBE_PROXY),--kube-proxy $(KUBE_PROXY)) $(if $(KUBEBUILDER_ASSETS),--assets $(KUBEBUILDER_ASSETS))
bench-daemon: _root install  ## kproxy run with an API server; KUBE_PROXY=FILE beside it; KUBEBUILDER_ASSETS=DIR for a real one
	@$(PYTHON) -m bench.daemon $(BENCHED)
	@$(PYTHON) -m bench.api $(BENCHED)

bench-traffic: _root install  ## the cost for packets, with 10 and 10,000 Services (some minutes)
	@$(PYTHON) -m bench.traffic

deb: install  ## build the package for Debian 12 and 13: build/kproxy_VERSION_ARCHITECTURE.deb
	@scripts/deb

image: _root deb  ## build the container image, with podman or buildah (BASE=IMAGE: on this image, not on Debian's packages)
	@BASE="$(BASE)" scripts/image

fresh: _root  ## all of this on a bare Debian 12 and 13 (debootstrap, an hour); scripts/fresh --help lists the stages
	@scripts/fresh

clean:  ## remove .venv and all caches
	@[ ! -e $(VENV) ] || [ -w $(VENV) ] || { echo "make clean: $(VENV) belongs to root. Run: sudo make clean" >&2; exit 1; }
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage *.egg-info netns-lab/*.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: _root
_root:
	@[ "$$(id -u)" = 0 ] || { echo "make $(MAKECMDGOALS): network namespaces and nftables rules need root: sudo make $(MAKECMDGOALS)" >&2; exit 1; }
