# Shortcuts. `make` alone runs the app.
PYTHON = .venv/bin/python

run: .venv/app
	$(PYTHON) app.py
test: .venv/dev
	$(PYTHON) -m pytest
lint: .venv/dev
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
	npm ci --silent && npm run --silent lint
format: .venv/dev
	.venv/bin/ruff check --fix . ; .venv/bin/ruff format .
bench: .venv/dev
	for name in maps capture training viewer site first visitors; do $(PYTHON) benchmarks/$$name.py || exit 1; done
train: .venv/app
	$(PYTHON) train.py shapes

.venv/app: requirements.txt
	python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt && touch $@
.venv/dev: .venv/app requirements-dev.txt
	.venv/bin/pip install -q -r requirements-dev.txt && touch $@
.PHONY: run test lint format bench train
