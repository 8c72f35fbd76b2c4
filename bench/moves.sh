# SPDX-License-Identifier: GPL-2.0
#
# This script is the part of "make bench" in the guest, on two CPUs: it moves a vCPU
# beside a busy VM, and counts the invalidations.  The output has the lines of
# measure.sh.
#
# The module has counters.  C has no counters, so the function tracer counts calls of C's
# functions.  Only KVM's core calls these functions, and on a CPU that has all extents
# each issues one instruction: of all contexts for "all", of an address for "gva", of a
# context otherwise.

. ./functions.sh

MOVES=${1:-1000}

problem() { echo "problem $*"; }

# Call this before the guests start: with running guests each command would take seconds.
trace_calls() {
	[ -d /sys/kernel/tracing/instances ] || mount -t tracefs none /sys/kernel/tracing
	mkdir $TRACING && echo "vmx_flush_tlb_*" >$TRACING/set_ftrace_filter &&
		echo function >$TRACING/current_tracer
}
trace_no_calls() {
	echo nop >$TRACING/current_tracer
	trace_off
}
count_calls() { echo >$TRACING/trace; }
calls() { # flushes
	local op number=0
	for op; do
		number=$((number + $(grep -c " vmx_flush_tlb_$op " $TRACING/trace)))
	done
	echo $number
}
sample() { echo "sample $1 moves $2 $3 $3"; } # served, name, number

# C has one policy: its figures are in the rows of both.
report_c() { # ept=
	local name
	for name in "$1" "$1_apart"; do
		sample c "all_$name" "$(calls all)"
		sample c "context_$name" "$(calls current guest)"
		sample c "address_$name" "$(calls gva)"
	done
}
report_rust() { # ept=, with the policy
	sample rust "all_$1" $(($(growth invept_all) + $(growth invvpid_all)))
	sample rust "context_$1" $(($(growth invept_context) + $(growth invvpid_context)))
	sample rust "address_$1" "$(growth invvpid_address)"
}

ready() { grep -q ready /tmp/out; }
over() { grep -q moves /tmp/out || ! kill -0 $child 2>/dev/null; }
moving() { # function that starts the count, function that reports, name
	echo "step $MOVES moves, $3"
	rm -f /tmp/in
	mkfifo /tmp/in
	./bench/moves -n "$MOVES" </tmp/in >/tmp/out 2>&1 &
	child=$!
	exec 5>/tmp/in
	eventually ready && $1 || problem "the vCPUs did not run: $(cat /tmp/out)"
	echo >&5
	until over; do sleep 0.5; done
	$2 "$3"
	echo >&5
	exec 5>&-
	wait $child || problem "moves failed: $(cat /tmp/out)"
}

mark_log
for ept in 1 0; do
	reload_kvm ept=$ept
	trace_calls || problem "the trace of the functions failed"
	moving count_calls report_c ept$ept
	trace_no_calls
done
attach || problem "the module did not attach"
moving remember report_rust ept0
switch flush_context 1
moving remember report_rust ept0_apart
reload_kvm && eventually phase_is attached || problem "kvm_intel did not come back"
moving remember report_rust ept1_apart
switch flush_context 0
moving remember report_rust ept1
nothing_leaked >/dev/null || problem "a VPID leaked, or a flush failed"
detach || problem "the module did not detach"
no_new_warnings || problem "the kernel warned"
