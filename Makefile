# Every target sets up what it needs. PYTHON=python3.12 chooses the interpreter of a new .venv.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= cpu,fleet,training,ros,test
RUN = $(VENV)/bin/python

# A clean environment: a sourced ROS workspace would put other versions in front of the .venv's.
unexport PYTHONPATH

.PHONY: help demo test lint model colcon clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

$(VENV)/.ready: setup.py
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ..." if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV) || { echo "error: no venv module: apt install python3-venv" >&2; exit 1; }
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	touch $@

demo: $(VENV)/.ready ## train, run the real node on a replayed drive, draw the result (DATA=bag REPLAY=bag for your own)
	$(RUN) -m training demo --out demo $(if $(DATA),--data $(DATA)) $(if $(REPLAY),--replay $(REPLAY)) $(if $(TOPIC),--topic $(TOPIC))

test: lint ## ruff, mypy --strict, pytest
	$(RUN) -m pytest

lint: $(VENV)/.ready ## ruff and mypy --strict alone
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

model: $(VENV)/.ready ## train the model that models/ ships, on the synthetic corridor
	rm -rf build/corridor
	$(RUN) -m training corridor --out build/corridor --frames 1200 --seed 0
	$(RUN) -m training train --data build/corridor --out models/corridor.onnx --seed 0

colcon: $(VENV)/.ready ## build the ROS 2 package with colcon, into install/
	$(RUN) -m pip install --quiet --disable-pip-version-check colcon-common-extensions
	$(VENV)/bin/colcon build --packages-select anomaly_detector

clean: ## remove what the targets made, except the .venv
	rm -rf build install log demo
