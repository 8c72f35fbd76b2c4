#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Guests execute INVLPG, INVPCID, INVVPID and INVEPT in every mode and with every kind of
# operand.  The module has to do what the architecture says.  C may differ from the
# architecture only in the cases that are marked with a name of
# Documentation/differences.rst, and has to differ there.

. "$(dirname "$0")/functions.sh"
require
[ -x "$BIN/guests/insn" ] || skip_all "guests/insn is not built: run 'make selftests'"

groups() { # value of ept: print its groups of cases
	guest insn --ept "$1" --list | grep -x '[a-z0-9-]*'
}
SHADOW=$(groups 0)
EPT=$(groups 1)
[ -n "$SHADOW" ] && [ -n "$EPT" ] || skip_all "guests/insn lists no group"

# Print the counters of exits that grow in a configuration.
counters() { # value of ept
	echo exit_invvpid exit_invept
	[ "$1" = 1 ] && return
	echo exit_invlpg
	grep -qw invpcid /proc/cpuinfo && echo exit_invpcid
}
# The plan: each group in C and attached; a reload, an attach, a detach; the counters.
# With VMX_VPID_INSN=attached, for a slow kernel, no group runs in C.
RUNS=2
[ "${VMX_VPID_INSN:-}" = attached ] && RUNS=1
plan() { # value of ept, groups
	echo $((RUNS * $(echo "$2" | wc -w) + 4 + $(counters "$1" | wc -w)))
}
ktap_print_header
ktap_set_plan $(($(plan 0 "$SHADOW") + $(plan 1 "$EPT") + 1))

all_groups() { # name of the run, expected outcomes: c or arch; groups
	local run="$1" gaps="$2" group
	shift 2
	for group; do
		check "$run: $group" guest insn --gaps "$gaps" "$group"
	done
}

# If L2 ran on this CPU before, the module executes L1's INVVPID here.  L2 runs in the groups
# flush-l2 and in-l2.
issued() {
	stat_positive guest_invvpid_address && stat_positive invvpid_address &&
		stat_positive guest_invvpid_context && stat_positive invvpid_context
}

all_of() { # value of ept, groups
	local ept="ept=$1" name
	check "$ept: kvm_intel loads" reload_kvm "$ept"
	[ "$RUNS" = 1 ] || all_groups "$ept, C" c $2
	check "$ept: the module attaches" attach
	all_groups "$ept, attached" arch $2
	for name in $(counters "$1"); do
		check "$ept: $name grew" stat_positive "$name"
	done
	check "$ept: the module issued INVVPID for L2 when L1 executed INVVPID" issued
	check "$ept: the module detaches" detach
}

all_of 0 "$SHADOW"
all_of 1 "$EPT"
reload_kvm
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
