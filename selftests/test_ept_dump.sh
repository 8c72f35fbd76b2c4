#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# This test reads the contents of EPTs in debugfs: of a guest with known memory, of its L2,
# and of guests that change during a read.

. "$(dirname "$0")/functions.sh"
require
ktap_print_header
ktap_set_plan 51
EPT=$DEBUGFS/ept
SUMMARY=$DEBUGFS/ept_summary

says() { # file, line
	local text
	text=$(cat "$1") && [ "$text" = "$2" ] || { echo "$text"; false; }
}
known() { # arguments of the guest
	rm -f /tmp/ready
	"$BIN/guests/known" "$@" >/tmp/ready 2>&1 &
	child=$!
}
is_ready() { grep -q ready /tmp/ready; }
ready() { eventually is_ready || { cat /tmp/ready; false; }; }

# Print the regions of one root, by a pattern of its header that no other header matches.
regions_of() { # pattern of the header
	cat $EPT >/tmp/dump && awk -v wanted="$1" '
	/^---/ { found = index($0, wanted); roots += found > 0; next }
	found
	END { exit roots != 1 }' /tmp/dump || { cat /tmp/dump; false; }
}
# Print how much of an address range is mapped with some attributes, in KiB.
mapped() { # header, start, end (12 digits), pattern of the attributes
	regions_of "$1" | awk -v start="0x0000$2" -v end="0x0000$3" -v wanted="$4" '
	function number(hex, n, i) {
		for (i = 3; i <= length(hex); i++)
			n = n * 16 + index("0123456789abcdef", substr(hex, i, 1)) - 1
		return n
	}
	{
		split($1, bound, "-")
		from = bound[1] < start ? start : bound[1]
		to = bound[2] > end ? end : bound[2]
		if (from < to && $0 ~ wanted)
			sum += number(to) - number(from)
	}
	END { print sum / 1024 }'
}
mapped_is() { # KiB, arguments of mapped
	local size kib="$1"
	shift
	size=$(mapped "$@")
	[ "$size" = "$kib" ] || { echo "$size KiB, $kib wanted"; cat /tmp/dump; false; }
}
field() { # name, pattern of the line
	grep "$2" $SUMMARY | tr ' ' '\n' | sed -n "s/^$1=//p"
}
field_is() { # name, value, pattern of the line
	[ "$(field "$1" "$3")" = "$2" ] || { cat $SUMMARY; false; }
}
# For a VM whose EPT does not change, both files have the same sizes.
agrees() { # pattern of header and line
	local size unit
	for size in 4k:4K 2m:2M 1g:1G; do
		unit=${size#*:}
		mapped_is $(($(field "mapped_${size%:*}" "$1") / 1024)) "$1" \
			000000000000 ffffffffffff " $unit +[R-][W-]" || return
	done
}
no_faults() {
	! grep -E 'misconfigured=[1-9]' $SUMMARY && ! grep misconfigured: $EPT &&
		grep -q misconfigured=0 $SUMMARY
}

check "debugfs has no file ept before the module loads" not test -e $EPT
check "kvm_intel unloads" unload_kvm
check "the module loads without kvm_intel" load_module
check "ept says that kvm_intel is not loaded" says $EPT "kvm_intel: not loaded"
check "ept_summary says that kvm_intel is not loaded" says $SUMMARY "kvm_intel: not loaded"
check "kvm_intel loads" load_kvm
check "the module attaches" eventually phase_is attached
check "ept is empty without a VM" says $EPT ""

# 1 if the CPU has accessed and dirty flags: IA32_VMX_EPT_VPID_CAP, bit 21.
AD=$(($(sed -n 's/^ept_vpid_cap //p' $DEBUGFS/status) >> 21 & 1))
known
L1="pid=$child .*use=l1 nested=0"
check "a guest with known memory runs" ready
HEADER="pid=$child "
check "ept shows 2 MiB of pages of 4 KiB" \
	mapped_is 2048 "$HEADER" 000080000000 000080400000 ' 4K +RW'
check "ept shows no page that the guest did not touch" \
	mapped_is 2048 "$HEADER" 000080000000 000080400000 .
check "ept shows 8 MiB of pages of 2 MiB" \
	mapped_is 8192 "$HEADER" 0000c0000000 0000c0800000 ' 2M +RW'
check "the memory type is write-back" mapped_is 8192 "$HEADER" 0000c0000000 0000c0800000 ' WB '
check "ept shows device registers" mapped_is 4 "$HEADER" 0000e0000000 0000e0001000 ' mmio$'
flags_as_the_cpu_has_them() {
	if [ $AD = 1 ]; then
		mapped_is 2048 "$HEADER" 000080000000 000080400000 ' AD$'
	else
		mapped_is 0 "$HEADER" 000000000000 ffffffffffff '[A-][D-]$'
	fi
}
check "ept shows accessed and dirty flags if the CPU has them (ad=$AD)" flags_as_the_cpu_has_them
check "the summary says whether the flags are on" field_is ad $AD "$L1"
used() { [ $AD = 1 ] && [ "$(field dirty "$L1")" -ge $((10 << 20)) ] || field_is dirty - "$L1"; }
check "the summary has the size of dirty memory" used
check "the summary agrees with the regions" agrees "$HEADER"
check "the summary counts markers of device registers" field_is mmio 1 "$L1"
check "the EPT has no misconfigured entry" no_faults
other_pid() { echo 1 >$DEBUGFS/ept_pid && says $EPT ""; }
check "ept_pid hides the VMs of other processes" other_pid
this_pid() { echo $child >$DEBUGFS/ept_pid && grep -q "$HEADER" $EPT; }
check "ept_pid shows the VMs of one process" this_pid
bad_pid() { echo 4294967296 >$DEBUGFS/ept_pid; }
check "ept_pid refuses a number that is no process" refused_as "nvalid argument" bad_pid
check "the log says what ept_pid accepts" said "write the number of a process, or 0 for all"
all() { echo 0 >$DEBUGFS/ept_pid && grep -q "$HEADER" $EPT; }
check "ept_pid=0 shows all VMs" all
# A read in pieces of any size, from any offset, returns the same text.
pieces() {
	cat $EPT >/tmp/whole && dd if=$EPT bs=7 2>/dev/null | cmp - /tmp/whole &&
		dd if=$EPT bs=100 skip=3 2>/dev/null >/tmp/rest &&
		dd if=/tmp/whole bs=100 skip=3 2>/dev/null | cmp - /tmp/rest
}
check "a read in pieces returns the same text" pieces
# A signal ends a read, and the next read continues there.  ept has many lines, so a read
# returns some of them.  A line of ept_summary needs a walk of the whole EPT, so one line may
# take several reads.
signals() { # file
	cat "$1" >/tmp/whole && "$BIN/interrupted" "$1" >/tmp/rest 2>/tmp/count &&
		cmp /tmp/whole /tmp/rest
}
check "a read of ept under signals returns the same text" signals $EPT
interrupted() { signals $SUMMARY && ! grep -q '^0 ' /tmp/count || { cat /tmp/count; false; }; }
check "signals interrupt a read of ept_summary, which ends" interrupted
# An open file does not keep a VM alive.
exec 9<$EPT
head -c 100 <&9 >/dev/null
finish
check "the guest with known memory ends well" ended_well
vm_is_gone() { ! vms 1; }
check "the VM is destroyed while ept is open" eventually vm_is_gone
check "a read of the open file continues to the end" cat <&9
exec 9<&-

known -l
check "a guest with dirty logging runs" ready
check "dirty logging splits large pages" \
	mapped_is 8192 "pid=$child " 0000c0000000 0000c0800000 ' 4K '
finish

known -n
check "a hypervisor with an L2 runs" ready
check "ept shows the EPT of L2" mapped_is 64 "use=l2 nested=1" 000080300000 000080400000 ' 4K +RW'
finish

# Guests that change and end during a read.
rm -f /tmp/stop
watch_epts() {
	local seen=0 lines
	while [ ! -e /tmp/stop ]; do
		cat $EPT >/tmp/watched && cat $SUMMARY >>/tmp/watched || return
		if grep -E 'misconfigured:|misconfigured=[1-9]' /tmp/watched; then return 1; fi
		lines=$(grep -c . /tmp/watched)
		[ "$lines" -lt 3 ] || seen=$((seen + 1))
	done
	echo "$seen reads with a VM"
	[ $seen -gt 2 ]
}
watch_epts >/tmp/readings 2>&1 &
watcher=$!
known -b
busy=$child
start "$BIN/guests/churn" -s 6
finish end
check "VMs run, change and end well during reads" ended_well
kill $busy
wait $busy
touch /tmp/stop
wait $watcher
ended=$?
readings() { ended_well || { cat /tmp/readings /tmp/watched; false; }; }
check "no read showed a misconfigured entry" readings

detach
# With tdp_mmu=0, KVM keeps an EPT as shadow pages, as it does for an EPT of L1.
reload_all() { # parameters of kvm
	unload_kvm && rmmod kvm || return
	if [ -f /lib/modules/kvm.ko ]; then
		insmod /lib/modules/kvm.ko "$@"
	else
		modprobe kvm "$@"
	fi && load_kvm
}
tdp_mmu_off() { reload_all tdp_mmu=0 && grep -q N /sys/module/kvm/parameters/tdp_mmu; }
check "kvm loads with tdp_mmu=0" tdp_mmu_off
check "tdp_mmu=0: the module attaches" attach
known -n
HEADER="use=l1 nested=0"
check "tdp_mmu=0: a hypervisor with an L2 runs" ready
check "tdp_mmu=0: ept shows 2 MiB of pages of 4 KiB" \
	mapped_is 2048 "$HEADER" 000080000000 000080400000 ' 4K +RW'
check "tdp_mmu=0: ept shows 8 MiB of pages of 2 MiB" \
	mapped_is 8192 "$HEADER" 0000c0000000 0000c0800000 ' 2M +RW'
check "tdp_mmu=0: ept shows the EPT of L2" \
	mapped_is 64 "use=l2 nested=1" 000080300000 000080400000 ' 4K +RW'
check "tdp_mmu=0: the summary agrees with the regions" agrees "$HEADER"
check "tdp_mmu=0: the EPT has no misconfigured entry" no_faults
finish
check "tdp_mmu=0: the guest ends well" ended_well
detach
check "kvm loads with its default parameters" reload_all

check "kvm_intel loads with ept=0" reload_kvm ept=0
check "ept=0: the module attaches" attach
check "ept=0: ept says that there is no EPT" says $EPT "kvm_intel: ept=0, no VM has an EPT"
detach
reload_kvm
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
