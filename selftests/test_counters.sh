#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The counters move when guests run, by what the configuration uses.

. "$(dirname "$0")/functions.sh"
require
ktap_print_header
ktap_set_plan 25

# Counters start at 0 with the module: it is loaded again for each configuration.
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

check "ept=1: attached" with ept=1
check "ept=1: guests run" run_guests
check "ept=1: flush_tlb_all came" stat_positive op_flush_tlb_all
check "ept=1: and was answered by INVEPT, one for one" \
	sums_up op_flush_tlb_all invept_all
check "ept=1: flush_tlb_current by INVEPT of one root" \
	some_and_sums_up op_flush_tlb_current invept_context
check "ept=1: flush_tlb_guest by INVVPID" some_and_sums_up op_flush_tlb_guest invvpid_context
check "ept=1: VPIDs were given out" stat_positive vpid_acquired
check "ept=1: and all came back" sums_up vpid_acquired vpid_released
several() { [ "$(stat_of vpid_high_water)" -ge 2 ]; }
check "ept=1: several at once" several
check "ept=1: nothing leaked or failed" nothing_leaked
detach

check "ept=0: attached" with ept=0
check "ept=0: guests run" run_guests
check "ept=0: INVLPG came as flush_tlb_gva" stat_positive op_flush_tlb_gva
check "ept=0: and was answered by INVVPID of one address" \
	sums_up op_flush_tlb_gva invvpid_address
check "ept=0: a root by INVVPID of one VPID" stat_positive invvpid_context
check "ept=0: no INVEPT" none invept_all invept_context
check "ept=0: nothing leaked or failed" nothing_leaked
detach

check "vpid=0: attached" with vpid=0
check "vpid=0: guests run" run_guests
check "vpid=0: no VPID and no INVVPID" \
	none vpid_acquired invvpid_address invvpid_context invvpid_all vpid_exhausted
check "vpid=0: INVEPT nevertheless" stat_positive invept_all
detach

check "ept=0 vpid=0: attached" with ept=0 vpid=0
check "ept=0 vpid=0: guests run" run_guests
check "ept=0 vpid=0: nothing was issued" \
	none invvpid_address invvpid_context invvpid_all invept_context invept_all
detach
reload_kvm
check "no warning in the kernel's log" no_new_warnings
ktap_finished
