#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# In this test CPUs go offline and come back under running guests.
#
# VMX_VPID_EPT: the values of kvm_intel's parameter "ept" ("1 0").
# VMX_VPID_ROUNDS: how often a CPU goes offline and comes back (3).

. "$(dirname "$0")/functions.sh"
require
CPU1=/sys/devices/system/cpu/cpu1/online
[ -w $CPU1 ] || skip_all "needs two CPUs, one of which can go offline"
ktap_print_header
EPT=${VMX_VPID_EPT:-1 0}
ROUNDS=${VMX_VPID_ROUNDS:-3}
ktap_set_plan $((12 * $(echo "$EPT" | wc -w) + 2))

on_cpu_1() { grep -q 'cpu=1 state=held' $DEBUGFS/vpids; }
flushed_on_both() { [ "$(grep -c 'flushed=0,1$' $DEBUGFS/vpids)" = 3 ]; }
# While one CPU is offline, VMs are created and destroyed on the other.
one_cpu() { echo 0 >$CPU1 && [ "$(nproc)" = 1 ] && guest churn -n 4; }
two_cpus() { echo 1 >$CPU1 && [ "$(nproc)" = 2 ] && eventually on_cpu_1; }
back_and_forth() {
	local i=0
	while [ $i -lt "$ROUNDS" ]; do
		one_cpu && two_cpus || return
		i=$((i + 1))
	done
}
detach_and_attach() { detach && attach; }
# With flush_context=1, a full flush of a vCPU drops only the contexts of that vCPU.
back_and_forth_apart() {
	# The vCPUs move all the time: before the switch is on, each move drops all contexts.
	switch flush_context 1 && remember && one_cpu && two_cpus &&
		stayed $FAILURES flush_collateral && grew op_flush_tlb_all && switch flush_context 0
}

for ept in $EPT; do
	check "ept=$ept: kvm_intel loads" reload_kvm ept=$ept
	check "ept=$ept: the module attaches" attach
	start "$BIN/guests/remap" -s 600 -v 3 -r 1 -m
	check "ept=$ept: three vCPUs run on both CPUs" eventually flushed_on_both
	check "ept=$ept: a CPU goes offline $ROUNDS times and runs vCPUs again" back_and_forth
	check "ept=$ept: flush_context=1 keeps the contexts of other VMs" back_and_forth_apart
	check "ept=$ept: each vCPU still holds its VPID" held_is 3
	check "ept=$ept: a CPU goes offline once more" one_cpu
	check "ept=$ept: the module detaches and attaches with one CPU" detach_and_attach
	check "ept=$ept: each vCPU holds its VPID after the attach" held_is 3
	check "ept=$ept: the CPU comes back" two_cpus
	finish
	check "ept=$ept: the guest read what it wrote" ended_well
	check "ept=$ept: no VPID leaked and no flush failed" nothing_leaked
	detach
done
check "kvm_intel loads with its default parameters" reload_kvm
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
