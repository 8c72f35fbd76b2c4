# SPDX-License-Identifier: GPL-2.0
#
# This script is the part of "make bench" in the guest, on one CPU.  bench/boot.py reads
# these lines:
#   step TEXT                           a step begins
#   sample SERVED TABLE NAME LEAST MEDIAN
#                                       a figure of a table, of "c" or of "rust"; or of
#                                       "livepatch", C's function that leads to Rust, or
#                                       "bare", the instruction by itself
#   problem TEXT                        an error

. ./functions.sh

problem() { echo "problem $*"; }
sample() { echo "sample $1 $2 $3 $4 ${5:-$4}"; } # served, table, name, least, median
. ./attach.sh

# Run a program that measures; its name is the name of its table.
measure() { # c or rust, program
	echo "step $2, served by $1"
	if ! ./bench/"$2" >/tmp/out 2>&1; then
		cat /tmp/out
		problem "$2 failed, served by $1"
	fi
	sed -nE "s/^([a-z0-9_]+ [0-9]+ [0-9]+)\$/sample $1 $2 \\1/p" /tmp/out
}

# Print the figures of a module, from the kernel's log.
samples() { # kind of line, backend, table
	log | sed -nE "s/^(.* )?$1 ([a-z_0-9]+ [0-9]+ [0-9]+)\$/sample $2 $3 \\2/p"
}

# The module measures while it loads.
call() { # backend, module, patterns of the two functions' names
	local MARK
	mark_log
	insmod ./bench/vmx_vpid_cost.ko allocate="$(address "$2" "$3")" \
		release="$(address "$2" "$4")" && rmmod vmx_vpid_cost ||
		problem "the module that measures VPIDs did not load"
	samples cost "$1" vpid
}

# The module measures at a VM entry, and prints the figures when it unloads.
flush() { # backend, module, pattern of the functions' names with @ for the request; table
	local MARK op functions= table=${4:-flush}
	mark_log
	for op in all current gva guest; do
		functions=$functions,$(address "$2" "$(echo "$3" | sed "s/@/$op/")")
	done
	insmod ./bench/vmx_vpid_flush_cost.ko functions="${functions#,}" &&
		./bench/roundtrip -t 1 >/dev/null && rmmod vmx_vpid_flush_cost ||
		problem "the module that measures flushes failed"
	samples cost "$1" "$table"
	samples bare "bare" "$table"
}

flush_c() { flush "$1" kvm_intel '^vmx_flush_tlb_@$'; }
flush_rust() {
	local name='^_R.*Entry.*Native.*flush_tlb_@'
	flush rust vmx_vpid "$name"
	switch flush_context 1 || problem "flush_context cannot be switched"
	flush rust vmx_vpid "$name" apart
	switch flush_context 0 || problem "flush_context cannot be switched"
	flush_c livepatch
}
no_leak() { nothing_leaked >/dev/null || problem "a VPID leaked, or a flush failed"; }

mark_log
reload_kvm ept=0 || problem "kvm_intel did not load"
measure c roundtrip
measure c compat
echo "step KVM's VPIDs and flushes"
keep_symbols kvm_intel
call c kvm_intel '^allocate_vpid$' '^free_vpid$'
flush_c c
reload_kvm || problem "kvm_intel did not load with EPT"
keep_symbols kvm_intel
flush_c c
measure c nested
measure c memory
measure c lives

echo "step attach"
attach_probed
keep_symbols kvm_intel vmx_vpid
flush_rust
measure rust nested
measure rust memory
measure rust lives
no_leak
reload_kvm ept=0 && eventually phase_is attached || problem "kvm_intel did not come back"
keep_symbols kvm_intel vmx_vpid
flush_rust
measure rust roundtrip
measure rust compat
no_leak
echo "step the pool"
call rust vmx_vpid '^_R.*Entry.*Native.*allocate_vpid' '^_R.*Entry.*Native.*free_vpid'
call livepatch kvm_intel '^allocate_vpid$' '^free_vpid$'
no_leak
echo "step detach"
detach_probed
no_new_warnings || problem "the kernel warned"
