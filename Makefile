# Everything runs from a private virtual environment, .venv, which the first target that needs it makes.
PYTHON ?= python3
TORCH ?= torch==2.13.0
PIP = .venv/bin/python -m pip --disable-pip-version-check

.PHONY: help setup quickstart test proof cases mutants witnesses lint data bench book notebooks wheel clean

help:
	@echo "make quickstart   the whole road on the shipped village, into runs/quickstart (about three minutes)"
	@echo "make test         every test"
	@echo "make proof        the mathematics on more cases, then the witnesses; PROFILE=overnight for 5,000 cases a test"
	@echo "make cases        the first half of make proof"
	@echo "make mutants      plant every mistake of the bank and look for the test that turns red"
	@echo "make witnesses    install other people's libraries and hold our mathematics against theirs"
	@echo "make lint         ruff and mypy"
	@echo "make data         write the shipped data again, from the village's facts"
	@echo "make bench        every benchmark against the peers, about an hour; QUICK=1 for a short look"
	@echo "make book         build the book's site from chapters/ into build/book, readable without a network"
	@echo "make notebooks    write the chapters as .ipynb into build/notebooks"
	@echo "make wheel        build dist/*.whl"
	@echo "make clean        remove .venv and what tools left behind (runs/ stays)"

setup: .venv/installed

# torch comes first and pinned, so that no other package chooses its version.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) install -q "$(TORCH)"
	$(PIP) install -q -e ".[test,dev]"
	@touch .venv/installed

quickstart: setup
	.venv/bin/minirlhf quickstart --out runs/quickstart --overwrite

# One thread per worker: two workers on two cores beat two threads on tiny tensors.
test: setup
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2

PROFILE ?= ci
PROOFS = tests/reference tests/objectives tests/nn tests/models tests/test_laws.py

proof: cases witnesses

cases: setup
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --timeout 0 $(PROOFS) --gradcheck-profile $(PROFILE)

mutants: setup
	OMP_NUM_THREADS=1 .venv/bin/python -m tests.mutants.run

# PPO left TRL in 1.13, and since 0.12 it cannot be called piece by piece: TRL 0.11 gets an environment of its own.
WITNESSES = tests/witnesses tests/tokenizers/test_tokenizer_witnesses.py tests/models/test_hugging_face.py
OLD_TRL = .venv/old-trl/bin/python

witnesses: setup .venv/old-trl/installed
	$(PIP) install -q -e ".[witness]"
	.venv/bin/python -c "import tiktoken, tokenizers, transformers, trl"
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -rs $(WITNESSES)
	OMP_NUM_THREADS=1 $(OLD_TRL) -m pytest -rs tests/witnesses/test_trl_ppo_witness.py

.venv/old-trl/installed: .venv/installed
	$(PYTHON) -m venv .venv/old-trl
	$(OLD_TRL) -m pip --disable-pip-version-check install -q "$(TORCH)"
	$(OLD_TRL) -m pip --disable-pip-version-check install -q -e ".[test,witness-ppo]"
	@touch $@

# The peers get environments of their own, at the versions in pyproject.toml. Only installing needs the network.
bench: .venv/bench/installed .venv/bench-ppo/installed
	.venv/bench/bin/python -m benchmarks $(if $(QUICK),--quick)

# A warning is an error. The cells of an unchanged chapter are not run again while the library is the same.
book: .venv/book/installed
	PATH="$(CURDIR)/.venv/book/bin:$$PATH" HYPOTHESIS_STORAGE_DIRECTORY=build/hypothesis \
	    .venv/book/bin/jupyter-book build chapters --path-output build -W --keep-going
	rm -rf build/book
	mv build/_build/html build/book
	@echo "Open build/book/index.html"

notebooks: .venv/book/installed
	.venv/book/bin/python chapters/extensions/notebooks.py build/notebooks

.venv/book/installed .venv/bench/installed .venv/bench-ppo/installed: .venv/%/installed: pyproject.toml
	$(PYTHON) -m venv .venv/$*
	.venv/$*/bin/python -m pip --disable-pip-version-check install -q "$(TORCH)"
	.venv/$*/bin/python -m pip --disable-pip-version-check install -q -e ".[$*]"
	@touch $@

lint: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

data: setup
	.venv/bin/python data/make_data.py

wheel: setup
	rm -rf dist
	.venv/bin/python -m build --wheel --outdir dist

clean:
	rm -rf .venv dist build .pytest_cache .hypothesis .mypy_cache .ruff_cache
