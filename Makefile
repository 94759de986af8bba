# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. Each does its own set-up: Debian packages, .venv, configuration, build.
BUILD  ?= build
PREFIX ?= /usr/local
JOBS   ?= $(shell nproc)
PYTHON := .venv/bin/python

.DEFAULT_GOAL := build
.PHONY: help setup configure build demo test bench python install format lint sanitize clean

help:            ## list the targets
	@sed -n 's/^\([a-z]*\): .*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup:           ## install what is missing: Debian packages and the pinned wheels in .venv
	@tools/setup.sh

configure: setup
	@test -f $(BUILD)/build.ninja || cmake -S . -B $(BUILD) -G Ninja -DHALCYON_BUILD_PYTHON=ON

build: configure ## the library and the command line, $(BUILD)/bin/halcyon
	@ninja -C $(BUILD) -j $(JOBS) halcyon_cli

demo: build      ## real observations to an analysis, with the weights shipped in demo/
	@tools/demo.sh $(BUILD)

test: configure  ## every test; the last line is "N passed, N failed"
	@ninja -C $(BUILD) -j $(JOBS)
	@$(PYTHON) tools/run_tests.py $(BUILD)

bench: configure ## the benchmarks, beside the peer's figures; FILTER=regex runs some
	@BUILD=$(BUILD) JOBS=$(JOBS) tools/bench.sh $(FILTER)

python: configure ## the Python module, importable from $(BUILD)/python
	@ninja -C $(BUILD) -j $(JOBS) halcyon_python halcyon_python_sources
	@echo "PYTHONPATH=$(BUILD)/python $(PYTHON) -c 'import halcyon'"

install: build   ## into PREFIX (default /usr/local); find_package(halcyon) then works
	@cmake --install $(BUILD) --prefix $(PREFIX)

format:          ## clang-format over all sources
	@git ls-files '*.h' '*.cpp' '*.cu' | xargs clang-format -i

lint: configure  ## clang-format and clang-tidy, as CI has them
	@tools/lint.sh

sanitize: setup  ## the tests under ASan + UBSan, the threaded ones under TSan
	@tools/sanitize.sh

clean:           ## remove the build
	@rm -rf $(BUILD)
