#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# This test attaches and detaches the module under running guests, some of which outlive the
# attach or the detach.
#
# VMX_VPID_ROUNDS: the number of detaches and attaches under load (5).
# VMX_VPID_CALLS: the number of calls in one run of the threads that allocate VPIDs (200000).

. "$(dirname "$0")/functions.sh"
require
ktap_print_header
ktap_set_plan 37
ROUNDS=${VMX_VPID_ROUNDS:-5}

# A guest that starts under C and ends under Rust.  A vCPU of remap has one VPID.
"$BIN/guests/remap" -s 600 -v 2 >/dev/null 2>&1 &
remap=$!
check "a guest starts under C" eventually vms 1
check "the module attaches to the running guest" attach
check "Rust takes over the two VPIDs that C allocated" stat_is vpid_in_use 2
check "Rust serves flushes of the guest" eventually stat_positive op_flush_tlb_all
kill $remap
wait $remap
ended=$?
check "the guest from C ends well under Rust" ended_well
check "the VPIDs of the guest from C are freed" nothing_leaked
check "Rust allocated no VPID for the guest from C" stat_is vpid_acquired 0

# A guest that starts under Rust and ends under C.
"$BIN/guests/remap" -s 600 -v 2 >/dev/null 2>&1 &
remap=$!
check "a guest starts under Rust" eventually stat_is vpid_in_use 2
check "the module detaches from the running guest" detach
kill $remap
wait $remap
ended=$?
check "the guest from Rust ends well under C" ended_well
check "the module attaches again" attach
check "C freed the VPIDs that Rust allocated" stat_is vpid_in_use 0

# A detach waits for KVM's readers first.  A task that runs then may displace a vCPU for a
# moment, and the transition may end before it can be reversed.
halfway_back() {
	for i in 1 2 3 4 5 6 7 8; do
		echo 0 >$SYSFS/enabled
		if phase_is detaching && not settled && echo 1 >$SYSFS/enabled; then
			eventually settled && phase_is attached
			return
		fi
		eventually gone && eventually rmmod vmx_vpid && attach || return
	done
	echo "eight detaches ended at once"
	false
}
# A reversal halfway.  A vCPU that stays in the guest delays the transition, if the vCPU has
# a CPU of its own and the host does not interrupt it.
if [ "$(nproc)" -gt 1 ]; then
	taskset -p 1 $$ >/dev/null
	taskset 2 "$BIN/guests/remap" -s 600 -r 100000 -k >/dev/null 2>&1 &
	remap=$!
	check "a guest runs that never exits to user space" eventually stat_is vpid_in_use 1
	check "a detach reversed halfway becomes an attach" halfway_back
	check "the VPID is in use after the reversed detach" stat_is vpid_in_use 1
	halfway_on() {
		local i
		for i in 1 2 3 4 5 6 7 8; do
			detach && load_module || return
			if phase_is attaching && not settled && echo 0 >$SYSFS/enabled; then
				eventually gone && phase_is detached && eventually rmmod vmx_vpid
				return
			fi
			eventually settled || return
		done
		echo "eight attaches ended at once"
		false
	}
	check "an attach reversed halfway becomes a detach" halfway_on
	check "C serves guests after the reversed attach" guest churn -n 4
	check "the module attaches after the reversals" attach
	check "the guest holds its VPID after the reversals" held_is 1
	# Livepatch moves such a vCPU by the signal that it sends after 15 s, unless another
	# task displaces the vCPU at the moment when livepatch checks.
	detach_by_signal() {
		local MARK i
		for i in 1 2 3 4 5 6 7 8; do
			mark_log
			detach || return
			! log | grep -q "signaling remaining tasks" || return 0
			attach || return
		done
		echo "eight detaches needed no signal"
		false
	}
	check "livepatch's signal ends a detach beside the guest" detach_by_signal
	check "the module attaches beside the guest" attach
	check "the attach takes over the VPID of the guest" held_is 1
	taskset -p 3 $$ >/dev/null
	kill -KILL $remap
	wait $remap
	check "the VPID of the killed guest is freed" nothing_leaked
