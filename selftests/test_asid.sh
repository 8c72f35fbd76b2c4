#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The host's ASIDs: what each CPU has, and that the kernel does with them what the
# module says before.  Page-table isolation is as the kernel was booted.

. "$(dirname "$0")/functions.sh"
require
ktap_print_header

ASID=$DEBUGFS/asid
SWITCHES=${VMX_VPID_SWITCHES:-10000}
CPU1=/sys/devices/system/cpu/cpu1/online
# One that goes, if there is another.
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
# 1 while it is 1 already: what was counted is forgotten.
follow() { echo "$1" >$DEBUGFS/asid_follow; }
as_told() { asid_is mismatches 0 && asid_is unseen 0; }
followed() { [ "$(asid_of switches)" -ge "$SWITCHES" ] || { cat $ASID; false; }; }

# A few processes, and 20 of them with threads until there were enough switches.
few() { "$BIN/processes" -p 3 -n 3; }
busy() {
	until [ "$(asid_of switches)" -ge "$SWITCHES" ]; do
		"$BIN/processes" -p 20 -t 2 -n 10 || return
	done
}

# Each CPU has six slots, of which one is in use; PCIDs are as they should be.
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

# Each injected bug is reported, with the value that differs.
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

check "attached" attach
[ -z "${VMX_VPID_PTI:-}" ] || echo "# page-table isolation: $(asid_of pti)"
check "page-table isolation is as it was asked for" \
	asid_is pti "${VMX_VPID_PTI:-$(asid_of pti)}"
check "each CPU has six slots and their PCIDs" slots_are_right
check "nothing is followed by default" asid_is following 0
check "nothing is counted" asid_is switches 0
check "the CPUs are followed" follow 1
check "and it says so" asid_is following 1
check "20 processes with threads" busy
check "at least $SWITCHES switches were followed" followed
check "each was as told before" as_told
check "there were switches of all kinds" some switches_stayed switches_kept switches_flushed
check "and flushes" some flushes flushes_all flushes_pages
check "the slots are right still" slots_are_right

restarted() { follow 1 && asid_is following 1 && [ "$(asid_of switches)" -lt "$SWITCHES" ]; }
check "counting starts again" restarted
guests_and_processes() {
	start "$BIN/guests/remap" -s 600 -v 2
	"$BIN/processes" -p 20 -n 4
	local result=$?
	finish
	ended_well && [ $result = 0 ] ||
		{ echo "guest $ended, processes $result"; log | tail -5; false; }
}
check "beside a guest" guests_and_processes
check "kvm_intel goes and comes, and tables of the kernel's with it" reload_kvm
check "each switch was as told before" as_told

if [ $TWO = 1 ]; then
	off_and_on() {
		echo 0 >$CPU1 && few && echo 1 >$CPU1 && few
	}
	follow 1
	check "a CPU goes and comes back" off_and_on
	check "that was seen" some restarts
	check "each switch was as told before, there too" as_told
fi

check "a wrong slot is reported" twisted 1 cr3
check "a wrong flush is reported" twisted 2 flush
check "a wrong turn is reported" twisted 3 next_asid
check "a wrong tlb_gen is reported" twisted 4 tlb_gen
check "a wrong user half is reported" twisted 5 user_pcid_flush_mask
right_again() { follow 1 && few && as_told; }
check "without, all is right again" right_again
check "there is no sixth" refused 6 asid_twist
check "asid_follow is 0 or 1" refused 2 asid_follow
off() { follow 0 && asid_is following 0 && few && asid_is switches 0; }
check "and off again" off
check "and on" follow 1

check "followed, the module detaches and is unloaded" detach
unload_and_run() { not loaded vmx_vpid && few; }
check "and nobody calls it any more" unload_and_run
check "no warning in the kernel's log" no_new_warnings
ktap_finished
