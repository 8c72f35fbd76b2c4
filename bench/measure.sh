# SPDX-License-Identifier: GPL-2.0
#
# What "make bench" does in the guest.  Its lines are read by bench/run:
#   step TEXT                       something begins
#   sample SERVED NAME LEAST MEDIAN a figure, served by "c" or by "rust"
#   problem TEXT                    something that must not be

. ./functions.sh

measure() { # c or rust
	if ! ./bench/roundtrip >/tmp/out 2>&1; then
		cat /tmp/out
		echo "problem roundtrip failed, served by $1"
	fi
	sed -nE "s/^([a-z0-9_]+ [0-9]+ [0-9]+)\$/sample $1 \\1/p" /tmp/out
}

WARNINGS=$(warnings)
reload_kvm ept=0 || echo "problem kvm_intel did not load"
echo "step measuring KVM's C code, shadow paging"
measure c
attach || echo "problem the module did not attach"
echo "step measuring Rust in the same boot"
measure rust
nothing_leaked >/dev/null || echo "problem a VPID leaked, or a flush failed"
detach || echo "problem the module did not detach"
no_new_warnings || echo "problem the kernel warned"
