#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# In this test guests access memory that the host has not mapped yet, memory with dirty
# logging, and registers of devices: EPT violations and misconfigurations of each kind.  A
# guest reads the same values, and KVM's own trace events are the same, in C and attached.
# Each kind has its counter.

. "$(dirname "$0")/functions.sh"
require
[ -x "$BIN/guests/ept" ] || skip_all "guests/ept is not built: run 'make selftests'"
STAGES=$(guest ept list | grep -x '[a-z-]*') || skip_all "guests/ept lists no stage"
NARROW=$BIN/kvm/x86/smaller_maxphyaddr_emulation_test
SAID=/tmp/vmx_vpid_ept
mkdir -p $SAID

ktap_print_header
ktap_set_plan $((4 * $(echo "$STAGES" | wc -l) + 12))

# Run a stage; print its output, and the addresses and error codes of KVM's trace.
say() { # stage
	local failed=0
	trace_on kvm/kvm_page_fault kvm/kvm_fast_mmio || return
	guest ept "$1" >$SAID/out 2>&1 || failed=1
	# The library of the tests chooses a random seed in each run.
	grep -v '^Random seed:' $SAID/out
	sed -n 's/^.*: \(kvm_page_fault\|kvm_fast_mmio\): /\1 /p' $TRACING/trace
	trace_off
	return $failed
}
say_in() { # who serves, stage
	say "$2" >"$SAID/$2.$1" || { cat "$SAID/$2.$1"; return 1; }
	grep -q '^kvm_page_fault' "$SAID/$2.$1" || { echo "the trace is empty"; return 1; }
}
same() { # stage
	diff "$SAID/$1.c" "$SAID/$1.rust"
}

# True if this kvm_intel has the CPU log dirty pages.
logs_writes() { grep -q Y /sys/module/kvm_intel/parameters/pml; }
# The counters of each stage.
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
# The minimum of a stage's counters: 16 pages, or 16 accesses.  The first access to a device
# is a violation, not a misconfiguration.  The stage "watch" writes to every third page again
# after the dirty log was read.
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
sum_of() { # start of the counters' names
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
	check "C: the stage $stage passes" say_in c "$stage"
done
check "the module attaches" attach
for stage in $STAGES; do
	remember
	check "attached: the stage $stage passes" say_in rust "$stage"
	check "attached: the counters of $stage grow" counted "$stage"
	check "attached: the output and trace of $stage are as in C" same "$stage"
done
check "the counters by kind add up to the counters of exits" adds_up
remember
check "a guest runs while the host drops memory" guest remap -s 2 -v 2
check "dropped memory returns by EPT violations" grew exit_ept_violation
check "the module detaches" detach

check "guests of fewer address bits: the module attaches" with allow_smaller_maxphyaddr=1
check "guests of fewer address bits: KVM emulates an access beyond these bits" "$NARROW"
check "guests of fewer address bits: the module detaches" detach

check "without EPT: the module attaches" with ept=0
remember
check "without EPT: no exit is for an EPT violation or misconfiguration" no_exit_of_ept
check "without EPT: the module detaches" detach
reload_kvm
rm -r $SAID
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
