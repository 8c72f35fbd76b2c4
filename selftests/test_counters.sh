#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# This test checks that the counters grow when guests run, as the configuration of kvm_intel
# requires, and that they count the calls that ftrace and kprobes on the functions in C do not
# see.

. "$(dirname "$0")/functions.sh"
require
ktap_print_header
ktap_set_plan 33

# Counters start at 0 when the module loads, so each configuration loads the module again.
with() { # parameters of kvm_intel...
	reload_kvm "$@" && attach
}
run_guests() { guest remap -s 1 -v 2 && guest churn -n 6; }
sums_up() { # total, parts...: the first counter is the sum of the others
	local total part sum=0
	total=$(stat_of "$1")
	shift
	for part; do sum=$((sum + $(stat_of "$part"))); done
	[ "$total" = "$sum" ]
}
some_and_sums_up() { stat_positive "$1" && sums_up "$@"; }
none() { # counters that are 0
	local name
	for name; do stat_is "$name" 0 || { cat $DEBUGFS/stats; return 1; }; done
}

check "ept=1: the module attaches" with ept=1
check "ept=1: guests run" run_guests
check "ept=1: KVM requested flush_tlb_all" stat_positive op_flush_tlb_all
check "ept=1: one INVEPT of all contexts served each flush_tlb_all" \
	sums_up op_flush_tlb_all invept_all
check "ept=1: one INVEPT of one context served each flush_tlb_current" \
	some_and_sums_up op_flush_tlb_current invept_context
check "ept=1: one INVVPID of one context served each flush_tlb_guest" \
	some_and_sums_up op_flush_tlb_guest invvpid_context
check "ept=1: Rust allocated VPIDs" stat_positive vpid_acquired
check "ept=1: Rust freed every VPID that it allocated" sums_up vpid_acquired vpid_released
several() { [ "$(stat_of vpid_high_water)" -ge 2 ]; }
check "ept=1: several VPIDs were in use at the same time" several
check "ept=1: no VPID leaked and no flush failed" nothing_leaked
detach

check "ept=0: the module attaches" with ept=0
check "ept=0: guests run" run_guests
check "ept=0: KVM requested flush_tlb_gva for INVLPG" stat_positive op_flush_tlb_gva
check "ept=0: one INVVPID of one address served each flush_tlb_gva" \
	sums_up op_flush_tlb_gva invvpid_address
check "ept=0: INVVPID of one context served flushes" stat_positive invvpid_context
check "ept=0: Rust issued no INVEPT" none invept_all invept_context
check "ept=0: no VPID leaked and no flush failed" nothing_leaked
detach

check "vpid=0: the module attaches" with vpid=0
check "vpid=0: guests run" run_guests
check "vpid=0: Rust allocated no VPID and issued no INVVPID" \
	none vpid_acquired invvpid_address invvpid_context invvpid_all vpid_exhausted
check "vpid=0: Rust issued INVEPT" stat_positive invept_all
detach

check "ept=0 vpid=0: the module attaches" with ept=0 vpid=0
check "ept=0 vpid=0: guests run" run_guests
check "ept=0 vpid=0: Rust issued no instruction" \
	none invvpid_address invvpid_context invvpid_all invept_context invept_all
detach

# Record calls of functions in the tests' instance, by the function tracer and by kprobes.
PROBES=/sys/kernel/tracing/kprobe_events
# Print the reason why the kernel cannot do this; nothing if the kernel can.  Call trace_on first.
probes_lack() {
	grep -qw function $TRACING/available_tracers || echo "no function tracer"
	[ -f $PROBES ] || echo "no kprobe events"
}
probe() { # functions, each as module:function
	local function
	for function; do
		echo "p:vmx_vpid_test/${function#*:} $function" >>$PROBES || return
		echo "${function#*:}" >>$TRACING/set_ftrace_filter || return
	done
	echo 1 >$TRACING/events/vmx_vpid_test/enable && echo function >$TRACING/current_tracer
}
unprobe() {
	echo nop >$TRACING/current_tracer
	echo 0 >$TRACING/events/vmx_vpid_test/enable
	echo '-:vmx_vpid_test/' >>$PROBES
}
# Calls of a function that the function tracer and a kprobe saw.
tracer_saw() { grep -m3 ": $1\( \[[a-z_]*\]\)\? <-" $TRACING/trace; }
kprobe_saw() { grep -m3 ": $1: (" $TRACING/trace; }
seen() { # functions
	local function
	for function; do
		tracer_saw "$function" && kprobe_saw "$function" ||
			{ echo "$function: not seen"; return 1; }
	done
}
unseen() { # functions
	local function
	for function; do
		! tracer_saw "$function" && ! kprobe_saw "$function" || return
	done
}

# KVM's static call and exit table lead to Rust, past the first two functions.  Livepatch alone
# leads to Rust from the entry of vmx_vcpu_create(), and Rust calls kvm_mmu_page_fault().
DIRECT="vmx_flush_tlb_all handle_ept_violation"
OTHERS="vmx_vcpu_create kvm_mmu_page_fault"
probed_guests() { echo >$TRACING/trace && guest churn -n 3; }
probe_all() {
	probe kvm_intel:vmx_flush_tlb_all kvm_intel:handle_ept_violation \
		kvm_intel:vmx_vcpu_create kvm:kvm_mmu_page_fault && probed_guests
}
counted() { stat_positive op_flush_tlb_all && stat_positive exit_ept_violation; }
in_trace() { grep -q 'kvm_exit: .*EPT_VIOLATION' $TRACING/trace; }
counted_and_in_trace() { counted && in_trace || { cat $DEBUGFS/stats; false; }; }
probed_tests() {
	check "probes: guests run in C with probes on KVM's functions" probe_all
	check "probes: in C, ftrace and kprobes see each function" seen $DIRECT $OTHERS
	check "probes: the module attaches" attach
	check "probes: guests run attached" probed_guests
	check "probes: attached, a function behind a static call or the exit table is not seen" \
		unseen $DIRECT
	check "probes: attached, other functions are seen" seen $OTHERS
	check "probes: attached, the counters and KVM's trace events have the calls" \
		counted_and_in_trace
	detach
	probed_guests >/dev/null
	check "probes: after the detach, ftrace and kprobes see each function" seen $DIRECT $OTHERS
	unprobe
}
reload_kvm ept=1
trace_on kvm/kvm_exit
lacks=$(probes_lack)
if [ -z "$lacks" ]; then
	probed_tests
else
	for name in "guests run in C with probes on KVM's functions" \
		"in C, ftrace and kprobes see each function" \
		"the module attaches" \
		"guests run attached" \
		"attached, a function behind a static call or the exit table is not seen" \
		"attached, other functions are seen" \
		"attached, the counters and KVM's trace events have the calls" \
		"after the detach, ftrace and kprobes see each function"; do
		ktap_test_skip "probes: $name ($lacks)"
	done
fi
trace_off
reload_kvm
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
