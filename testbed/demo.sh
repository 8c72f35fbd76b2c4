# SPDX-License-Identifier: GPL-2.0
#
# This script is the part of "make run" in the guest.  testbed/run reads these lines:
#   step TEXT            a step begins
#   guest NAME STATUS    a guest ended
#   stat NAME VALUE      a counter of debugfs
#   problem TEXT         an error

. ./functions.sh

step() { echo "step $*"; }
problem() { echo "problem $*"; }

run_guest() { # name, command...
	local name="$1"
	shift
	"$@" >/tmp/out 2>&1
	echo "guest $name $?"
}

parameter() { cat "/sys/module/kvm_intel/parameters/$1"; }

step "kvm_intel is loaded: ept=$(parameter ept) vpid=$(parameter vpid)"
step "starting a guest under the C code"
./guests/remap -s 600 -v 2 >/tmp/remap 2>&1 &
remap=$!
eventually vms 1

step "loading vmx_vpid.ko: it attaches to the running guest"
attach || problem "the module did not attach"
vms 1 || problem "the guest ended before the module attached"
taken_over=$(stat_of vpid_in_use)
[ "$taken_over" = 2 ] || problem "$taken_over VPIDs taken over from C, not 2"
sed 's/^/step   /' $DEBUGFS/status $DEBUGFS/vpids
kill $remap
wait $remap
echo "guest remap-from-C-to-Rust $?"

step "guests that are served by Rust from the start (EPT)"
run_guest remap-ept ./guests/remap -s 1 -v 2
run_guest vms-come-and-go ./guests/churn -n 8
for name in nested_tdp_fault_test nested_exceptions_test nested_invalid_cr3_test set_sregs_test; do
	run_guest "upstream-$name" ./kvm/x86/$name
done
run_guest instructions-of-a-hypervisor ./guests/insn invvpid-types invept-types flush-l2

nothing_leaked >/dev/null || problem "a VPID leaked, or a flush failed, with EPT"
step "kvm_intel is loaded again, without EPT: shadow paging"
reload_kvm ept=0 || problem "kvm_intel did not load"
eventually phase_is attached || problem "the module did not attach"
run_guest remap-shadow ./guests/remap -s 1 -v 2
run_guest upstream-set_sregs_test-shadow ./kvm/x86/set_sregs_test
run_guest instructions-shadow ./guests/insn invpcid-types invpcid-segment flush-linear

step "reading the counters"
sed 's/^/stat /' $DEBUGFS/stats
# Totals of the whole run; the counters count on while kvm_intel is reloaded.
echo "stat taken_over $taken_over"
echo "stat leaked $((taken_over + $(stat_of vpid_acquired) - $(stat_of vpid_released)))"
nothing_leaked >/dev/null || problem "a VPID leaked, or a flush failed"
step "detaching"
detach || problem "the module did not detach"
run_guest remap-in-C-again ./guests/remap -s 1
step "unloaded; a last guest ran under the C code"
