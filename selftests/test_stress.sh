#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# 8 callers on two CPUs take VPIDs and give them back, as fast as they can: no VPID has two
# owners, and none is lost.
#
# VMX_VPID_CALLS: of how many calls that is (1000000).

. "$(dirname "$0")/functions.sh"
require
[ "$(nproc)" -gt 1 ] || skip_all "needs two CPUs"
lacks=$(stress_lacks)
[ -z "$lacks" ] || skip_all "$lacks"
ktap_print_header
ktap_set_plan 8
CALLS=${VMX_VPID_CALLS:-1000000}

same() { [ "$(stat_of "$1")" = "$(stat_of "$2")" ] || { cat $DEBUGFS/stats; false; }; }

acquired() { # at least
	[ "$(stat_of vpid_acquired)" -ge "$1" ] || { cat $DEBUGFS/stats; false; }
}

keep_symbols kvm_intel
# C is the control: the test finds nothing that is not there.
check "C: 8 callers, no VPID with two owners" stress 20000
check "attached" attach
check "Rust: 8 callers and $CALLS calls, no VPID with two owners" stress "$CALLS"
check "and each came back" nothing_leaked
check "as many given out as taken back" same vpid_acquired vpid_released
check "which are as many as were asked for" acquired $((CALLS / 4))
check "detached" detach
check "no warning in the kernel's log" no_new_warnings
ktap_finished
