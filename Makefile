# lambda-hat-mpi: `make run` shows what it does, `make test` that it does it.

JOBS  ?= 2
RANKS ?= $(shell n=$$(nproc); if [ $$n -gt 4 ]; then echo 4; else echo $$n; fi)
BIN    = target/release/lambda-hat-mpi

# mpirun refuses root and more ranks than cores unless told; without ssh it looks for a launcher in vain.
MPIRUN_ENV = OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
ifeq ($(shell id -u),0)
MPIRUN_ENV += OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
endif
ifeq ($(shell command -v ssh),)
MPIRUN_ENV += OMPI_MCA_plm_rsh_agent=/bin/false
endif

# cargo-nextest where it is installed, plain `cargo test` elsewhere.
ifneq ($(shell command -v cargo-nextest),)
TEST = cargo nextest run --release -j $(JOBS) --no-fail-fast
else
TEST = cargo test --release -j $(JOBS) --
endif

# Kills a job at random instants, N times, and compares what it ends with.
N ?= 200
torture: bootstrap
	LAMBDA_HAT_TORTURE=$(N) cargo test --release -j $(JOBS) --test torture -- --ignored --nocapture
	LAMBDA_HAT_TORTURE=$(N) cargo test --release -j $(JOBS) --test tune -- --ignored --nocapture

# The program with GPU kernels, and what their compiler says of them: see docs/gpu.md.
build-cuda: bootstrap-cuda
	cargo build --release -j $(JOBS) --features cuda

test-cuda: bootstrap-cuda
	cargo test --release -j $(JOBS) --features cuda --lib -- device::gpu target::network_plan
	cargo test --release -j $(JOBS) --features cuda --test cuda --test cuda_host --test device_run

cuda-table: bootstrap-cuda
	@scripts/cuda-table.sh

lint-cuda: bootstrap-cuda
	cargo clippy --release -j $(JOBS) --features cuda --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release -j $(JOBS) --features cuda --no-deps --document-private-items

.PHONY: run test build sanitize build-cuda test-cuda cuda-table lint-cuda bootstrap-cuda install uninstall torture bench bench-compare bench-five-percent venv-compare bench-schedule bench-tune accuracy lint doc clean bootstrap bootstrap-tests

run: bootstrap build
	$(MPIRUN_ENV) mpirun -n $(RANKS) $(BIN) config/quickstart.yaml

test: bootstrap-tests
	LAMBDA_HAT_PYTHON=$(CURDIR)/.venv/bin/python $(MPIRUN_ENV) $(TEST)

build: bootstrap
	cargo build --release -j $(JOBS)

# Program, manual pages, completions and licences below $(DESTDIR)$(PREFIX); `make build` comes first.
PREFIX ?= /usr/local
SHARE   = $(DESTDIR)$(PREFIX)/share

install:
	@test -x $(BIN) || { echo "$(BIN) is not there: run make build first" >&2; exit 3; }
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/lambda-hat-mpi
	install -D -m 644 -t $(SHARE)/doc/lambda-hat-mpi LICENSE-MIT LICENSE-APACHE
	install -d $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	$(BIN) man --outdir $(SHARE)/man/man1
	$(BIN) completions bash >$(SHARE)/bash-completion/completions/lambda-hat-mpi
	$(BIN) completions zsh >$(SHARE)/zsh/site-functions/_lambda-hat-mpi
	$(BIN) completions fish >$(SHARE)/fish/vendor_completions.d/lambda-hat-mpi.fish

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/lambda-hat-mpi
	rm -f $(SHARE)/man/man1/lambda-hat-mpi.1 $(SHARE)/man/man1/lambda-hat-mpi-*.1
	rm -f $(SHARE)/bash-completion/completions/lambda-hat-mpi $(SHARE)/zsh/site-functions/_lambda-hat-mpi
	rm -f $(SHARE)/fish/vendor_completions.d/lambda-hat-mpi.fish
	rm -rf $(SHARE)/doc/lambda-hat-mpi

accuracy: bootstrap
	cargo bench -j $(JOBS) --bench accuracy

bench: bootstrap
	cargo bench -j $(JOBS) --bench throughput

# Beside JAX and BlackJAX, which are installed into .venv-compare; ROWS="small f64" measures a part and writes no file.
COMPARE = .venv-compare/bin/python
bench-compare: bootstrap build venv-compare
	cargo bench -j $(JOBS) --bench throughput --no-run
	$(COMPARE) benches/compare/compare.py $$(ls -t target/release/deps/throughput-* | grep -v '\.d$$' | head -n 1) $(BIN) $(ROWS)

# Time to a λ̂ within 5 % on base/base, beside the same: as MCLMC adapts now, more than half an hour.
bench-five-percent: bootstrap build venv-compare
	$(COMPARE) benches/compare/five_percent.py $(BIN)

venv-compare:
	@cmp -s benches/compare/requirements.txt .venv-compare/.requirements || { \
	  echo "makes .venv-compare (about 500 MB) with JAX, BlackJAX and Optax"; \
	  rm -rf .venv-compare && python3 -m venv .venv-compare && \
	  $(COMPARE) -m pip install -q --disable-pip-version-check -r benches/compare/requirements.txt && \
	  cp benches/compare/requirements.txt .venv-compare/.requirements; }

bench-schedule: bootstrap
	cargo bench -j $(JOBS) --bench schedule

bench-tune: bootstrap
	cargo bench -j $(JOBS) --bench tune

# The library's unsafe code under the address sanitizer: a build of everything, about ten minutes, then seconds.
# Rust offers its sanitizers to nightly compilers; RUSTC_BOOTSTRAP lets the stable one do it as well.
SANITIZE = CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=target/sanitize RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address
sanitize: bootstrap
	$(SANITIZE) cargo test --release -j $(JOBS) --target $$(rustc -vV | sed -n 's/^host: //p') --lib -- \
	  device:: target::network io::

lint: bootstrap
	cargo fmt --check
	cargo clippy --release -j $(JOBS) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release -j $(JOBS) --no-deps --document-private-items

doc: bootstrap
	cargo doc --release -j $(JOBS) --no-deps --open

clean:
	cargo clean
	rm -rf .venv .venv-compare

bootstrap:
	@scripts/bootstrap.sh

bootstrap-tests:
	@scripts/bootstrap.sh --tests

bootstrap-cuda:
	@scripts/bootstrap.sh --cuda
