# Every target sets up what it needs. PYTHON=python3.12 chooses the interpreter of a new .venv.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= cpu,fleet,review,training,pretrained,ros,test
RUN = $(VENV)/bin/python

# A clean environment: a sourced ROS workspace would put other versions in front of the .venv's.
unexport PYTHONPATH

# The robot side's tests; those of training need TensorFlow, which pins a numpy of its own.
JAZZY_VENV ?= .venv-jazzy
JAZZY_TESTS = $(shell grep -rLE --include='test_*.py' --exclude-dir=training '^ *(from|import) training' test) \
	test/cli/test_calibrate_command.py test/drawing/test_overlay.py test/recordings/test_recordings.py

# The tests of the core: files that start no ROS process and train nothing.
SLOW = ^ *(from|import) (training|rclpy|launch|ros_harness|anomaly_detector\.ros)|trained_model
FAST_TESTS = $(shell grep -rLE --include='test_*.py' '$(SLOW)' test)

.PHONY: help setup demo test test-fast cov test-jazzy lint docs check-aarch64 model colcon clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1\t/' | expand -t 24

$(VENV)/.ready: setup.py
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ..." if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV) || { echo "error: no venv module: apt install python3-venv" >&2; exit 1; }
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	touch $@

setup: $(VENV)/.ready ## set up the .venv alone; the others do it when they need it

demo: $(VENV)/.ready ## train, run the real node on a replayed drive, draw the result (DATA=bag REPLAY=bag for your own)
	$(RUN) -m training demo --out demo $(if $(DATA),--data $(DATA)) $(if $(REPLAY),--replay $(REPLAY)) $(if $(TOPIC),--topic $(TOPIC))

test: lint ## ruff, mypy --strict, pytest
	$(RUN) -m pytest

test-fast: $(VENV)/.ready ## the core's tests: no ROS processes, no training
	$(RUN) -m pytest $(FAST_TESTS)

cov: $(VENV)/.ready ## what test-fast covers of each folder, with a floor for each
	$(RUN) -m pytest $(FAST_TESTS) --cov --cov-report=json:build/coverage.json
	$(RUN) .ci/coverage_floors.py

test-jazzy: $(JAZZY_VENV)/.ready ## the robot side's tests again, on ROS 2 Jazzy with numpy 1.26
	$(JAZZY_VENV)/bin/python -m pytest -n 2 $(JAZZY_TESTS)

$(JAZZY_VENV)/.ready: setup.py
	$(PYTHON) -m venv $(JAZZY_VENV)
	$(JAZZY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[cpu,calibrate,replay,review,watch,jazzy,test]'
	touch $@

lint: $(VENV)/.ready ## ruff, mypy --strict and vermin alone
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/vermin --quiet --no-tips --violations --target=3.10- anomaly_detector training launch test benchmarks docs examples setup.py .ci

docs: $(VENV)/.ready ## write the tables of the pages from the code
	$(RUN) -m docs.generate

check-aarch64: $(VENV)/.ready ## every requirement of the robot side has a wheel for 64-bit ARM
	$(RUN) .ci/check_aarch64.py

model: $(VENV)/.ready ## train the model that models/ ships, on the synthetic corridor
	rm -rf build/corridor
	$(RUN) -m training corridor --out build/corridor --frames 1200 --seed 0
	$(RUN) -m training train --data build/corridor --out models/corridor.onnx --seed 1 \
	    --scorer outlier-exposure

colcon: $(VENV)/.ready ## build the ROS 2 package with colcon, into install/
	$(RUN) -m pip install --quiet --disable-pip-version-check colcon-common-extensions
	$(VENV)/bin/colcon build --packages-select anomaly_detector

clean: ## remove what the targets made, except the .venv
	rm -rf build install log demo
