#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What is in the EPTs of VMs: of a guest that is known, of its L2, and of guests that
# change, while they are read.

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

# The regions of one root, the only one that fits: fields of its header.
regions_of() { # pattern of the header
	cat $EPT >/tmp/dump && awk -v wanted="$1" '
	/^---/ { found = index($0, wanted); roots += found > 0; next }
	found
	END { exit roots != 1 }' /tmp/dump || { cat /tmp/dump; false; }
}
# How much of an address range is mapped, in KiB, and by which attributes.
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
mapped_is() { # KiB, as mapped
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
# A VM that stands still: both files tell the same.
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

check "not loaded: no files" not test -e $EPT
check "kvm_intel is away" unload_kvm
check "the module waits" load_module
check "and says so" says $EPT "kvm_intel: not loaded"
check "in both files" says $SUMMARY "kvm_intel: not loaded"
check "kvm_intel" load_kvm
check "attached" eventually phase_is attached
check "no VM, nothing to be seen" says $EPT ""

# Whether there are flags, as the CPU says: IA32_VMX_EPT_VPID_CAP, bit 21.
AD=$(($(sed -n 's/^ept_vpid_cap //p' $DEBUGFS/status) >> 21 & 1))
known
L1="pid=$child .*use=l1 nested=0"
check "a guest that is known" ready
HEADER="pid=$child "
check "pages of 4 KiB" mapped_is 2048 "$HEADER" 000080000000 000080400000 ' 4K +RW'
check "and none that were not touched" mapped_is 2048 "$HEADER" 000080000000 000080400000 .
check "pages of 2 MiB" mapped_is 8192 "$HEADER" 0000c0000000 0000c0800000 ' 2M +RW'
check "write-back" mapped_is 8192 "$HEADER" 0000c0000000 0000c0800000 ' WB '
check "device registers" mapped_is 4 "$HEADER" 0000e0000000 0000e0001000 ' mmio$'
flags_as_the_cpu_has_them() {
	if [ $AD = 1 ]; then
		mapped_is 2048 "$HEADER" 000080000000 000080400000 ' AD$'
	else
		mapped_is 0 "$HEADER" 000000000000 ffffffffffff '[A-][D-]$'
	fi
}
check "flags, if the CPU has them (ad=$AD)" flags_as_the_cpu_has_them
check "the summary says whether" field_is ad $AD "$L1"
used() { [ $AD = 1 ] && [ "$(field dirty "$L1")" -ge $((10 << 20)) ] || field_is dirty - "$L1"; }
check "and how much is dirty" used
check "it agrees with the regions" agrees "$HEADER"
check "markers are counted" field_is mmio 1 "$L1"
check "every entry is sound" no_faults
other_pid() { echo 1 >$DEBUGFS/ept_pid && says $EPT ""; }
check "VMs of another process are left out" other_pid
this_pid() { echo $child >$DEBUGFS/ept_pid && grep -q "$HEADER" $EPT; }
check "those of this one are not" this_pid
bad_pid() { echo 4294967296 >$DEBUGFS/ept_pid; }
check "what is no process is refused" refused_as "nvalid argument" bad_pid
check "and the log says what can be" said "write the number of a process, or 0 for all"
all() { echo 0 >$DEBUGFS/ept_pid && grep -q "$HEADER" $EPT; }
check "with 0, all are shown" all
# Read in pieces of any size, from any place, the text is the same.
pieces() {
	cat $EPT >/tmp/whole && dd if=$EPT bs=7 2>/dev/null | cmp - /tmp/whole &&
		dd if=$EPT bs=100 skip=3 2>/dev/null >/tmp/rest &&
		dd if=/tmp/whole bs=100 skip=3 2>/dev/null | cmp - /tmp/rest
}
check "in pieces it is the same" pieces
# A signal ends a reading, which goes on from there: the next one has the rest of what
# is many lines, and a single line for which all is walked takes several.
signals() { # file
	cat "$1" >/tmp/whole && "$BIN/interrupted" "$1" >/tmp/rest 2>/tmp/count &&
		cmp /tmp/whole /tmp/rest
}
check "among signals a dump is the same" signals $EPT
interrupted() { signals $SUMMARY && ! grep -q '^0 ' /tmp/count || { cat /tmp/count; false; }; }
check "a summary is interrupted by them, and made in the end" interrupted
# A file that is open keeps no VM alive.
exec 9<$EPT
head -c 100 <&9 >/dev/null
finish
check "the guest ends well" ended_well
vm_is_gone() { ! vms 1; }
check "though a file is open" eventually vm_is_gone
check "which goes on to its end" cat <&9
exec 9<&-

known -l
check "a guest whose writes are logged" ready
check "its large pages are split" mapped_is 8192 "pid=$child " 0000c0000000 0000c0800000 ' 4K '
finish

known -n
check "a guest with one of its own" ready
check "L2 has an EPT" mapped_is 64 "use=l2 nested=1" 000080300000 000080400000 ' 4K +RW'
finish

# Guests that change and die while they are read.
rm -f /tmp/stop
watch_epts() {
	local seen=0 lines
	while [ ! -e /tmp/stop ]; do
		cat $EPT >/tmp/watched && cat $SUMMARY >>/tmp/watched || return
		if grep -E 'misconfigured:|misconfigured=[1-9]' /tmp/watched; then return 1; fi
		lines=$(grep -c . /tmp/watched)
		[ "$lines" -lt 3 ] || seen=$((seen + 1))
	done
	echo "$seen readings with a VM"
	[ $seen -gt 2 ]
}
watch_epts >/tmp/readings 2>&1 &
watcher=$!
known -b
busy=$child
start "$BIN/guests/churn" -s 6
finish end
check "VMs come, change and go while they are read" ended_well
kill $busy
wait $busy
touch /tmp/stop
wait $watcher
ended=$?
readings() { ended_well || { cat /tmp/readings /tmp/watched; false; }; }
check "every entry was sound" readings

detach
# KVM's older way to keep an EPT: by shadow pages, as for an EPT of L1's.
reload_all() { # parameters of kvm
	unload_kvm && rmmod kvm || return
	if [ -f /lib/modules/kvm.ko ]; then
		insmod /lib/modules/kvm.ko "$@"
	else
		modprobe kvm "$@"
	fi && load_kvm
}
tdp_mmu_off() { reload_all tdp_mmu=0 && grep -q N /sys/module/kvm/parameters/tdp_mmu; }
check "tdp_mmu=0" tdp_mmu_off
check "attached" attach
known -n
HEADER="use=l1 nested=0"
check "a guest with one of its own" ready
check "pages of 4 KiB" mapped_is 2048 "$HEADER" 000080000000 000080400000 ' 4K +RW'
check "pages of 2 MiB" mapped_is 8192 "$HEADER" 0000c0000000 0000c0800000 ' 2M +RW'
check "L2 has an EPT" mapped_is 64 "use=l2 nested=1" 000080300000 000080400000 ' 4K +RW'
check "the summary agrees" agrees "$HEADER"
check "every entry is sound" no_faults
finish
check "the guest ends well" ended_well
detach
check "kvm as it was" reload_all

check "ept=0" reload_kvm ept=0
check "attached" attach
check "there is no EPT, which is said" says $EPT "kvm_intel: ept=0, no VM has an EPT"
detach
reload_kvm
check "no warning in the kernel's log" no_new_warnings
ktap_finished
