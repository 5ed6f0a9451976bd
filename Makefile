# The everyday commands of development. They use the active virtual environment, or .venv if none is active.
PYTHON ?= python3
VIRTUAL_ENV ?= $(CURDIR)/.venv
export PATH := $(VIRTUAL_ENV)/bin:$(PATH)
# Without this, GNU make 3.81 (macOS) starts simple commands itself, with the PATH it was given.
SHELL := /bin/bash

.PHONY: help setup test lint snapshots bench

help:
	@echo "make setup | test | lint | snapshots | bench: see CONTRIBUTING.md"

setup:
	test -d "$(VIRTUAL_ENV)" || $(PYTHON) -m venv "$(VIRTUAL_ENV)"
	pip install -e '.[test]'

test:
	pytest

lint:
	ruff format --check . && ruff check . && pyright

snapshots:
	pytest tests/app/tui --snapshot-update
	python docs/screenshots.py
	python docs/reference.py

bench:
	python -m tests.benchmarks
