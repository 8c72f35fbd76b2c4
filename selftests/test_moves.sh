#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# In this test vCPUs move between CPUs, in L1 and in L2, beside another VM that runs on both
# CPUs.  Each vCPU reads what it wrote, and with flush_context=1 a move drops no contexts of
# other VMs.
#
# VMX_VPID_EPT: the values of kvm_intel's parameter "ept" ("1 0").

. "$(dirname "$0")/functions.sh"
require
[ "$(nproc)" -gt 1 ] || skip_all "needs two CPUs"
ktap_print_header
EPT=${VMX_VPID_EPT:-1 0}
ktap_set_plan $((5 * $(echo "$EPT" | wc -w) + 2))

moving() {
	remember
	start "$BIN/guests/remap" -s 600 -v 2 -r 1 -m
	"$BIN/guests/remap" -s 5 -v 2 -r 1 -m >/tmp/moves 2>&1
	local result=$?
	guest revmxon -n 6 -m >>/tmp/moves || result=1
	finish
	[ "$(sed -n 's/ moves$//p' /tmp/moves)" -gt 10 ] && ended_well && [ $result = 0 ] ||
		{ cat /tmp/moves; return 1; }
}
moves_apart() { moving && grew op_flush_tlb_all && stayed $FAILURES flush_collateral; }
moves_together() { moving && grew op_flush_tlb_all flush_collateral && stayed $FAILURES; }

for ept in $EPT; do
	check "ept=$ept: kvm_intel loads" reload_kvm ept=$ept
	check "ept=$ept: the module attaches" attach
	check "ept=$ept: by default a move drops all contexts" moves_together
	switch flush_context 1
	check "ept=$ept: with flush_context=1 a move drops the vCPU's own contexts" moves_apart
	check "ept=$ept: no VPID leaked and no flush failed" nothing_leaked
	detach
done
check "kvm_intel loads with its default parameters" reload_kvm
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
