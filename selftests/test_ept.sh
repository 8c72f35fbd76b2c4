#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Guests access memory that they do not have yet, memory that is watched, and registers
# of devices: EPT violations and misconfigurations of each kind.  What a guest sees, and
# what KVM's own trace events tell of it, is the same in C and attached; and each kind
# is counted as what it is.

. "$(dirname "$0")/functions.sh"
require
[ -x "$BIN/guests/ept" ] || skip_all "guests/ept is not built: run 'make selftests'"
STAGES=$(guest ept list | grep -x '[a-z-]*') || skip_all "guests/ept does not say what it has"
NARROW=$BIN/kvm/x86/smaller_maxphyaddr_emulation_test
SAID=/tmp/vmx_vpid_ept
mkdir -p $SAID

ktap_print_header
ktap_set_plan $((4 * $(echo "$STAGES" | wc -l) + 12))

# What a stage prints, and the trace at the same time: addresses, qualifications.
say() { # stage
	local failed=0
	trace_on kvm/kvm_page_fault kvm/kvm_fast_mmio || return
	guest ept "$1" >$SAID/out 2>&1 || failed=1
	# The library of the tests chooses it at random each time.
	grep -v '^Random seed:' $SAID/out
	sed -n 's/^.*: \(kvm_page_fault\|kvm_fast_mmio\): /\1 /p' $TRACING/trace
	trace_off
	return $failed
}
say_in() { # who serves, stage
	say "$2" >"$SAID/$2.$1" || { cat "$SAID/$2.$1"; return 1; }
	grep -q '^kvm_page_fault' "$SAID/$2.$1" || { echo "nothing was traced"; return 1; }
}
same() { # stage
	diff "$SAID/$1.c" "$SAID/$1.rust"
}

# Whether this kvm_intel has the CPU log what is written to.
logs_writes() { grep -q Y /sys/module/kvm_intel/parameters/pml; }
# What each stage is about.
kinds() { # stage
	case $1 in
	read) echo violation_read_not_present ;;
	write) echo violation_write_not_present ;;
	write-read) echo violation_read_not_present violation_write_permission ;;
	fetch) echo violation_fetch_not_present ;;
	walk) echo violation_walk_not_present ;;
	watch) logs_writes && echo violation_write_not_present || echo violation_write_permission ;;
	device) echo mmio_slow ;;
	told) echo mmio_fast ;;
	nmi) echo exit_ept_violation ;;
	esac
}
# How often at least: 16 pages, or 16 accesses.  The first access to a device is a
# violation still; of the pages that were written to and are watched again, every third
# is written to once more.
least() { # stage
	case $1 in
	told) echo 15 ;;
	watch) logs_writes && echo 16 || echo 6 ;;
	nmi) echo 1 ;;
	*) echo 16 ;;
	esac
}
counted() { # stage
	local name
	for name in $(kinds "$1"); do
		[ "$(growth "$name")" -ge "$(least "$1")" ] ||
			{ echo "$name: $(growth "$name")"; return 1; }
	done
}
sum_of() { # how names begin
	awk -v name="^$1" '$1 ~ name { sum += $2 } END { print sum }' $DEBUGFS/stats
}
adds_up() {
	stat_is exit_ept_violation "$(sum_of violation_)" &&
		stat_is exit_ept_misconfig "$(sum_of mmio_)"
}
with() { # parameters of kvm_intel...
	reload_kvm "$@" && attach
}
no_exit_of_ept() {
	guest ept read device && stayed exit_ept_violation exit_ept_misconfig
}

for stage in $STAGES; do
	check "C: $stage" say_in c "$stage"
done
check "attached" attach
for stage in $STAGES; do
	remember
	check "attached: $stage" say_in rust "$stage"
	check "attached: $stage is counted" counted "$stage"
	check "attached: $stage is traced as in C" same "$stage"
done
check "the counters add up" adds_up
remember
check "memory that comes and goes" guest remap -s 2 -v 2
check "comes by violations" grew exit_ept_violation
check "detached" detach

check "guests of fewer address bits: attached" with allow_smaller_maxphyaddr=1
check "guests of fewer address bits: an access beyond them is emulated" "$NARROW"
check "guests of fewer address bits: detached" detach

check "without EPT: attached" with ept=0
remember
check "without EPT: no exit is one of EPT" no_exit_of_ept
check "without EPT: detached" detach
reload_kvm
rm -r $SAID
check "no warning in the kernel's log" no_new_warnings
ktap_finished
