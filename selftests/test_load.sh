#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# This test loads and unloads vmx_vpid and kvm_intel, in every order.

. "$(dirname "$0")/functions.sh"
require
ktap_print_header
ktap_set_plan 24

# KVM calls the module by static calls, and by its table of exit handlers or by name.
full_speed() { # number of exit handlers
	grep -q '^static_calls 4/4$' $DEBUGFS/status &&
		grep -q "^exit_handlers $1/6\$" $DEBUGFS/status || { cat $DEBUGFS/status; false; }
}
waiting() { grep -q '^kvm_intel: not loaded$' $DEBUGFS/status && phase_is detached; }

check "the module attaches when kvm_intel is loaded" attach
check "KVM calls the module by static calls and its exit table" full_speed 6
check "a second load is refused" refused_as "File exists" load_module
check "an unload while attached is refused" \
	refused_as "Resource temporarily unavailable" rmmod vmx_vpid
# A cumulative livepatch would replace vmx_vpid without a call of its callbacks.
REPLACE=$(test_module vmx_vpid_replace)
check "a cumulative livepatch is refused" refused_as "Invalid argument" insmod "$REPLACE"
check "a refused livepatch changes nothing" phase_is attached
# An open file keeps the module loaded, even a detached module.
exec 5<$DEBUGFS/stats
echo 0 >$SYSFS/enabled
eventually gone
check "an unload while a file is open is refused" refused_as "Resource temporarily unavailable" \
	rmmod vmx_vpid
served_by_c() { grep -q '^kvm_intel: served by C$' $DEBUGFS/status; }
check "status says that C serves" served_by_c
exec 5<&-
check "the detached module unloads" eventually rmmod vmx_vpid
check "the files in debugfs are gone after the unload" not test -e $DEBUGFS

check "kvm_intel unloads" unload_kvm
check "the module loads without kvm_intel" load_module
check "status says that kvm_intel is not loaded" waiting
trace_on vmx_vpid/vmx_vpid_attach
check "the module attaches when kvm_intel loads" load_kvm
traced() { grep -q 'vmx_vpid_attach: vpids 0' $TRACING/trace || { cat $TRACING/trace; false; }; }
check "a trace event reports the attach" traced
trace_off
check "KVM calls the late module by static calls and its exit table" full_speed 6
check "kvm_intel unloads while the module is attached" unload_kvm
check "status says again that kvm_intel is not loaded" waiting
check "the module attaches to kvm_intel without nested VMX" load_kvm nested=0
check "without nested VMX, C handles the exits of VMX instructions" full_speed 4
unload_kvm
check "the module detaches and unloads while kvm_intel is not loaded" detach

check "kvm_intel loads after the unload of the module" load_kvm
check "kvm_intel runs guests after the unload of the module" guest churn -n 3
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
