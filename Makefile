# SPDX-License-Identifier: GPL-2.0
#
# vmx_vpid: build the module, boot it on a test kernel, test it.
# "make help" lists the targets.  Kbuild has the part that kbuild reads.

ifneq ($(words $(CURDIR)),1)
$(error vmx_vpid: kbuild takes no path with a space: move "$(CURDIR)" to one without)
endif
HOME ?= $(shell getent passwd $$(id -u) | cut -d: -f6)
CACHE ?= $(or $(VMX_VPID_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vmx_vpid)
ifneq ($(words $(CACHE)),1)
$(error vmx_vpid: kbuild takes no path with a space: name another cache folder with VMX_VPID_CACHE=)
endif
override CACHE := $(abspath $(CACHE))
# DEBUG=1 selects the debug kernel for every target.
VARIANT := $(if $(DEBUG),debug,test)

# One toolchain for kernel and module: Debian's, unless the user names other tools.
LLVM ?= 1
# The folder may not exist yet: "deps" installs the toolchain.
LLVM_BIN ?= /usr/lib/llvm-22/bin
RUSTC ?= /usr/bin/rustc
RUSTDOC ?= /usr/bin/rustdoc
RUSTFMT ?= /usr/bin/rustfmt
CARGO ?= /usr/bin/cargo
HOSTRUSTC ?= $(RUSTC)
# Looked up at each use, since "deps" may install one.
installed_tool = $(shell VMX_VPID_CACHE='$(CACHE)' testbed/deps --print $(1))
BINDGEN ?= $(call installed_tool,bindgen)
export LLVM RUSTC RUSTDOC RUSTFMT CARGO HOSTRUSTC BINDGEN
export VMX_VPID_CACHE := $(CACHE)
ifneq ($(LLVM_BIN),)
# bindgen before 0.72.1 finds no fields of a struct with libclang 22.  Debian's bindgen uses the older
# libclang of its package instead, which does not know each warning of the compiler.
debian_bindgen = $(filter /usr/bin/bindgen,$(BINDGEN))
export LIBCLANG_PATH ?= $(if $(debian_bindgen),$(call installed_tool,libclang),$(LLVM_BIN:%/bin=%/lib))
export BINDGEN_EXTRA_CLANG_ARGS ?= $(if $(debian_bindgen),-Wno-unknown-warning-option)
endif
export PATH := $(LLVM_BIN:%=%:)/usr/bin:$(PATH)

# The user's own trees, if named; the testbed's otherwise.
ifdef KDIR
export KDIR
endif
ifdef KSRC
export KSRC
endif
# (make before 4.4 does not pass exported variables to $(shell), so the command sets them.)
print = $(shell KDIR='$(KDIR)' KSRC='$(KSRC)' VMX_VPID_CACHE='$(CACHE)' \
	testbed/kernel $(if $(DEBUG),--debug) --print $(1))
ksrc = $(call print,KSRC)
kdir = $(call print,KDIR)

# Objects go to build/, by variant and purpose, or where O= says, and never beside the sources.  (To
# kbuild, O= is the folder of the kernel build.)
O := build/$(VARIANT)
kbuild = $(MAKE) -C $(kdir) O=$(kdir) M=$(CURDIR) MO=$(abspath $(1)) LLVM=$(LLVM) \
	RUSTC=$(RUSTC) RUSTDOC=$(RUSTDOC) RUSTFMT=$(RUSTFMT) BINDGEN=$(BINDGEN) \
	VMX_VPID_KUNIT_TEST=m $(if $(V),V=$(V),-s)

ifneq ($(STOCK),)
others := $(filter-out deps run shell check-kernel stock stock-install stock-selftests test-stock \
	test-dkms help,$(MAKECMDGOALS))
ifneq ($(others),)
$(error vmx_vpid: STOCK=1 is for deps, run, shell and check-kernel, not for "$(others)": the tests on \
	stock kernels are "make test-stock")
endif
endif

.DEFAULT_GOAL := help
.PHONY: help deps kernel check-kernel modules clippy rustfmt kernel-source unit-test host-test tools-clippy \
	loom fuzz \
	model mutants run selftests shell test test-debug test-long test-debug-long bench plots clean drawings htmldocs rustdoc \
	stock stock-install stock-selftests test-stock test-dkms print-KSRC print-KDIR

help: ## list the targets
	@sed -nE 's/^([a-zA-Z-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
	@echo
	@echo '  KDIR=, KSRC=    use a kernel build or source tree of your own'
	@echo '  DEBUG=1         kernel, modules, shell: the debug kernel (lockdep, KASAN)'
	@echo '  STOCK=1         deps, run, shell, check-kernel: for a stock kernel of Debian 13'
	@echo '  KERNEL=         which one: a release, or 7.3-amd64, 7.3-rt-amd64, 7.2-cloud-amd64 ...'
	@echo '  V=1             show the commands'

deps: ## install missing packages (Debian 13 or 12, as root)
	@$(if $(STOCK),testbed/stock --deps,testbed/deps)

kernel: $(if $(KDIR),,deps) ## build the test kernel, once per machine (DEBUG=1: the debug kernel)
	@testbed/kernel $(if $(DEBUG),--debug)

check-kernel: ## list what a kernel tree lacks (KDIR=...)
	@testbed/check-kernel $(if $(STOCK),--kernel '$(KERNEL)')

modules: kernel ## build vmx_vpid.ko and its unit tests
	+@$(call build,$(O))

# "objtool klp post-link" has to run exactly once after each link.  STRIP_DEBUG=1 strips the debug
# sections, which is possible only before it.
build = set -e; mkdir -p $(1) build; exec 9>build/.lock; flock 9; $(call kbuild,$(1)) modules; \
	if ! readelf -SW $(1)/vmx_vpid.ko | grep -q '\.klp\.rela\.'; then \
		rust/kvm_target.py $(kdir) $(1)/vmx_vpid.ko; \
		$(if $(STRIP_DEBUG),strip --strip-debug $(1)/vmx_vpid.ko;) \
		$(kdir)/tools/objtool/objtool klp post-link $(1)/vmx_vpid.ko; fi

clippy: kernel ## lint the Rust code
	@mkdir -p build/clippy
	+@$(call kbuild,build/clippy) CLIPPY=1 W=e modules

rustfmt: ## check the format of the Rust code
	@$(RUSTFMT) --check --config-path .rustfmt.toml vmx_vpid/vmx_vpid_main.rs vmx_vpid/vmx_vpid_kunit.rs \
		$$(git ls-files tools/\*.rs)

# The build in userspace needs the kernel's sources and no kernel.
cargo = KSRC='$(ksrc)' CARGO_TARGET_DIR=$(CURDIR)/build/$(notdir $(1)) \
	$(CARGO) $(2) --locked --manifest-path $(1)/Cargo.toml $(if $(V),-v)

kernel-source: $(if $(KSRC)$(KDIR),,deps)
	@testbed/kernel --source

unit-test: kernel-source ## run the unit tests in userspace, without a kernel
	@$(call cargo,tools,test) $(ARGS)

# An older name of unit-test.
host-test: unit-test

model: kernel-source ## search for missing flushes: ten million random steps, all short sequences
	@$(call cargo,tools,build) -q -p model
	@build/tools/debug/model random --steps 10000000 $(if $(SEED),--seed $(SEED))
	@build/tools/debug/model shadow --steps 5000000 $(if $(SEED),--seed $(SEED))
	@for machine in ept shadow ept,context shadow,context ept,c shadow,c; do \
		build/tools/debug/model all --machine $$machine || exit; done
	@for machine in ept,vpids2 shadow,vpids2; do \
		build/tools/debug/model all --step-set Lives --machine $$machine || exit; done

mutants: kernel-source ## inject one bug after the other; some test has to find each
	@KSRC='$(ksrc)' CARGO=$(CARGO) testbed/mutants $(ARGS)

tools-clippy: kernel-source ## lint the code that is built in userspace only
	@$(call cargo,tools,clippy) --workspace --all-targets -- -D warnings
	@$(call cargo,tools/loom,clippy) --all-targets -- -D warnings

loom: kernel-source ## run VPID allocation, attach and detach in every order of a few threads
	@$(if $(PREEMPTIONS),LOOM_MAX_PREEMPTIONS=$(PREEMPTIONS)) $(call cargo,tools/loom,test) loom:: $(ARGS)

# Seconds for each fuzz target, which is a file of tools/fuzz/fuzz_targets.
SECONDS ?= 60
fuzz: kernel-source ## fuzz operands, descriptors, page tables and the model (SECONDS=60 each)
	@KSRC='$(ksrc)' tools/fuzz/run $(SECONDS) $(TARGETS)

build_selftests = $(MAKE) -s -C selftests KDIR=$(kdir) \
	KSELFTEST_DIR=$(ksrc)/tools/testing/selftests OUTPUT=$(CURDIR)/build/selftests

# Tests of another kernel's sources would not be rebuilt by their dates.
selftests: kernel ## build the kselftests, upstream's KVM tests among them
	@[ "$$(cat build/selftests/.ksrc 2>/dev/null)" = '$(ksrc)' ] || rm -rf build/selftests
	@mkdir -p build/selftests && echo '$(ksrc)' >build/selftests/.ksrc
	+@$(build_selftests) all

# A module for a stock kernel is built by the kernel's own compilers, in a chroot if need be.
stock: ## build vmx_vpid.ko for a stock kernel of Debian 13, the running one or KERNEL=
	@testbed/stock --kernel '$(KERNEL)'

stock-install: ## install that module, signed if there is a key (MODULE_KEY=, MODULE_CERT=)
	@testbed/stock --kernel '$(KERNEL)' --install

# The tests are the same for every kernel, and need no test kernel.
stock_kernel = $(or $(KERNEL),$(firstword $(STOCK_KERNELS)))
stock-selftests:
	@testbed/stock --kernel '$(stock_kernel)'
	@KDIR=stock testbed/deps
	@$(MAKE) -s selftests STOCK= KDIR="$$(testbed/stock --kernel '$(stock_kernel)' --print KDIR)"

# The first one is tested in full.
STOCK_KERNELS ?= 7.3-amd64 7.3-rt-amd64 7.3-cloud-amd64 7.2-amd64
stock_tested = $(or $(KERNEL),$(STOCK_KERNELS))
test-stock: stock-selftests ## run the selftests on stock kernels (KERNEL= for one, SHORT=1)
	@for kernel in $(stock_tested); do testbed/stock --kernel $$kernel || exit; done
	@testbed/suite $(addprefix --kernel ,$(stock_tested)) $(if $(SHORT),--short)

test-dkms: ## build and install the module by DKMS, in the chroot of Debian 13 (KERNEL=)
	@testbed/dkms --kernel '$(KERNEL)'

run: $(if $(STOCK),stock-selftests,modules selftests) ## boot, attach to KVM, run real guests, print the counters
	@testbed/run $(if $(STOCK),--kernel '$(stock_kernel)')

shell: $(if $(STOCK),stock-selftests,modules) ## an interactive shell on the test kernel, with KVM and the module
	@testbed/vm $(if $(STOCK),--kernel '$(stock_kernel)',$(if $(DEBUG),--debug)) --module --shell

test: modules selftests ## run every test; the last line counts them
	@testbed/suite

test-debug: ## attach, detach and guests on the debug kernel
	@$(MAKE) -s DEBUG=1 modules selftests
	@testbed/suite --debug

test-long: modules selftests ## the tests that take long
	@testbed/suite --long

test-debug-long: ## the rest of the tests on the debug kernel
	@$(MAKE) -s DEBUG=1 modules selftests
	@testbed/suite --debug --long

bench: modules selftests ## measure Rust against C, in instructions (ARGS=--native: in cycles)
	+@$(build_selftests) bench
	@bench/run $(ARGS); status=$$?; $(MAKE) -s plots && exit $$status

# The model's figures need no kernel, and are the same on every machine.
plots: kernel-source ## count the cost of flush policies on the model, and plot all measurements
	@testbed/deps --bench
	@$(call cargo,tools,build) -q -p model
	@mkdir -p bench/results
	@build/tools/debug/model policies --csv bench/results/policies.csv
	@build/tools/debug/model growth --csv bench/results/growth.csv
	@bench/plot

drawings: $(patsubst %.dot,%.svg,$(wildcard Documentation/drawings/*.dot)) ## draw Documentation/drawings

%.svg: %.dot
	@testbed/deps --docs
	@dot -Tsvg -o $@ $<

htmldocs: ## build the documents as HTML, in build/html; a warning is an error
	@testbed/deps --docs
	@mkdir -p build
	@sphinx-build -q -W --keep-going -b html -d build/doctrees Documentation build/html
	@echo build/html/index.html

rustdoc: modules ## build the rustdoc of the crate, in build/doc; a warning is an error
	@testbed/rustdoc

clean: ## remove build/; kernels stay in the cache
	@rm -rf build

print-KSRC: ## print the kernel source tree in use
	@echo $(ksrc)

print-KDIR: ## print the kernel build tree in use
	@echo $(kdir)
