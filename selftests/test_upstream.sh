#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# This test checks that upstream's KVM selftests, unmodified, have the same result attached
# and not attached, in every configuration of kvm_intel that concerns this layer.

. "$(dirname "$0")/functions.sh"
require

# VMX_VPID_UPSTREAM: an extended regular expression that selects some of the tests.
TESTS=$(sed -nE '/^(#|$)/!p' "$DIR/upstream.list" | grep -E "${VMX_VPID_UPSTREAM:-.}")
[ -n "$TESTS" ] || skip_all "VMX_VPID_UPSTREAM selects no test"
CONFIGS=${VMX_VPID_CONFIGS:-"ept=1,vpid=1 ept=0,vpid=1 ept=1,vpid=0 ept=0,vpid=0"}
ktap_print_header
ktap_set_plan $((($(echo "$TESTS" | wc -l) + 5) * $(echo "$CONFIGS" | wc -w) + 1))

# Print one line for each test: its name and exit status.
run_all() {
	echo "$TESTS" | while read -r name args; do
		# shellcheck disable=SC2086 # a list of words
		timeout 120 "$BIN/kvm/$name" $args >/tmp/upstream.out 2>&1 </dev/null
		ended=$?
		echo "$name $ended"
		case $ended in 0 | 4) ;; *) sed "s|^|# $name: |" /tmp/upstream.out >&2 ;; esac
	done
}
alike() { # config, name
	local c rust
	c=$(sed -n "s|^$2 ||p" "/tmp/c.$1")
	rust=$(sed -n "s|^$2 ||p" "/tmp/rust.$1")
	[ -n "$c" ] && [ "$c" = "$rust" ] && { [ "$c" = 0 ] || [ "$c" = 4 ]; } ||
		{ echo "in C $c, in Rust $rust"; false; }
}

# kvm_intel shows its configuration in its parameters.
set_up_as() { # ept=N,vpid=N
	local p="/sys/module/kvm_intel/parameters"
	[ "ept=$(tr NY 01 <$p/ept),vpid=$(tr NY 01 <$p/vpid)" = "$1" ]
}
reload_as() {
	# shellcheck disable=SC2046 # a list of words
	reload_kvm $(echo "$1" | tr , ' ') && set_up_as "$1"
}
served() { stat_positive op_flush_tlb_all && stat_positive op_allocate_vpid; }

for config in $CONFIGS; do
	check "$config: kvm_intel loads" reload_as "$config"
	run_all >"/tmp/c.$config"
	check "$config: the module attaches" attach
	run_all >"/tmp/rust.$config"
	for name in $(echo "$TESTS" | cut -d' ' -f1); do
		check "$config: $name has the same result in C and in Rust" alike "$config" "$name"
	done
	check "$config: Rust served the guests" served
	check "$config: every VPID is freed" nothing_leaked
	check "$config: the module detaches" detach
done
reload_kvm
check "the kernel's log has no new warning" no_new_warnings
ktap_finished
