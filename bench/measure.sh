# SPDX-License-Identifier: GPL-2.0
#
# What "make bench" does in the guest.  Its lines are read by bench/run:
#   step TEXT                       something begins
#   sample SERVED NAME LEAST MEDIAN an exit of a guest, served by "c" or by "rust"
#   call SERVED NAME LEAST MEDIAN   a call of a function, of "c", of "rust", or
#                                   "livepatch": of C's, which leads to Rust
#   problem TEXT                    something that must not be

. ./functions.sh

measure() { # c or rust
	if ! ./bench/roundtrip >/tmp/out 2>&1; then
		cat /tmp/out
		echo "problem roundtrip failed, served by $1"
	fi
	sed -nE "s/^([a-z0-9_]+ [0-9]+ [0-9]+)\$/sample $1 \\1/p" /tmp/out
}

# The module measures while it is being loaded.
call() { # who is called, module, patterns of the two functions' names
	local MARK
	mark_log
	insmod ./bench/vmx_vpid_cost.ko allocate="$(address "$2" "$3")" \
		release="$(address "$2" "$4")" && rmmod vmx_vpid_cost ||
		echo "problem the module that measures did not load"
	log | sed -nE "s/.*cost ([a-z_0-9]+ [0-9]+ [0-9]+)\$/call $1 \\1/p"
}

mark_log
reload_kvm ept=0 || echo "problem kvm_intel did not load"
echo "step measuring KVM's C code, shadow paging"
measure c
echo "step measuring KVM's VPIDs"
call c kvm_intel '^allocate_vpid$' '^free_vpid$'
attach || echo "problem the module did not attach"
echo "step measuring Rust in the same boot"
measure rust
nothing_leaked >/dev/null || echo "problem a VPID leaked, or a flush failed"
echo "step measuring the pool"
call rust vmx_vpid 'Entry.*Native.*allocate_vpid' 'Entry.*Native.*free_vpid'
call livepatch kvm_intel '^allocate_vpid$' '^free_vpid$'
nothing_leaked >/dev/null || echo "problem a VPID leaked, or a flush failed"
detach || echo "problem the module did not detach"
no_new_warnings || echo "problem the kernel warned"
