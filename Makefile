# serve  stop  test  check  bench  soak
export PATH := $(CURDIR)/.venv/bin:$(PATH)
.PHONY: setup serve stop test check bench soak

setup: # everything the other targets need; at once when it is there
	@.ci/setup

serve: setup # MODEL=DIR serves your own model folder instead of the demo model
	@.venv/bin/modelunit up $${MODEL:+--model "$$MODEL"}

stop: # what `make serve` started; data stay
	@if [ -x .venv/bin/modelunit ]; then .venv/bin/modelunit down; else echo "Nothing to stop: nothing is set up here."; fi

test: setup # those without Ray in three processes, which wait now and then; then two with a platform each
	@.venv/bin/python -m pytest -n 3 --dist worksteal --ignore tests/cluster -m "not soak"
	@.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not soak" tests/cluster

check: setup
	@.venv/bin/ruff format --check
	@.venv/bin/ruff check
	@.venv/bin/mypy
	@.venv/bin/lint-imports

bench: setup
	@.venv/bin/modelunit bench-platform

soak: setup # the long trials at full counts
	@.venv/bin/python -m pytest -m soak
