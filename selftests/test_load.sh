#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Loading and unloading, in every order of vmx_vpid and kvm_intel.

. "$(dirname "$0")/functions.sh"
require
ktap_print_header
ktap_set_plan 24

# Flushes by static call, and so many exits by KVM's table of handlers.
full_speed() { # exits
	grep -q '^static_calls 4/4$' $DEBUGFS/status &&
		grep -q "^exit_handlers $1/5\$" $DEBUGFS/status || { cat $DEBUGFS/status; false; }
}
waiting() { grep -q '^kvm_intel: not loaded$' $DEBUGFS/status && phase_is detached; }

check "attaches when kvm_intel is there" attach
check "flushes go by static call, exits by KVM's table" full_speed 5
check "is refused a second time" refused_as "File exists" load_module
check "is not unloaded while attached" refused_as "Resource temporarily unavailable" rmmod vmx_vpid
# One that replaces all other livepatches would drop this one without a word.
REPLACE=$(test_module vmx_vpid_replace)
check "a cumulative livepatch is refused" refused_as "Invalid argument" insmod "$REPLACE"
check "and changes nothing" phase_is attached
# A file that is open keeps the module, also one that was detached.
exec 5<$DEBUGFS/stats
echo 0 >$SYSFS/enabled
eventually gone
check "is not unloaded while a file is open" refused_as "Resource temporarily unavailable" \
	rmmod vmx_vpid
served_by_c() { grep -q '^kvm_intel: served by C$' $DEBUGFS/status; }
check "says that C serves" served_by_c
exec 5<&-
check "detaches and unloads" eventually rmmod vmx_vpid
check "takes its files along" not test -e $DEBUGFS

check "kvm_intel unloads" unload_kvm
check "loads and waits without kvm_intel" load_module
check "says that it waits" waiting
trace_on vmx_vpid/vmx_vpid_attach
check "attaches when kvm_intel loads" load_kvm
traced() { grep -q 'vmx_vpid_attach: vpids 0' $TRACING/trace || { cat $TRACING/trace; false; }; }
check "which is traced" traced
trace_off
check "at full speed too" full_speed 5
check "lets kvm_intel go while attached" unload_kvm
check "waits again" waiting
check "attaches to a kvm_intel without nested VMX" load_kvm nested=0
check "and leaves the exits of VMX instructions alone" full_speed 3
unload_kvm
check "detaches while it waits" detach

check "leaves a kvm_intel behind that works" load_kvm
check "which runs guests" guest churn -n 3
check "no warning in the kernel's log" no_new_warnings
ktap_finished
