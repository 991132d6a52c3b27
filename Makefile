# The two commands a newcomer needs: `sudo make demo` and `sudo make test`.
# Each first runs scripts/install, which does nothing when all is in place.

VENV   := .venv
PYTHON := $(VENV)/bin/python
# Test processes at the same time: much of the suite waits for packets and timers.
JOBS   := $(shell n=$$(nproc); echo $$((n > 4 ? 4 : n)))

# nft and ip live in sbin, which a plain user's PATH lacks. A virtual
# environment that sees the distribution's packages would see ~/.local too,
# and then what runs would depend on whose home this is.
export PATH := $(PATH):/usr/sbin:/sbin
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help install install-command demo test test-long test-cluster lint format golden bench bench-daemon bench-traffic fresh clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install:  ## Debian's packages that are missing, and .venv with the pinned rest
	@scripts/install

install-command: _root install  ## kproxy and netns-lab in /usr/local/bin, linked to .venv
	ln -sfn $(CURDIR)/$(VENV)/bin/kproxy $(CURDIR)/$(VENV)/bin/netns-lab /usr/local/bin/

demo: _root install  ## the chapter's services in a lab on this machine, with a report
	@$(PYTHON) -m netns_lab.demo

test: _root lint  ## lint, then the whole suite (not the long runs); what CI runs
	$(PYTHON) -m pytest -m "not long" -n $(JOBS)

test-long: _root install  ## the long runs of properties and stories (KPROXY_LONG_MINUTES, default 30)
	$(PYTHON) -m pytest -m long

# Of both, KUBEBUILDER_ASSETS is taken: KUBECONFIG may stand in the environment, and name a cluster in use.
test-cluster: _root install  ## what is said of clusters, held against a real API server: KUBEBUILDER_ASSETS=DIR or KUBECONFIG=FILE
	@[ -x "$(KUBEBUILDER_ASSETS)/kube-apiserver" -a -x "$(KUBEBUILDER_ASSETS)/etcd" ] || [ -z "$(KUBEBUILDER_ASSETS)" -a -r "$(KUBECONFIG)" ] || { \
	  echo "make test-cluster: name a folder with kube-apiserver and etcd, or the kubeconfig of a cluster for tests:" \
	    "make test-cluster KUBEBUILDER_ASSETS=DIR, or KUBECONFIG=FILE (docs/cluster.md)" >&2; exit 1; }
	$(if $(KUBEBUILDER_ASSETS),KPROXY_TEST_ASSETS=$(abspath $(KUBEBUILDER_ASSETS)),KPROXY_TEST_KUBECONFIG=$(abspath $(KUBECONFIG))) \
	  $(PYTHON) -m pytest -m "not long" tests/stories/test_cluster*.py \
	  tests/apiserver/test_lists.py tests/apiserver/test_watches.py tests/apiserver/test_writes.py

lint: install  ## ruff, its formatter, mypy --strict
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

format: install  ## what ruff can put right by itself
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

golden: install  ## rewrite the golden rulesets; read the diff before committing it
	$(PYTHON) -m pytest tests/golden --rewrite-golden

bench: _root install  ## the tables of docs and README, peers in the same run
	@$(PYTHON) -m bench
	@$(PYTHON) -m bench.daemon

bench-daemon: _root install  ## the second half of it: kproxy run, following an API server
	@$(PYTHON) -m bench.daemon

bench-traffic: _root install  ## what packets pay, with 10 and 10,000 services (some minutes)
	@$(PYTHON) -m bench.traffic

fresh: _root  ## both commands on a bare Debian 12 and 13 (debootstrap, some minutes)
	@scripts/fresh

clean:  ## remove .venv and every cache
	@[ ! -e $(VENV) ] || [ -w $(VENV) ] || { echo "make clean: root made $(VENV): sudo make clean" >&2; exit 1; }
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info netns-lab/*.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: _root
_root:
	@[ "$$(id -u)" = 0 ] || { echo "make $(MAKECMDGOALS): network namespaces and nftables rules need root: sudo make $(MAKECMDGOALS)" >&2; exit 1; }
