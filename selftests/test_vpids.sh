#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# This test checks VPIDs: no VPID leaks or has two holders, vpids shows the holder of each
# VPID, and vCPUs run when no VPID is left.
#
# VMX_VPID_CREATIONS: the number of vCPUs that are created with a pool of 64 VPIDs (500).

. "$(dirname "$0")/functions.sh"
require
ktap_print_header
ktap_set_plan 45
CREATIONS=${VMX_VPID_CREATIONS:-500}

acquired() { # at least
	[ "$(stat_of vpid_acquired)" -ge "$1" ] || { cat $DEBUGFS/stats; false; }
}

check "the module attaches" attach

# The holders of VPIDs.
start "$BIN/guests/remap" -s 600 -v 2
check "two vCPUs have a line each" eventually held_is 2
lines_name_the_holder() {
	grep -q "pid=$child vcpu=0 use=vpid01 cpu=[0-9]* state=held" $DEBUGFS/vpids &&
		grep -q "pid=$child vcpu=1 use=vpid01 cpu=[0-9]* state=held" $DEBUGFS/vpids ||
		{ cat $DEBUGFS/vpids; false; }
}
check "the line has the process and number of the vCPU" lines_name_the_holder
# On the CPU where a vCPU runs, its VPID was flushed since the allocation of the VPID.
flushed_where_it_runs() {
	awk '{
		split($5, cpu, "="); split($7, flushed, "=")
		if (index("," flushed[2] ",", "," cpu[2] ",")) n++
	} END { exit n != NR || !n }' $DEBUGFS/vpids
}
flushed_eventually() { eventually flushed_where_it_runs || { cat $DEBUGFS/vpids; false; }; }
check "the VPID was flushed on the CPU where the vCPU runs" flushed_eventually
finish
check "the guest with two vCPUs ends well" ended_well
no_lines() {
	local lines
	lines=$(cat $DEBUGFS/vpids) && [ -z "$lines" ] || { echo "$lines"; false; }
}
check "vpids is empty after the guest" no_lines
start "$BIN/guests/vcpus" -w -p 6
check "vCPUs in VMX operation have a second line" eventually held_is 9
second_lines() { [ "$(grep -c use=vpid02 $DEBUGFS/vpids)" = 3 ]; }
check "the second line is for vpid02" second_lines
never_flushed() { [ "$(grep -c 'use=vpid02 .* flushed=-$' $DEBUGFS/vpids)" = 3 ]; }
check "vpid02 was flushed on no CPU, since L2 never ran" never_flushed
finish

# With check_vmcs=1, each flush checks the VMCS of L1 or of L2.
check "check_vmcs turns on" eval "echo 1 >$DEBUGFS/check_vmcs"
looked_well() {
	guest remap -s 1 -v 2 && guest revmxon -n 2 &&
		grep -q '^looks [1-9]' $DEBUGFS/vmcs && grep -q '^wrong 0$' $DEBUGFS/vmcs &&
		grep -q '^last time=.* vmcs=[1-9].* result=agrees$' $DEBUGFS/vmcs ||
		{ cat $DEBUGFS/vmcs; false; }
}
check "control and number are right in each VMCS" looked_well
check "check_vmcs turns off" eval "echo 0 >$DEBUGFS/check_vmcs"

# VMs are created and destroyed during reads: each line agrees, or belongs to a vCPU that is
# being created.
rm -f /tmp/stop
start "$BIN/guests/churn" -s 8
watch_lines >/tmp/lines 2>&1 &
watcher=$!
finish end
check "VMs end well during reads of vpids" ended_well
touch /tmp/stop
wait $watcher
ended=$?
lines_agreed() { ended_well || { cat /tmp/lines; false; }; }
check "each read of vpids agrees while VMs start and end" lines_agreed
check "every VPID is freed after the VMs" nothing_leaked

# An L1 that leaves VMX operation and enters it again: each new vpid02 is flushed before L2
# runs with it, even if L1 uses the same vpid12.
check "tracing starts" trace_on vmx_vpid kvm/kvm_entry kvm/kvm_nested_vmenter
check "a hypervisor enters VMX operation four times" guest revmxon -n 4
echo 0 >$TRACING/tracing_on
# INVVPID comes between the first VM entry of L1 to a new vpid02 and the CPU's VM entry.
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
check "each vpid02 is flushed before L2 runs" flushed_before_l2
traced() { grep -q "$1" $TRACING/trace || { tail -20 $TRACING/trace; false; }; }
check "a trace event reports an allocated VPID" traced 'vmx_vpid_acquire: vpid [1-9]'
check "a trace event reports a freed VPID" traced 'vmx_vpid_release: vpid [1-9]'
# The trace loses the module's events when the module unloads.
echo 1 >$TRACING/tracing_on
echo 0 >$SYSFS/enabled
eventually gone
check "a trace event reports the detach" traced 'vmx_vpid_detach: vpids 0'
eventually rmmod vmx_vpid 2>/dev/null
trace_off

# A small pool.
check "the module loads with a pool of 64" load_module max_vpids=64
check "the module attaches with a pool of 64" eventually phase_is attached
creations() { guest vcpus -n "$CREATIONS" -p 30; }
check "$CREATIONS vCPUs are created and destroyed" creations
# Every second vCPU has a second VPID.
check "each vCPU had one VPID or two" acquired $((CREATIONS * 3 / 2))
check "no vCPU was left without a VPID" stat_is vpid_exhausted 0
check "no VPID of the pool of 64 is in use" nothing_leaked
detach

# No VPID is left for some vCPUs of one VM.  Each load of the module logs this once, so the
# mark is set for each load.
WHOLE_LOG=$MARK
said_once() { [ "$(log | grep -c 'all VPIDs are in use')" = 1 ]; }
for ept in 1 0; do
	check "ept=$ept: kvm_intel loads" reload_kvm ept=$ept
	mark_log
	check "ept=$ept: the module loads with a pool of 2" load_module max_vpids=2
	eventually phase_is attached
	start "$BIN/guests/remap" -s 600 -v 4
	check "ept=$ept: two of four vCPUs have a VPID" eventually held_is 2
	check "ept=$ept: two allocations failed" stat_is vpid_exhausted 2
	check "ept=$ept: one message in the log reports the lack of VPIDs" said_once
	sleep 2
	finish
	check "ept=$ept: the four vCPUs read what they wrote" ended_well
	check "ept=$ept: no VPID of the pool of 2 is in use" nothing_leaked
	detach
done

# No VPID is left for L2, which shares vpid01 with L1.
hypervisor() {
	load_module max_vpids=1 && eventually phase_is attached && guest revmxon -n 4 &&
		guest insn invvpid-types flush-l2 && stat_positive vpid_exhausted && nothing_leaked
}
check "ept=0: a hypervisor runs L2 without vpid02" hypervisor
detach
check "kvm_intel loads with its default parameters" reload_kvm
check "ept=1: a hypervisor runs L2 without vpid02" hypervisor
detach
MARK=$WHOLE_LOG
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
