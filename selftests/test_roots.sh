#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# This test reads the file roots: the MMU that translates for each vCPU, and the cached roots,
# in each way of paging, while guests run, start and end.

. "$(dirname "$0")/functions.sh"
require
ROOTS=$DEBUGFS/roots
ktap_print_header
ktap_set_plan 39

# True if roots has one line, which matches all patterns.
line_has() {
	local line pattern
	line=$(cat $ROOTS)
	for pattern; do
		echo "$line" | grep -qE "$pattern" || { echo "no $pattern in: $line"; return 1; }
	done
	[ "$(echo "$line" | wc -l)" = 1 ] || { echo "$line"; false; }
}
eventually_has() { eventually line_has "$@" >/dev/null || line_has "$@"; }
# True if the module and KVM name the same MMU in each line.
agreed() { ! grep -v ' agrees=yes ' $ROOTS; }
no_lines() {
	local lines
	lines=$(cat $ROOTS) && [ -z "$lines" ] || { echo "$lines"; false; }
}
each_agrees() { # mmu, patterns
	local mmu="$1"
	shift
	eventually_has "^pid=$child vcpu=0 .* mmu=$mmu kvm=$mmu agrees=yes " "$@" && agreed
}
# The format of a whole line.
HEX='0x[0-9a-f]+'
ROOT="($HEX|dummy):($HEX|-):([0-9]+|-)"
well_formed() {
	! grep -vE "^pid=[0-9]+ vcpu=[0-9]+ guest=l[12] mmu=[a-z-]+ kvm=[a-z-]+ agrees=(yes|no)\
 set=(root|guest)_mmu level=[0-9] root=($ROOT|-) prev=($ROOT(,$ROOT)*|-) other=($HEX|-)$" $ROOTS
}

unload_kvm
check "the module loads without kvm_intel" load_module
check "roots says that kvm_intel is not loaded" line_has '^kvm_intel: not loaded$'
check "kvm_intel loads" load_kvm
check "the module attaches" eventually phase_is attached
check "roots is empty without a vCPU" no_lines
detach

for ept in 1 0; do
	if [ $ept = 1 ]; then
		flat=tdp shadow=tdp nested=tdp level='level=[45]'
	else
		flat=shadow shadow=shadow nested=nested-shadow level='level=4'
	fi
	check "ept=$ept: kvm_intel loads" reload_kvm ept=$ept
	check "ept=$ept: the module attaches" attach

	start "$BIN/guests/roots"
	check "ept=$ept: roots shows a guest with four CR3s" \
		each_agrees $shadow 'guest=l1' 'set=root_mmu' $level
	if [ $ept = 1 ]; then
		# With EPT, one root serves every CR3 of the guest.
		check "ept=$ept: the guest has one root" \
			eventually_has "root=$HEX:-:- prev=- other=-"
	elif grep -qw pcid /proc/cpuinfo; then
		check "ept=$ept: the guest has three cached roots with PCIDs" \
			eventually_has "root=$HEX:$HEX:3 prev=$HEX:$HEX:2,$HEX:$HEX:1,$HEX:$HEX:0 "
	else
		check "ept=$ept: the guest has three cached roots" \
			eventually_has "root=$HEX:$HEX:- prev=$HEX:$HEX:-,$HEX:$HEX:-,$HEX:$HEX:- "
	fi
	check "ept=$ept: the line of the guest is well-formed" well_formed
	finish
	check "ept=$ept: the guest with four CR3s ends well" ended_well

	start "$BIN/guests/roots" -u
	[ $ept = 1 ] || level='level=3'
	check "ept=$ept: roots shows a guest with paging off" \
		each_agrees $flat 'guest=l1' $level ':-:- '
	finish
	check "ept=$ept: the guest with paging off ends well" ended_well
	[ $ept = 1 ] || level='level=4'

	start "$BIN/guests/roots" -2
	check "ept=$ept: roots shows an L2 without an EPT" \
		each_agrees $nested 'guest=l2' 'set=root_mmu' $level
	check "ept=$ept: the line of L2 is well-formed" well_formed
	finish
	check "ept=$ept: the L1 of that L2 ends well" ended_well

	start "$BIN/guests/roots" -e
	if [ $ept = 1 ]; then
		# The root of L1 is in the other set.
		check "ept=$ept: roots shows an L2 with an EPT" each_agrees nested-tdp 'guest=l2' \
			'set=guest_mmu' "root=$HEX:$HEX:- " "other=$HEX"
		finish
		check "ept=$ept: the L1 of the L2 with an EPT ends well" ended_well
	else
		check "ept=$ept: a hypervisor that needs an EPT starts" sleep 1
		finish end
		check "ept=$ept: the hypervisor skips, since there is no EPT" [ $ended = 4 ]
	fi
	check "ept=$ept: roots is empty after the guests" no_lines

	# A hypervisor enters and leaves its L2 during the reads.
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
	check "ept=$ept: each read agrees while L1 enters and leaves L2" none_bad
	check "ept=$ept: the module detaches" detach
done
check "kvm_intel loads with its default parameters" reload_kvm
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
