#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# This test reads the host's ASIDs: the slots of each CPU, and whether the kernel uses ASIDs
# as the module predicts.  A boot parameter of the kernel sets page-table isolation.

. "$(dirname "$0")/functions.sh"
require
ktap_print_header

ASID=$DEBUGFS/asid
SWITCHES=${VMX_VPID_SWITCHES:-10000}
CPU1=/sys/devices/system/cpu/cpu1/online
# A CPU that can go offline, if there are two.
TWO=0
[ "$(nproc)" = 1 ] || [ ! -w $CPU1 ] || TWO=1
ktap_set_plan $((30 + 3 * TWO))

asid_of() { sed -n "s/^$1 //p" $ASID; }
asid_is() { [ "$(asid_of "$1")" = "$2" ] || { cat $ASID; false; }; }
some() { # counters
	local name
	for name; do
		[ "$(asid_of "$name")" -gt 0 ] || { echo "$name is 0"; cat $ASID; return 1; }
	done
}
# Writing 1 a second time resets the counts.
follow() { echo "$1" >$DEBUGFS/asid_follow; }
as_predicted() { asid_is mismatches 0 && asid_is unseen 0; }
followed() { [ "$(asid_of switches)" -ge "$SWITCHES" ] || { cat $ASID; false; }; }

# Run a few processes; run 20 processes with threads until there were enough switches.
few() { "$BIN/processes" -p 3 -n 3; }
busy() {
	until [ "$(asid_of switches)" -ge "$SWITCHES" ]; do
		"$BIN/processes" -p 20 -t 2 -n 10 || return
	done
}

# Each CPU has six slots, of which one is in use, and each slot has the right PCIDs.
slots_are_right() {
	awk -v cpus="$(nproc)" '
	function value(name) {
		if (!match($0, " " name "=[^ ]*"))
			return ""
		return substr($0, RSTART + length(name) + 2, RLENGTH - length(name) - 2)
	}
	function want(right) { if (!right) { print "not right: " $0; bad = 1 } }
	$1 == "pti" { pti = $2 }
	/^cpu=[0-9]* loaded=/ { asid[$1] = value("asid"); loaded[$1] = value("loaded") }
	/^cpu=[0-9]* slot=/ {
		slot = value("slot") + 0
		want(slot == seen[$1] + 0)
		seen[$1]++
		want(value("kpcid") == slot + 1)
		want(value("upcid") == (pti ? slot + 2049 : "-"))
		want(value("current") == (slot == asid[$1]))
		used[$1] += value("current")
		want(value("current") == 0 || value("ctx_id") == loaded[$1])
	}
	END {
		for (cpu in asid) {
			count++
			want(seen[cpu] == 6 && used[cpu] == 1)
		}
		want(count == cpus)
		exit bad
	}' $ASID || { cat $ASID; false; }
}

# Inject a bug; asid reports the bug, with the value that differs.
twisted() { # number, what
	local result=0
	echo "$1" >$DEBUGFS/asid_twist && follow 1 && few || result=1
	some mismatches && grep -q "^cpu=[0-9]* mismatch=[a-z]* switch=[0-9]* what=$2 " $ASID ||
		{ cat $ASID; result=1; }
	echo 0 >$DEBUGFS/asid_twist && return $result
}
refused() { # value, file
	refused_as "Invalid argument" sh -c "echo $1 >$DEBUGFS/$2"
}

check "the module attaches" attach
[ -z "${VMX_VPID_PTI:-}" ] || echo "# page-table isolation: $(asid_of pti)"
check "page-table isolation is as expected" \
	asid_is pti "${VMX_VPID_PTI:-$(asid_of pti)}"
check "each CPU has six slots with the right PCIDs" slots_are_right
check "the module follows no CPU by default" asid_is following 0
check "the module counts no switch by default" asid_is switches 0
check "following starts" follow 1
check "the file asid says that following is on" asid_is following 1
check "20 processes with threads run" busy
check "the module followed at least $SWITCHES switches" followed
check "each switch and flush was as predicted" as_predicted
check "the module followed switches of every kind" \
	some switches_stayed switches_kept switches_flushed
check "the module followed flushes of every kind" some flushes flushes_all flushes_pages
check "the slots are right after the switches" slots_are_right

restarted() { follow 1 && asid_is following 1 && [ "$(asid_of switches)" -lt "$SWITCHES" ]; }
check "writing 1 again resets the counts" restarted
guests_and_processes() {
	start "$BIN/guests/remap" -s 600 -v 2
	"$BIN/processes" -p 20 -n 4
	local result=$?
	finish
	ended_well && [ $result = 0 ] ||
		{ echo "guest $ended, processes $result"; log | tail -5; false; }
}
check "20 processes run beside a guest" guests_and_processes
check "kvm_intel reloads, which changes kernel page tables" reload_kvm
check "each switch and flush beside a guest was as predicted" as_predicted

if [ $TWO = 1 ]; then
	off_and_on() {
		echo 0 >$CPU1 && few && echo 1 >$CPU1 && few
	}
	follow 1
	check "a CPU goes offline and comes back" off_and_on
	check "the module counted the restart of the CPU" some restarts
	check "each switch and flush on the restarted CPU was as predicted" as_predicted
fi

check "a wrong slot is reported" twisted 1 cr3
check "a wrong flush is reported" twisted 2 flush
check "a wrong next slot is reported" twisted 3 next_asid
check "a wrong tlb_gen is reported" twisted 4 tlb_gen
check "a wrong user half is reported" twisted 5 user_pcid_flush_mask
right_again() { follow 1 && few && as_predicted; }
check "without an injected bug each prediction is right" right_again
check "asid_twist refuses a sixth bug" refused 6 asid_twist
check "asid_follow refuses 2" refused 2 asid_follow
off() { follow 0 && asid_is following 0 && few && asid_is switches 0; }
check "following stops" off
check "following starts again" follow 1

check "the module detaches and unloads while following is on" detach
unload_and_run() { not loaded vmx_vpid && few; }
check "processes run after the unload" unload_and_run
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
