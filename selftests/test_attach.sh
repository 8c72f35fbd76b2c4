#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Attach and detach under running guests, and guests that outlive either.
#
# VMX_VPID_ROUNDS: how often it detaches and attaches beside all that goes on (5).
# VMX_VPID_CALLS: how often VPIDs are taken in one go by callers beside it (200000).

. "$(dirname "$0")/functions.sh"
require
ktap_print_header
ktap_set_plan 37
ROUNDS=${VMX_VPID_ROUNDS:-5}

# A guest born under C that dies under Rust.  A vCPU of remap has one VPID.
"$BIN/guests/remap" -s 600 -v 2 >/dev/null 2>&1 &
remap=$!
check "guest started under C" eventually vms 1
check "attaches to the running guest" attach
check "takes over the two VPIDs that C gave out" stat_is vpid_in_use 2
check "the guest is served on" eventually stat_positive op_flush_tlb_all
kill $remap
wait $remap
ended=$?
check "the guest ends well" ended_well
check "and its VPIDs came back" nothing_leaked
check "none of them was given out by Rust" stat_is vpid_acquired 0

# A guest born under Rust that dies under C.
"$BIN/guests/remap" -s 600 -v 2 >/dev/null 2>&1 &
remap=$!
check "guest started under Rust" eventually stat_is vpid_in_use 2
check "detaches from the running guest" detach
kill $remap
wait $remap
ended=$?
check "the guest ends well under C" ended_well
check "attaches again" attach
check "C took back what Rust gave out" stat_is vpid_in_use 0

# A detach waits for KVM's readers first; whatever runs then may displace a vCPU for a
# moment, and the transition is over before there is a halfway.
halfway_back() {
	for i in 1 2 3 4 5 6 7 8; do
		echo 0 >$SYSFS/enabled
		if phase_is detaching && not settled && echo 1 >$SYSFS/enabled; then
			eventually settled && phase_is attached
			return
		fi
		eventually gone && eventually rmmod vmx_vpid && attach || return
	done
	echo "eight detaches were over at once"
	false
}
# Turned round halfway.  A vCPU that stays in the guest holds the transition up, if it
# has a CPU of its own and its host has nothing to do for it.
if [ "$(nproc)" -gt 1 ]; then
	taskset -p 1 $$ >/dev/null
	taskset 2 "$BIN/guests/remap" -s 600 -r 100000 -k >/dev/null 2>&1 &
	remap=$!
	check "guest that does not come back to user space" eventually stat_is vpid_in_use 1
	check "a detach turned round halfway is an attach" halfway_back
	check "with the VPID still known" stat_is vpid_in_use 1
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
		echo "eight attaches were over at once"
		false
	}
	check "an attach turned round halfway is a detach" halfway_on
	check "C serves on" guest churn -n 4
	check "attaches again" attach
	check "with the VPID known once more" held_is 1
	# Such a vCPU is moved by the signal that livepatch sends after 15 s, unless it is
	# displaced for a moment just when livepatch looks.
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
	check "a detach beside it ends, by livepatch's signal" detach_by_signal
	check "and an attach" attach
	check "which takes its VPID over" held_is 1
	taskset -p 3 $$ >/dev/null
	kill -KILL $remap
	wait $remap
	check "and has it back in the end" nothing_leaked
else
	for name in "guest that does not come back to user space" \
		"a detach turned round halfway is an attach" "with the VPID still known" \
		"an attach turned round halfway is a detach" "C serves on" \
		"attaches again" "with the VPID known once more" \
		"a detach beside it ends, by livepatch's signal" "and an attach" \
		"which takes its VPID over" "and has it back in the end"; do
		ktap_test_skip "$name (needs two CPUs)"
	done
fi

# A guest, on the other CPU if there is one; VMs and vCPUs that come and go, callers that
# take VPIDs and give them back at any time, and a reader of who holds them: all while
# the backend comes and goes.
PIN=
[ "$(nproc)" = 1 ] || PIN="taskset 2"
$PIN "$BIN/guests/remap" -s 600 -r 2 >/dev/null 2>&1 &
remap=$!
forever() { # command, until /tmp/stop is there
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
# There are a dozen of these, and attaching is the work of one task: it gets half of the
# time, so that the others continue and it comes to an end.
renice -10 -p $$ >/dev/null
has_a_line() { grep -q "pid=$remap .*state=held" $DEBUGFS/vpids; }
check "the guest has a VPID" eventually has_a_line
back_and_forth() {
	local i=0
	while [ $i -lt "$ROUNDS" ]; do
		detach && attach && eventually has_a_line || return
		i=$((i + 1))
	done
}
check "detaches and attaches $ROUNDS times beside all that" back_and_forth
if [ "$(nproc)" -gt 1 ]; then
	check "and turns round halfway" halfway_back
else
	ktap_test_skip "and turns round halfway (needs two CPUs)"
fi
renice 0 -p $$ >/dev/null
touch /tmp/stop
wait $churn
ended=$?
check "the VMs all ended well" ended_well
wait $vcpus
ended=$?
check "so did the vCPUs" ended_well
if [ -z "$lacks" ]; then
	wait $callers
	ended=$?
	callers_well() { ended_well || { cat /tmp/stress; false; }; }
	check "each caller got VPIDs, and none that had an owner" callers_well
else
	ktap_test_skip "callers ($lacks)"
fi
wait $watcher
ended=$?
lines_agreed() { ended_well || { cat /tmp/lines; false; }; }
check "no read of vpids showed one held twice, nor a free one" lines_agreed
kill $remap
wait $remap
ended=$?
check "the guest read what it wrote" ended_well
check "and every VPID came back" nothing_leaked
detach

# A guest that does nothing but exit for INVLPG, while the handler of it changes; it
# comes back to user space now and then, where livepatch can move it.
check "kvm_intel without EPT" reload_kvm ept=0
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
check "the handler of its exits changes $TURNS times to Rust and back" handler_back_and_forth
kill $remap
wait $remap
ended=$?
check "and it read what it wrote" ended_well
check "kvm_intel as it was" reload_kvm
check "no warning in the kernel's log" no_new_warnings
ktap_finished
