#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# In this test 8 threads on two CPUs allocate and free VPIDs as fast as they can: no VPID has
# two holders, and no VPID is lost.
#
# VMX_VPID_CALLS: the number of calls (1000000).

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
# C is the control: the test must find no error in KVM's own functions.
check "C: no VPID of 8 threads has two holders" stress 20000
check "the module attaches" attach
check "Rust: no VPID of 8 threads has two holders in $CALLS calls" stress "$CALLS"
check "Rust: every VPID is freed" nothing_leaked
check "Rust: the counts of allocated and freed VPIDs are the same" same vpid_acquired vpid_released
check "Rust: at least a quarter of the calls allocated a VPID" acquired $((CALLS / 4))
check "the module detaches" detach
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
