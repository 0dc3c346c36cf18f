# Every verb of the project. `make` alone explains them. Needs make and Python 3.11 or newer, nothing else.

VENV ?= .venv
# Processes for the tests. They mostly wait for sockets, so more than there are cores.
JOBS ?= 6
# For run, bench, chaos, soak and fuzz: make run ARGS="--workers 2", make chaos ARGS="--fault 'worker killed'"
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Hundreds of processes read the same files: they are compiled once, also where the machine asks for no such traces.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --quiet

.DEFAULT_GOAL := help
.PHONY: help install run setup-dev prepare-tests check test bench chaos soak fuzz fmt golden lock audit sbom clean

help:
	@echo 'xiaozhi MCP gateway / 小智 MCP 网关'
	@echo
	@echo '  make run        set up and start one gateway on port 8004   安装并启动网关'
	@echo '  make install    only set up: $(BIN)/mcp-gateway         只安装'
	@echo '  make test       set up for development, check, run all tests 检查并运行全部测试'
	@echo '  make check      format, lint, types, import contract         格式、规范、类型、依赖方向'
	@echo '  make fmt        format and fix what can be fixed             自动格式化'
	@echo '  make bench      measure CPU per call against bare relays     性能测试'
	@echo '  make chaos      every fault for minutes, the clients count   故障注入'
	@echo '  make soak       half an hour of faults: is anything growing? 长时间混合故障'
	@echo '  make golden     renew what is derived from the chart         更新由 chart 生成的文件'
	@echo '  make lock       renew what the image is made of              更新镜像的依赖锁定'
	@echo '  make audit      known vulnerabilities of the locked packages 依赖漏洞检查'
	@echo '  make sbom       the bill of materials, build/sbom.cdx.json   软件物料清单'
	@echo '  make fuzz       100,000 hostile peers and as many frames     恶意对端与模糊测试'
	@echo '  make clean      remove environments and caches (data/ stays) 清理（保留 data/）'
	@echo
	@echo 'Start with make run: it prints the two URLs to paste. Settings: .env.example.'
	@echo '先运行 make run：它会打印要粘贴的两个网址。设置见 .env.example。'

# $(VENV)/.python: an environment made by the newest suitable Python (PYTHON=… chooses another one).
$(VENV)/.python:
	@set -e; \
	found=; bare=; \
	for python in $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then found=$$python; break; fi; \
	    bare=$${bare:-$$("$$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')}; \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	    echo "缺少 venv 模块：请先安装 $$bare-venv 软件包（Debian/Ubuntu：apt install $$bare-venv），再重试 /" \
	         "$$bare has no venv module: install the package $$bare-venv (Debian/Ubuntu: apt install $$bare-venv), then retry" >&2; \
	    exit 1; \
	fi; \
	if [ -z "$$found" ]; then \
	    echo "没有找到 Python 3.11 或更新版本：请安装 python3.11（或更新），或用 make PYTHON=/path/to/python3 指定 /" \
	         "No Python 3.11 or newer was found: install python3.11 (or newer), or name one with make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import pip' 2>/dev/null; then \
	    echo "==> $(VENV): $$("$$found" --version)"; \
	    rm -rf $(VENV); \
	    "$$found" -m venv $(VENV); \
	fi; \
	touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.python
	@echo "==> $(VENV): installing the gateway (a minute the first time) / 正在安装网关（首次约一分钟）"
	@$(PIP) install --quiet --editable . || { \
	    echo "安装失败：请检查网络或 pip 的设置，再重试 / Installing failed: check the network or pip's configuration, then retry" >&2; exit 1; }
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.python
	@echo "==> $(VENV): installing the gateway and its development tools / 正在安装网关和开发工具"
	@# uv takes seconds where pip takes a minute; it doesn't read pip's settings, so where it gets nowhere pip tries.
	@{ $(PIP) install --quiet 'uv>=0.13,<1' && \
	    env UV_HTTP_TIMEOUT=15 $${PIP_INDEX_URL:+UV_DEFAULT_INDEX="$$PIP_INDEX_URL"} \
	    $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[dev]'; } 2>/dev/null || \
	$(PIP) install --quiet --editable '.[dev]' || { \
	    echo "安装失败：请检查网络或 pip 的设置，再重试 / Installing failed: check the network or pip's configuration, then retry" >&2; exit 1; }
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed
	@echo '$(BIN)/mcp-gateway is ready; make run starts it / 已就绪，make run 启动'

run: $(VENV)/.installed
	@exec $(BIN)/mcp-gateway serve $(ARGS)

setup-dev: $(VENV)/.installed-dev

check: $(VENV)/.installed-dev
	@echo '==> ruff format, ruff check, mypy --strict, import contract'
	@$(BIN)/ruff format --check --quiet . || { echo 'Not formatted: run make fmt / 格式不对：请运行 make fmt' >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Beside `check`, most of which is one process: what all of pytest's processes would otherwise do at the same time.
test: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory --jobs=2 check prepare-tests
	@echo '==> pytest'
	@$(PYTEST) -n $(JOBS) --dist worksteal $(ARGS)

prepare-tests: $(VENV)/.installed-dev
	@echo '==> tools for the manifests (some seconds the first time) / 清单检查工具（首次约几秒）'
	@$(BIN)/python -m tests.kubernetes.tools
	@# Compiles the tests. What goes wrong here goes wrong again below, where it is said.
	@$(PYTEST) --collect-only $(ARGS) >/dev/null 2>&1 || true

bench: $(VENV)/.installed-dev
	@$(BIN)/python -m bench $(ARGS)

chaos: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.chaos $(ARGS)

soak: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.chaos.soak $(ARGS)

fuzz: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.fuzz $(ARGS)

fmt: $(VENV)/.installed-dev
	@$(BIN)/ruff check --quiet --fix --exit-zero .
	@$(BIN)/ruff format .

golden: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.kubernetes.renew

# What the image is made of: the newest versions that pyproject.toml allows, every file by its hash, for any Python and
# machine. With the extra otel, so that GATEWAY_TRACE_URL is enough there: 10 MB of 50.
LOCK = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --only-binary :all: \
    --custom-compile-command 'make lock'

lock: $(VENV)/.installed-dev
	@$(LOCK) --extra otel --output-file deploy/requirements.lock pyproject.toml
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	    | $(LOCK) --output-file deploy/requirements-build.lock -
	@echo 'deploy/requirements.lock and deploy/requirements-build.lock are renewed: now make test / 已更新，请运行 make test'

# Not part of check: what is known today about yesterday's lock is no property of the code. AUDIT=must fails without data.
audit: $(VENV)/.installed-dev
	@$(BIN)/python deploy/audit.py $(AUDIT)

# From the lock, without a network: every package that the image can have, with the hashes of its files.
sbom: $(VENV)/.installed-dev
	@mkdir -p build
	@$(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible --validate \
	    --output-format JSON --output-file build/sbom.cdx.json deploy/requirements.lock
	@echo 'build/sbom.cdx.json'

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
