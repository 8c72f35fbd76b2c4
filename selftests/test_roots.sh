#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What KVM translates by, and which roots it keeps: in each of its ways, while guests
# run, come and go.

. "$(dirname "$0")/functions.sh"
require
ROOTS=$DEBUGFS/roots
ktap_print_header
ktap_set_plan 39

# A file of one line that has all of some patterns.
line_has() {
	local line pattern
	line=$(cat $ROOTS)
	for pattern; do
		echo "$line" | grep -qE "$pattern" || { echo "no $pattern in: $line"; return 1; }
	done
	[ "$(echo "$line" | wc -l)" = 1 ] || { echo "$line"; false; }
}
eventually_has() { eventually line_has "$@" >/dev/null || line_has "$@"; }
# Both say the same, and so does the role of the root.
agreed() { ! grep -v ' agrees=yes ' $ROOTS; }
no_lines() {
	local lines
	lines=$(cat $ROOTS) && [ -z "$lines" ] || { echo "$lines"; false; }
}
# mmu, patterns
each_agrees() {
	local mmu="$1"
	shift
	eventually_has "^pid=$child vcpu=0 .* mmu=$mmu kvm=$mmu agrees=yes " "$@" && agreed
}
# Everything that a line says, in its order and its form.
HEX='0x[0-9a-f]+'
ROOT="($HEX|dummy):($HEX|-):([0-9]+|-)"
well_formed() {
	! grep -vE "^pid=[0-9]+ vcpu=[0-9]+ guest=l[12] mmu=[a-z-]+ kvm=[a-z-]+ agrees=(yes|no)\
 set=(root|guest)_mmu level=[0-9] root=($ROOT|-) prev=($ROOT(,$ROOT)*|-) other=($HEX|-)$" $ROOTS
}

unload_kvm
check "attaches to nothing" load_module
check "says so" line_has '^kvm_intel: not loaded$'
check "kvm_intel" load_kvm
check "attached" eventually phase_is attached
check "no vCPU, no line" no_lines
detach

for ept in 1 0; do
	if [ $ept = 1 ]; then
		flat=tdp shadow=tdp nested=tdp level='level=[45]'
	else
		flat=shadow shadow=shadow nested=nested-shadow level='level=4'
	fi
	check "ept=$ept: kvm_intel" reload_kvm ept=$ept
	check "ept=$ept: attached" attach

	start "$BIN/guests/roots"
	check "ept=$ept: a guest with four CR3s" \
		each_agrees $shadow 'guest=l1' 'set=root_mmu' $level
	if [ $ept = 1 ]; then
		# The same tables whatever CR3 the guest loads.
		check "ept=$ept: has one root" eventually_has "root=$HEX:-:- prev=- other=-"
	elif grep -qw pcid /proc/cpuinfo; then
		check "ept=$ept: has three roots more, by PCID" \
			eventually_has "root=$HEX:$HEX:3 prev=$HEX:$HEX:2,$HEX:$HEX:1,$HEX:$HEX:0 "
	else
		check "ept=$ept: has three roots more" \
			eventually_has "root=$HEX:$HEX:- prev=$HEX:$HEX:-,$HEX:$HEX:-,$HEX:$HEX:- "
	fi
	check "ept=$ept: the line is well-formed" well_formed
	finish
	check "ept=$ept: the guest ends well" ended_well

	start "$BIN/guests/roots" -u
	[ $ept = 1 ] || level='level=3'
	check "ept=$ept: a guest that does not page" \
		each_agrees $flat 'guest=l1' $level ':-:- '
	finish
	check "ept=$ept: ends well" ended_well
	[ $ept = 1 ] || level='level=4'

	start "$BIN/guests/roots" -2
	check "ept=$ept: an L2 without an EPT" each_agrees $nested 'guest=l2' 'set=root_mmu' $level
	check "ept=$ept: the line is well-formed" well_formed
	finish
	check "ept=$ept: its L1 ends well" ended_well

	start "$BIN/guests/roots" -e
	if [ $ept = 1 ]; then
		# The root of L1's tables waits in the other set.
		check "ept=$ept: an L2 on an EPT" each_agrees nested-tdp 'guest=l2' \
			'set=guest_mmu' "root=$HEX:$HEX:- " "other=$HEX"
		finish
		check "ept=$ept: its L1 ends well" ended_well
	else
		check "ept=$ept: there is no EPT for L2" sleep 1
		finish end
		check "ept=$ept: so that guest does not run" [ $ended = 4 ]
	fi
	check "ept=$ept: no line is left" no_lines

	# While VMs come and go, a hypervisor with its L2 among them.
	start "$BIN/guests/revmxon" -n 300
	bad=0
	seen=0
	while kill -0 $child 2>/dev/null && [ $seen -lt 60 ]; do
		cat $ROOTS >/tmp/roots
		seen=$((seen + 1))
		grep -q 'agrees=no' /tmp/roots && bad=$((bad + 1)) && cat /tmp/roots
		sleep 0.05
	done >/tmp/roots.log
	finish
	none_bad() {
		[ $bad = 0 ] && [ $seen -gt 5 ] ||
			{ echo "$bad of $seen"; cat /tmp/roots.log; false; }
	}
	check "ept=$ept: all agreed while L2 was entered and left" none_bad
	check "ept=$ept: detached" detach
done
check "kvm_intel as it was" reload_kvm
check "no warning in the kernel's log" no_new_warnings
ktap_finished
