#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# VPIDs: none leaks, none has two holders, who holds which, and what happens when
# there are none left.
#
# VMX_VPID_CREATIONS: how many vCPUs come and go in a pool of 64 (500);
# VMX_VPID_CALLS: of how many calls the stress is (1000000).

. "$(dirname "$0")/functions.sh"
require
ktap_print_header
ktap_set_plan 35
CREATIONS=${VMX_VPID_CREATIONS:-500}
CALLS=${VMX_VPID_CALLS:-1000000}
TRACING=/sys/kernel/debug/tracing

same() { [ "$(stat_of "$1")" = "$(stat_of "$2")" ] || { cat $DEBUGFS/stats; false; }; }

# C is the control: the test itself finds nothing that is not there.
check "C: 8 callers, no VPID with two owners" stress 20000
check "attached" attach
check "Rust: 8 callers and $CALLS calls, no VPID with two owners" stress "$CALLS"
check "and each came back" nothing_leaked
check "as many given out as taken back" same vpid_acquired vpid_released
many() { [ "$(stat_of vpid_acquired)" -ge $((CALLS / 4)) ]; }
check "which are as many as were asked for" many

# Who holds which.
start "$BIN/guests/remap" -s 600 -v 2
check "two vCPUs have a line each" eventually held_is 2
lines_name_the_owner() {
	grep -q "pid=$child vcpu=0 use=vpid01 cpu=[0-9]* state=held" $DEBUGFS/vpids &&
		grep -q "pid=$child vcpu=1 use=vpid01 cpu=[0-9]* state=held" $DEBUGFS/vpids ||
		{ cat $DEBUGFS/vpids; false; }
}
check "with process and number of the vCPU" lines_name_the_owner
# Where a vCPU runs, its VPID was flushed since it was taken.
flushed_where_it_runs() {
	awk '{
		split($5, cpu, "="); split($7, flushed, "=")
		if (index("," flushed[2] ",", "," cpu[2] ",")) n++
	} END { exit n != NR || !n }' $DEBUGFS/vpids
}
flushed_eventually() { eventually flushed_where_it_runs || { cat $DEBUGFS/vpids; false; }; }
check "flushed on the CPU that it runs on" flushed_eventually
finish
check "the guest ends well" ended_well
no_lines() { [ ! -s $DEBUGFS/vpids ]; }
check "and its lines are gone" no_lines
start "$BIN/guests/vcpus" -w -p 6
check "vCPUs in VMX operation have a second line" eventually held_is 9
second_lines() { [ "$(grep -c use=vpid02 $DEBUGFS/vpids)" = 3 ]; }
check "for vpid02" second_lines
never_flushed() { [ "$(grep -c 'flushed=-$' $DEBUGFS/vpids)" -ge 3 ]; }
check "that was flushed nowhere, since L2 never ran" never_flushed
finish

# Read while VMs come and go: whatever is seen agrees, or belongs to one in the making.
start "$BIN/guests/churn" -s 8
reads_agree() {
	local i=0
	while [ $i -lt 40 ]; do
		if grep -E 'state=(double|free)' $DEBUGFS/vpids; then return 1; fi
		i=$((i + 1))
	done
}
check "reads agree while VMs come and go" reads_agree
finish end
check "which end well" ended_well
check "with every VPID back" nothing_leaked

# An L1 that leaves VMX operation and comes back: each vpid02 is flushed before L2 runs
# with it, also when L1 calls it the same.
echo 0 >$TRACING/tracing_on
: >$TRACING/trace
for event in vmx_vpid kvm/kvm_entry kvm/kvm_nested_vmenter; do
	echo 1 >$TRACING/events/$event/enable
done
echo 1 >$TRACING/tracing_on
check "four lives of a hypervisor" guest revmxon -n 4
echo 0 >$TRACING/tracing_on
# From where L1 enters L2 for the first time in a life, to where the CPU does.
flushed_before_l2() {
	awk '
	/vmx_vpid_acquire:/ { vpid = $NF; fresh = 1 }
	/kvm_nested_vmenter:/ && fresh { waiting = 1; fresh = 0 }
	/vmx_vpid_invvpid:/ && waiting && $0 ~ "vpid " vpid " extent context" {
		waiting = 0
		flushed++
	}
	/kvm_entry:/ && waiting { waiting = 0 }
	END { exit flushed != 4 }' $TRACING/trace || { grep -v '^#' $TRACING/trace; false; }
}
check "each of which flushes its vpid02 before L2 runs" flushed_before_l2
traced() { grep -q "$1" $TRACING/trace || { tail -20 $TRACING/trace; false; }; }
check "VPIDs are traced" traced 'vmx_vpid_acquire: vpid [1-9]'
check "and what comes back" traced 'vmx_vpid_release: vpid [1-9]'
# Events go with their module, and so does what was traced of them.
echo 1 >$TRACING/tracing_on
echo 0 >$SYSFS/enabled
eventually gone
check "a detach is traced" traced 'vmx_vpid_detach: vpids 0'
eventually rmmod vmx_vpid 2>/dev/null
for event in vmx_vpid kvm; do
	[ ! -e $TRACING/events/$event/enable ] || echo 0 >$TRACING/events/$event/enable
done

# A small pool.
check "a pool of 64" load_module max_vpids=64
check "attached" eventually phase_is attached
creations() { guest vcpus -n "$CREATIONS" -p 30; }
check "$CREATIONS vCPUs come and go" creations
check "none was left without a VPID" stat_is vpid_exhausted 0
check "and nothing is in use" nothing_leaked
detach

# None left.
check "a pool of 2" load_module max_vpids=2
eventually phase_is attached
start "$BIN/guests/remap" -s 600 -v 4
check "four vCPUs run all the same" eventually stat_positive op_flush_tlb_guest
check "two of them with a VPID" held_is 2
check "which was counted" stat_is vpid_exhausted 2
said_once() { [ "$(dmesg | grep -c 'all VPIDs are in use')" = 1 ]; }
check "and said once" said_once
finish
check "they read what they wrote" ended_well
check "and nothing is in use" nothing_leaked
detach
check "no warning in the kernel's log" no_new_warnings
ktap_finished
