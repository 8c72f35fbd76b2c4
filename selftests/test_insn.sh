#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# In this test guests execute INVLPG, INVPCID, INVVPID and INVEPT in every mode and with every
# kind of operand.  The module has to do what the architecture says.  C may differ from the
# architecture only in the cases that are marked with a name of Documentation/differences.rst,
# and has to differ there.

. "$(dirname "$0")/functions.sh"
require
[ -x "$BIN/guests/insn" ] || skip_all "guests/insn is not built: run 'make selftests'"

groups() { # values of ept and unrestricted_guest: print their groups of cases
	guest insn --ept "$1" --unrestricted "$2" --list | grep -x '[a-z0-9-]*'
}
SHADOW=$(groups 0 0)
EPT=$(groups 1 1)
# With EPT, KVM has internal memslots only if guests are restricted.
SLOTS=$(groups 1 0 | grep -e -slots)
[ -n "$SHADOW" ] && [ -n "$EPT" ] && [ -n "$SLOTS" ] || skip_all "guests/insn lists no group"

# Print the counters of exits that grow in a configuration.
counters() { # value of ept
	echo exit_invvpid exit_invept
	[ "$1" = 1 ] && return
	echo exit_invlpg
	grep -qw invpcid /proc/cpuinfo && echo exit_invpcid
}
# The plan: each group in C and attached; a reload, an attach, a detach; other checks.
# With VMX_VPID_INSN=attached, for a slow kernel, no group runs in C.
RUNS=2
[ "${VMX_VPID_INSN:-}" = attached ] && RUNS=1
plan() { # groups, other checks
	echo $((RUNS * $(echo "$1" | wc -w) + 3 + $(echo "$2" | wc -w)))
}
ktap_print_header
ktap_set_plan $(($(plan "$SHADOW" "$(counters 0) issued") + $(plan "$EPT" "$(counters 1) issued") +
	$(plan "$SLOTS" "") + 1))

all_groups() { # name of the run, expected outcomes: c or arch; groups
	local run="$1" gaps="$2" group
	shift 2
	for group; do
		check "$run: the cases of $group have the expected results" \
			guest insn --gaps "$gaps" "$group"
	done
}

# If L2 ran on this CPU before, the module executes L1's INVVPID here.  L2 runs in the groups
# flush-l2 and in-l2.
issued() {
	stat_positive guest_invvpid_address && stat_positive invvpid_address &&
		stat_positive guest_invvpid_context && stat_positive invvpid_context
}

run_groups() { # parameters of kvm_intel, groups
	check "$1: kvm_intel loads" reload_kvm $1
	[ "$RUNS" = 1 ] || all_groups "$1, C" c $2
	check "$1: the module attaches" attach
	all_groups "$1, attached" arch $2
}

all_of() { # value of ept, groups
	local ept="ept=$1" name
	run_groups "$ept" "$2"
	for name in $(counters "$1"); do
		check "$ept: $name grew" stat_positive "$name"
	done
	check "$ept: the module issued INVVPID for L2 when L1 executed INVVPID" issued
	check "$ept: the module detaches" detach
}

all_of 0 "$SHADOW"
all_of 1 "$EPT"
run_groups "ept=1 unrestricted_guest=0" "$SLOTS"
check "ept=1 unrestricted_guest=0: the module detaches" detach
reload_kvm
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
