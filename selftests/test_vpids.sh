#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# VPIDs: none leaks, none has two holders, who holds which, and what happens when
# there are none left.
#
# VMX_VPID_CREATIONS: how many vCPUs come and go in a pool of 64 (500).

. "$(dirname "$0")/functions.sh"
require
ktap_print_header
ktap_set_plan 45
CREATIONS=${VMX_VPID_CREATIONS:-500}

acquired() { # at least
	[ "$(stat_of vpid_acquired)" -ge "$1" ] || { cat $DEBUGFS/stats; false; }
}

check "attached" attach

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
no_lines() {
	local lines
	lines=$(cat $DEBUGFS/vpids) && [ -z "$lines" ] || { echo "$lines"; false; }
}
check "and its lines are gone" no_lines
start "$BIN/guests/vcpus" -w -p 6
check "vCPUs in VMX operation have a second line" eventually held_is 9
second_lines() { [ "$(grep -c use=vpid02 $DEBUGFS/vpids)" = 3 ]; }
check "for vpid02" second_lines
never_flushed() { [ "$(grep -c 'use=vpid02 .* flushed=-$' $DEBUGFS/vpids)" = 3 ]; }
check "that was flushed nowhere, since L2 never ran" never_flushed
finish

# With each flush, the VMCS is looked at: of L1, and of L2.
check "each flush looks at the VMCS" eval "echo 1 >$DEBUGFS/check_vmcs"
looked_well() {
	guest remap -s 1 -v 2 && guest revmxon -n 2 &&
		grep -q '^looks [1-9]' $DEBUGFS/vmcs && grep -q '^wrong 0$' $DEBUGFS/vmcs &&
		grep -q '^last time=.* vmcs=[1-9].* result=agrees$' $DEBUGFS/vmcs ||
		{ cat $DEBUGFS/vmcs; false; }
}
check "control and number are as they ought to be" looked_well
check "and it is off again" eval "echo 0 >$DEBUGFS/check_vmcs"

# Read while VMs come and go: whatever is seen agrees, or belongs to one in the making.
rm -f /tmp/stop
start "$BIN/guests/churn" -s 8
watch_lines >/tmp/lines 2>&1 &
watcher=$!
finish end
check "VMs come and go, and end well" ended_well
touch /tmp/stop
wait $watcher
ended=$?
lines_agreed() { ended_well || { cat /tmp/lines; false; }; }
check "every read at the same time agreed" lines_agreed
check "every VPID is back" nothing_leaked

# An L1 that leaves VMX operation and comes back: each vpid02 is flushed before L2 runs
# with it, also when L1 calls it the same.
check "traces" trace_on vmx_vpid kvm/kvm_entry kvm/kvm_nested_vmenter
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
trace_off

# A small pool.
check "a pool of 64" load_module max_vpids=64
check "attached" eventually phase_is attached
creations() { guest vcpus -n "$CREATIONS" -p 30; }
check "$CREATIONS vCPUs come and go" creations
# Every other one takes a second VPID.
check "each with a VPID, or two" acquired $((CREATIONS * 3 / 2))
check "none was left without" stat_is vpid_exhausted 0
check "and nothing is in use" nothing_leaked
detach

# None left, for vCPUs of one VM.  Each load says so once: the log from there on.
WHOLE_LOG=$MARK
said_once() { [ "$(log | grep -c 'all VPIDs are in use')" = 1 ]; }
for ept in 1 0; do
	check "ept=$ept: kvm_intel" reload_kvm ept=$ept
	mark_log
	check "ept=$ept: a pool of 2" load_module max_vpids=2
	eventually phase_is attached
	start "$BIN/guests/remap" -s 600 -v 4
	check "ept=$ept: four vCPUs have two VPIDs" eventually held_is 2
	check "ept=$ept: which was counted" stat_is vpid_exhausted 2
	check "ept=$ept: and said once" said_once
	sleep 2
	finish
	check "ept=$ept: they read what they wrote" ended_well
	check "ept=$ept: and nothing is in use" nothing_leaked
	detach
done

# None left for L2, which shares the one of L1.
hypervisor() {
	load_module max_vpids=1 && eventually phase_is attached && guest revmxon -n 4 &&
		guest insn invvpid-types flush-l2 && stat_positive vpid_exhausted && nothing_leaked
}
check "ept=0: L2 without a VPID of its own" hypervisor
detach
check "kvm_intel as it was" reload_kvm
check "ept=1: the same" hypervisor
detach
MARK=$WHOLE_LOG
check "no warning in the kernel's log" no_new_warnings
ktap_finished
