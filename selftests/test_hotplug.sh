#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# CPUs that go offline and come back under running guests.

. "$(dirname "$0")/functions.sh"
require
CPU1=/sys/devices/system/cpu/cpu1/online
[ -w $CPU1 ] || skip_all "needs two CPUs, one of which can go offline"
ktap_print_header
ktap_set_plan 11

check "attached" attach
start "$BIN/guests/remap" -s 600 -v 3 -r 1 -m
runs_on_both() { grep -q 'flushed=0,1$' $DEBUGFS/vpids; }
check "three vCPUs run on both CPUs" eventually runs_on_both
progress() { remember; eventually grew op_flush_tlb_all; }
back_and_forth() {
	for i in 1 2 3; do
		echo 0 >$CPU1 && progress && echo 1 >$CPU1 && progress || return
	done
}
check "a CPU goes and comes back three times" back_and_forth
check "each vCPU still holds its VPID" held_is 3
one_cpu() { echo 0 >$CPU1 && [ "$(nproc)" = 1 ]; }
check "it goes once more" one_cpu
detach_and_attach() { detach && attach; }
check "detaches and attaches meanwhile" detach_and_attach
check "the VPIDs are still known" held_is 3
check "it comes back" sh -c "echo 1 >$CPU1"
progress
finish
check "the guest read what it wrote" ended_well
check "and nothing leaked" nothing_leaked
detach
check "no warning in the kernel's log" no_new_warnings
ktap_finished