else
	for name in "a guest runs that never exits to user space" \
		"a detach reversed halfway becomes an attach" \
		"the VPID is in use after the reversed detach" \
		"an attach reversed halfway becomes a detach" \
		"C serves guests after the reversed attach" \
		"the module attaches after the reversals" \
		"the guest holds its VPID after the reversals" \
		"livepatch's signal ends a detach beside the guest" \
		"the module attaches beside the guest" \
		"the attach takes over the VPID of the guest" \
		"the VPID of the killed guest is freed"; do
		ktap_test_skip "$name (needs two CPUs)"
	done
fi

# The load: a guest, on the other CPU if there is one; VMs and vCPUs that are created and
# destroyed; threads that allocate and free VPIDs; a reader of vpids.  The module attaches
# and detaches under this load.
PIN=
[ "$(nproc)" = 1 ] || PIN="taskset 2"
$PIN "$BIN/guests/remap" -s 600 -r 2 >/dev/null 2>&1 &
remap=$!
forever() { # command, until /tmp/stop exists
	while [ ! -e /tmp/stop ]; do "$@" || return; done
}
rm -f /tmp/stop
forever "$BIN/guests/churn" -n 4 >/dev/null 2>&1 &
churn=$!
forever "$BIN/guests/vcpus" -n 40 -p 8 >/dev/null 2>&1 &
vcpus=$!
lacks=$(stress_lacks)
if [ -z "$lacks" ]; then
	keep_symbols kvm_intel
	forever stress "${VMX_VPID_CALLS:-200000}" >/tmp/stress 2>&1 &
	callers=$!
fi
watch_lines >/tmp/lines 2>&1 &
watcher=$!
# A dozen tasks run, and one task attaches.  With this priority that task gets half of the
# time, so that an attach ends, and the other tasks continue.
renice -10 -p $$ >/dev/null
has_a_line() { grep -q "pid=$remap .*state=held" $DEBUGFS/vpids; }
check "the guest under load has a VPID" eventually has_a_line
back_and_forth() {
	local i=0
	while [ $i -lt "$ROUNDS" ]; do
		detach && attach && eventually has_a_line || return
		i=$((i + 1))
	done
}
check "the module detaches and attaches $ROUNDS times under load" back_and_forth
if [ "$(nproc)" -gt 1 ]; then
	check "a detach under load reversed halfway becomes an attach" halfway_back
else
	ktap_test_skip "a detach under load reversed halfway becomes an attach (needs two CPUs)"
fi
renice 0 -p $$ >/dev/null
touch /tmp/stop
wait $churn
ended=$?
check "all VMs under load ended well" ended_well
wait $vcpus
ended=$?
check "all vCPUs under load ended well" ended_well
if [ -z "$lacks" ]; then
	wait $callers
	ended=$?
	threads_well() { ended_well || { cat /tmp/stress; false; }; }
	check "each thread allocated VPIDs, and none that had a holder" threads_well
else
	ktap_test_skip "each thread allocated VPIDs, and none that had a holder ($lacks)"
fi
wait $watcher
ended=$?
lines_agreed() { ended_well || { cat /tmp/lines; false; }; }
check "no read of vpids showed a VPID that was free or held twice" lines_agreed
kill $remap
wait $remap
ended=$?
check "the guest under load read what it wrote" ended_well
check "every VPID is freed after the load" nothing_leaked
detach

# A guest that exits for INVLPG while the handler of INVLPG changes.  The guest exits to user
# space now and then, where livepatch can move its thread.
check "kvm_intel loads without EPT" reload_kvm ept=0
"$BIN/guests/remap" -s 600 -r 4 >/dev/null 2>&1 &
remap=$!
eventually vms 1
exits_come() { eventually stat_positive exit_invlpg; }
TURNS=3
[ "$ROUNDS" -ge $TURNS ] || TURNS=$ROUNDS
handler_back_and_forth() {
	local i=0
	while [ $i -lt $TURNS ]; do
		attach && exits_come && detach || return
		i=$((i + 1))
	done
}
check "the handler of INVLPG changes $TURNS times to Rust and back" handler_back_and_forth
kill $remap
wait $remap
ended=$?
check "the guest that executes INVLPG read what it wrote" ended_well
check "kvm_intel loads with its default parameters" reload_kvm
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
