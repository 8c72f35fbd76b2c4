#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# This test counts the instructions that serve flush requests, with each switch on: guests run
# right, and the module issues no instruction that the switch excludes.  test_moves.sh tests
# vCPUs that move between CPUs.

. "$(dirname "$0")/functions.sh"
require
ktap_print_header
ktap_set_plan 39

INVEPT_CONTEXT=0x2000000
INVVPID_ADDRESS=0x10000000000
INVVPID_CONTEXT=0x20000000000
INVVPID_ALL=0x40000000000

run_guests() { guest remap -s 1 -v 2 && guest churn -n 4 && guest revmxon -n 2; }
guests_with() { # counters that grow, --, counters that do not grow
	remember
	run_guests || return
	while [ "$1" != -- ]; do
		grew "$1" || return
		shift
	done
	shift
	stayed "$@"
}
# Turn a switch on for one run of the guests.
switched() { # name, value, counters...
	local name="$1" value="$2" result
	shift 2
	switch "$name" "$value" || { cat $DEBUGFS/status; return 1; }
	guests_with "$@"
	result=$?
	if [ "$name" = caps_mask ]; then switch "$name" 0x0; else switch "$name" 0; fi &&
		return $result
}
refused() { # name, value: a refused value changes nothing
	local before=$(cat $DEBUGFS/status)
	refused_as "Invalid argument" sh -c "echo $2 >$DEBUGFS/$1" &&
		[ "$(cat $DEBUGFS/status)" = "$before" ]
}

check "ept=1: the module attaches" attach
check "ept=1: by default a full flush drops all contexts" guests_with \
	op_flush_tlb_all invept_all flush_collateral -- $FAILURES invvpid_all
check "ept=1: flush_context=1 drops only the contexts of the vCPU" switched flush_context 1 \
	op_flush_tlb_all invept_context -- $FAILURES flush_collateral
# With flush_context=1 a full flush of a vCPU drops a root that was loaded for an L2 with an
# EPT, which KVM keeps in a second set of roots, and a root of L1.
two_roots() {
	local result
	switch flush_context 1 && trace_on vmx_vpid/vmx_vpid_invept kvm/kvm_nested_vmenter \
		kvm/kvm_nested_vmexit && guest insn flush-l2 || return
	awk '
	/kvm_nested_vmenter:/ { l2 = /nested_ept=y/ }
	/kvm_nested_vmexit:/ { l2 = 0 }
	/reason current$/ { owner[$(NF - 4)] = l2 ? "l2" : "l1" }
	/reason all$/ { named[owner[$(NF - 4)]] = 1 }
	END { exit !(("l1" in named) && ("l2" in named)) }' $TRACING/trace
	result=$?
	[ $result = 0 ] || tail -20 $TRACING/trace
	trace_off
	switch flush_context 0
	return $result
}
check "ept=1: flush_context=1 drops the roots of L1 and of L2" two_roots
check "ept=1: force_flush=1 drops all contexts and all VPIDs" switched force_flush 1 \
	flush_collateral invept_all invvpid_all -- \
	$FAILURES invept_context invvpid_context invvpid_address
check "ept=1: caps_mask excludes INVEPT of one context" switched caps_mask $INVEPT_CONTEXT \
	invept_all flush_widened -- $FAILURES invept_context
check "ept=1: caps_mask excludes INVVPID of one context" switched caps_mask $INVVPID_CONTEXT \
	invvpid_all flush_widened -- $FAILURES invvpid_context
both() { switch flush_context 1 && switched caps_mask $INVEPT_CONTEXT \
	invept_all flush_widened -- $FAILURES invept_context; }
check "ept=1: without INVEPT of one context, flush_context=1 drops all contexts" both
check "ept=1: flush_context turns off" switch flush_context 0
check "ept=1: flushes are as narrow as before" guests_with invept_context -- $FAILURES flush_widened

check "a mask of an unknown bit is refused" refused caps_mask 1
check "the log says which bits can be masked" said "only bits 25, 40, 41 and 42 can be masked"
check "a mask of bits 41 and 42 is refused" refused caps_mask 0x60000000000
check "the log says that one of bits 41 and 42 has to be left" \
	said "of bits 41 and 42 one has to be left"
check "a value of flush_context above 1 is refused" refused flush_context 2
check "the log says which values flush_context has" said "flush_context=2 is refused: write 0 or 1"
check "a value that is no number is refused" refused force_flush on
check "flushes are as narrow as before the refusals" guests_with invept_context -- flush_widened

check "ept=0: kvm_intel loads" reload_kvm ept=0
eventually phase_is attached
check "ept=0: by default a full flush drops all contexts" guests_with \
	op_flush_tlb_all invvpid_all flush_collateral -- $FAILURES invept_all invept_context
check "ept=0: flush_context=1 drops only the VPIDs of the vCPU" switched flush_context 1 \
	op_flush_tlb_all invvpid_context -- $FAILURES flush_collateral
check "ept=0: force_flush=1 drops all VPIDs" switched force_flush 1 \
	invvpid_all -- $FAILURES invvpid_context invvpid_address invept_all
check "ept=0: caps_mask excludes INVVPID of one address" switched caps_mask $INVVPID_ADDRESS \
	op_flush_tlb_gva invvpid_context flush_widened -- $FAILURES invvpid_address
check "ept=0: caps_mask excludes INVVPID of one context" switched caps_mask $INVVPID_CONTEXT \
	invvpid_all flush_widened -- $FAILURES invvpid_context
check "ept=0: caps_mask excludes INVVPID of all contexts" switched caps_mask $INVVPID_ALL \
	op_flush_tlb_all invvpid_context -- $FAILURES flush_collateral
check "ept=0: flush_context turns on" switch flush_context 1
insn() { guest insn invlpg invpcid-types flush-linear; }
check "ept=0: INVLPG and INVPCID of guests work with flush_context=1" insn
switch flush_context 0

check "ept=0 vpid=0: kvm_intel loads" reload_kvm ept=0 vpid=0
eventually phase_is attached
skipping() {
	remember
	guest remap -s 1 && grew flush_skipped && stayed $FAILURES flush_collateral invvpid_context
}
check "ept=0 vpid=0: the module skips every flush" skipping
check "ept=0 vpid=0: the module allocates no VPID" stat_positive vpid_off
detach

# The switches as parameters of the module.
status_has() {
	local line
	for line; do grep -q "^$line\$" $DEBUGFS/status || { cat $DEBUGFS/status; return 1; }; done
}
check "kvm_intel loads with its default parameters" reload_kvm
check "the module loads with switches" load_module flush_context=1 force_flush=1 \
	caps_mask=$INVVPID_ADDRESS max_vpids=1000
check "status shows the switches" status_has "flush_context 1" "force_flush 1" \
	"caps_mask $INVVPID_ADDRESS" "max_vpids 1000"
check "guests run with the switches" run_guests
detach
check "max_vpids=0 is refused" refused_as "Invalid argument" load_module max_vpids=0
check "the log says which values max_vpids has" said "give a number from 1 to 65535"
check "caps_mask=1 is refused" refused_as "Invalid argument" load_module caps_mask=1
check "a refused module is not loaded" not loaded vmx_vpid

check "the kernel's log has no new warning" no_new_warnings
ktap_finished
