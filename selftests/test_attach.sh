#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Attach and detach under running guests, and guests that outlive either.

. "$(dirname "$0")/functions.sh"
require
ktap_print_header
ktap_set_plan 23

# A child can be waited for by the shell that started it only, not within check.
ended_well() { [ $ended = 0 ]; }

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

# Turned round halfway.  A vCPU that stays in the guest on another CPU holds the
# transition up; on one CPU it ends at once.
if [ "$(nproc)" -gt 1 ]; then
	"$BIN/guests/remap" -s 600 -r 100000 >/dev/null 2>&1 &
	remap=$!
	check "guest that does not come back to user space" eventually stat_is vpid_in_use 1
	# A detach waits for KVM's readers first; whatever runs then may displace the
	# vCPU for a moment, and the transition is over before there is a halfway.
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
	check "a detach turned round halfway is an attach" halfway_back
	check "with the VPID still known" stat_is vpid_in_use 1
	kill -KILL $remap
	wait $remap
	check "and given back in the end" nothing_leaked
else
	for name in "guest that does not come back to user space" \
		"a detach turned round halfway is an attach" "with the VPID still known" \
		"and given back in the end"; do
		ktap_test_skip "$name (needs two CPUs)"
	done
fi

# VMs that come and go while the backend does.
"$BIN/guests/churn" -s 12 >/dev/null 2>&1 &
churn=$!
back_and_forth() {
	for i in 1 2 3; do
		detach && attach || return
	done
}
check "detaches and attaches three times beside VMs that come and go" back_and_forth
wait $churn
ended=$?
churn_well() { ended_well && nothing_leaked; }
check "which all ended well, with every VPID back" churn_well
detach

# A guest that does nothing but exit for INVLPG, while the handler of it changes; it
# comes back to user space now and then, where livepatch can move it.
check "kvm_intel without EPT" reload_kvm ept=0
"$BIN/guests/remap" -s 600 -r 4 >/dev/null 2>&1 &
remap=$!
eventually vms 1
exits_come() { eventually stat_positive exit_invlpg; }
handler_back_and_forth() {
	for i in 1 2 3; do
		attach && exits_come && detach || return
	done
}
check "the handler of its exits changes three times to Rust and back" handler_back_and_forth
kill $remap
wait $remap
ended=$?
check "and it read what it wrote" ended_well
check "kvm_intel as it was" reload_kvm
check "no warning in the kernel's log" no_new_warnings
ktap_finished
