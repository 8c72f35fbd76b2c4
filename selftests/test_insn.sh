#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Guests execute INVLPG, INVPCID, INVVPID and INVEPT in every way there is.  C has
# to do what it is known to do, the module what the architecture says; they differ
# only in the cases that are marked with one of the names of
# Documentation/differences.rst.

. "$(dirname "$0")/functions.sh"
require
[ -x "$BIN/guests/insn" ] || skip_all "guests/insn is not built: run 'make selftests'"

groups() { # value of ept: the groups of cases that it has
	guest insn --ept "$1" --list | grep -x '[a-z0-9-]*'
}
SHADOW=$(groups 0)
EPT=$(groups 1)
[ -n "$SHADOW" ] && [ -n "$EPT" ] || skip_all "guests/insn does not say what it has"

# What counts the exits of a configuration, once all groups have run.
counters() { # value of ept
	echo exit_invvpid exit_invept
	[ "$1" = 1 ] && return
	echo exit_invlpg
	grep -qw invpcid /proc/cpuinfo && echo exit_invpcid
}
# Each group in C and attached; kvm_intel reloaded, attached, detached; counters.
# VMX_VPID_INSN=attached leaves C out, where a kernel is slow.
RUNS=2
[ "${VMX_VPID_INSN:-}" = attached ] && RUNS=1
plan() { # value of ept, groups
	echo $((RUNS * $(echo "$2" | wc -w) + 4 + $(counters "$1" | wc -w)))
}
ktap_print_header
ktap_set_plan $(($(plan 0 "$SHADOW") + $(plan 1 "$EPT") + 1))

all_groups() { # name of the run, what is known to differ: c or arch; groups
	local run="$1" gaps="$2" group
	shift 2
	for group; do
		check "$run: $group" guest insn --gaps "$gaps" "$group"
	done
}

# Where L2 ran on this CPU before, L1's INVVPID becomes one of this CPU's; the
# groups flush-l2 and in-l2 see to that.
issued() {
	stat_positive guest_invvpid_address && stat_positive invvpid_address &&
		stat_positive guest_invvpid_context && stat_positive invvpid_context
}

all_of() { # value of ept, groups
	local ept="ept=$1" name
	check "$ept: kvm_intel reloaded" reload_kvm "$ept"
	[ "$RUNS" = 1 ] || all_groups "$ept, C" c $2
	check "$ept: attached" attach
	all_groups "$ept, attached" arch $2
	for name in $(counters "$1"); do
		check "$ept: $name moved" stat_positive "$name"
	done
	check "$ept: INVVPID of L1's was issued for L2" issued
	check "$ept: detached" detach
}

all_of 0 "$SHADOW"
all_of 1 "$EPT"
reload_kvm
check "no warning in the kernel's log" no_new_warnings
ktap_finished
