#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The counters grow when guests run, as the configuration of kvm_intel requires.

. "$(dirname "$0")/functions.sh"
require
ktap_print_header
ktap_set_plan 25

# Counters start at 0 when the module loads, so each configuration loads the module again.
with() { # parameters of kvm_intel...
	reload_kvm "$@" && attach
}
run_guests() { guest remap -s 1 -v 2 && guest churn -n 6; }
sums_up() { # total, parts...: the first counter is the sum of the others
	local total part sum=0
	total=$(stat_of "$1")
	shift
	for part; do sum=$((sum + $(stat_of "$part"))); done
	[ "$total" = "$sum" ]
}
some_and_sums_up() { stat_positive "$1" && sums_up "$@"; }
none() { # counters that are 0
	local name
	for name; do stat_is "$name" 0 || { cat $DEBUGFS/stats; return 1; }; done
}

check "ept=1: the module attaches" with ept=1
check "ept=1: guests run" run_guests
check "ept=1: KVM requested flush_tlb_all" stat_positive op_flush_tlb_all
check "ept=1: one INVEPT of all contexts served each flush_tlb_all" \
	sums_up op_flush_tlb_all invept_all
check "ept=1: one INVEPT of one context served each flush_tlb_current" \
	some_and_sums_up op_flush_tlb_current invept_context
check "ept=1: one INVVPID of one context served each flush_tlb_guest" \
	some_and_sums_up op_flush_tlb_guest invvpid_context
check "ept=1: Rust allocated VPIDs" stat_positive vpid_acquired
check "ept=1: Rust freed every VPID that it allocated" sums_up vpid_acquired vpid_released
several() { [ "$(stat_of vpid_high_water)" -ge 2 ]; }
check "ept=1: several VPIDs were in use at the same time" several
check "ept=1: no VPID leaked and no flush failed" nothing_leaked
detach

check "ept=0: the module attaches" with ept=0
check "ept=0: guests run" run_guests
check "ept=0: KVM requested flush_tlb_gva for INVLPG" stat_positive op_flush_tlb_gva
check "ept=0: one INVVPID of one address served each flush_tlb_gva" \
	sums_up op_flush_tlb_gva invvpid_address
check "ept=0: INVVPID of one context served flushes" stat_positive invvpid_context
check "ept=0: Rust issued no INVEPT" none invept_all invept_context
check "ept=0: no VPID leaked and no flush failed" nothing_leaked
detach

check "vpid=0: the module attaches" with vpid=0
check "vpid=0: guests run" run_guests
check "vpid=0: Rust allocated no VPID and issued no INVVPID" \
	none vpid_acquired invvpid_address invvpid_context invvpid_all vpid_exhausted
check "vpid=0: Rust issued INVEPT" stat_positive invept_all
detach

check "ept=0 vpid=0: the module attaches" with ept=0 vpid=0
check "ept=0 vpid=0: guests run" run_guests
check "ept=0 vpid=0: Rust issued no instruction" \
	none invvpid_address invvpid_context invvpid_all invept_context invept_all
detach
reload_kvm
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
