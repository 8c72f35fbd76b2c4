# SPDX-License-Identifier: GPL-2.0
#
# This file has functions for all selftests.  A test sources it, in any POSIX shell with
# "local".

DIR=$(dirname "$0")
# The programs are beside the scripts, or where "make" puts them by default.
BIN=$DIR
[ -d "$BIN/guests" ] && [ -d "$BIN/kvm" ] || BIN=$DIR/output
SYSFS=/sys/kernel/livepatch/vmx_vpid
DEBUGFS=/sys/kernel/debug/vmx_vpid

# The testbed's root image has the module and kvm_intel in one folder.  Elsewhere
# the module is in the checkout, and modprobe finds kvm_intel.
for MODULE in "${VMX_VPID_KO:-}" /lib/modules/vmx_vpid.ko "$DIR/../build/test/vmx_vpid.ko"; do
	[ -f "$MODULE" ] && break
done
for helpers in "$DIR/ktap_helpers.sh" "$DIR/../kselftest/ktap_helpers.sh" \
	"${KSELFTEST_DIR:-}/kselftest/ktap_helpers.sh"; do
	if [ -f "$helpers" ]; then
		. "$helpers"
		break
	fi
done
if [ -z "${KSFT_SKIP:-}" ]; then
	echo "1..0 # SKIP ktap_helpers.sh not found: set KSELFTEST_DIR="
	exit 4
fi

skip_all() { # reason
	ktap_skip_all "$@"
	exit "$KSFT_SKIP"
}

# check NAME COMMAND...: one test; if the command fails, its output is shown
check() {
	local name="$1" out
	shift
	if out=$("$@" 2>&1); then
		ktap_test_pass "$name"
	else
		ktap_test_fail "$name"
		printf '%s\n' "failed: $*" "$out" "phase $(phase)" | sed 's/^/# /'
	fi
}

# eventually COMMAND...: true as soon as the command succeeds, within 60 s
eventually() {
	local end=$(($(cut -d. -f1 /proc/uptime) + 60))
	until "$@"; do
		[ "$(cut -d. -f1 /proc/uptime)" -lt "$end" ] || return 1
		sleep 0.1
	done
}

stat_of() { # name: a value of debugfs
	sed -n "s/^$1 //p" "$DEBUGFS/stats"
}

phase() {
	if [ -d "$DEBUGFS" ]; then
		sed -n 's/^phase //p' "$DEBUGFS/status"
	else
		echo "not loaded"
	fi
}

phase_is() { [ "$(phase)" = "$1" ]; }
stat_is() { [ "$(stat_of "$1")" = "$2" ]; }
# Record the counters; later, check which of them grew.
remember() {
	BEFORE=$(cat $DEBUGFS/stats)
}
growth() { echo $(($(stat_of "$1") - $(echo "$BEFORE" | sed -n "s/^$1 //p"))); }
grew() { # counters
	local name
	for name; do [ "$(growth "$name")" -gt 0 ] || { echo "$name did not grow"; return 1; }; done
}
stayed() { # counters
	local name
	for name; do
		[ "$(growth "$name")" = 0 ] || { echo "$name: $(growth "$name")"; return 1; }
	done
}
stat_positive() { [ "$(stat_of "$1")" -gt 0 ]; }
settled() { [ "$(cat $SYSFS/transition)" = 0 ]; }
loaded() { grep -q "^$1 " /proc/modules; }
not() { ! "$@"; }

# The kernel's log from a mark on; log fails if the kernel has dropped the mark.
mark_log() {
	MARK="selftest of vmx_vpid: $$ at $(cut -d' ' -f1 /proc/uptime)"
	echo "$MARK" >/dev/kmsg
}
log() { dmesg | awk -v mark="$MARK" 'found; index($0, mark) { found = 1 } END { exit !found }'; }
said() { log | grep -q "$1" || { log | tail -20; false; }; }
no_new_warnings() {
	log >/dev/null || {
		echo "the log lost its beginning: log_buf_len= makes it larger"
		return 1
	}
	! log | grep -E 'WARNING:|BUG:|Oops|possible circular|KASAN'
}

# A tracing instance for the selftests alone.
TRACING=/sys/kernel/tracing/instances/vmx_vpid
trace_on() { # events
	local event
	[ -d /sys/kernel/tracing/instances ] || mount -t tracefs none /sys/kernel/tracing || return
	mkdir $TRACING || return
	for event; do echo 1 >$TRACING/events/$event/enable || return; done
}
trace_off() { rmdir $TRACING; }

# True if at least $1 VMs exist.
vms() { [ "$(ls -d /sys/kernel/debug/kvm/[0-9]*-* 2>/dev/null | wc -l)" -ge "$1" ]; }

load_kvm() { # parameters of kvm_intel
	if [ -f /lib/modules/kvm-intel.ko ]; then
		loaded irqbypass || insmod /lib/modules/irqbypass.ko || return
		loaded kvm || insmod /lib/modules/kvm.ko || return
		insmod /lib/modules/kvm-intel.ko "$@"
	else
		modprobe kvm_intel "$@"
	fi
}

unload_kvm() {
	! loaded kvm_intel || rmmod kvm_intel
}

reload_kvm() { # parameters of kvm_intel
	unload_kvm && load_kvm "$@"
}

load_module() { # parameters of the module
	insmod "$MODULE" "$@"
}

attach() {
	load_module && eventually phase_is attached && eventually settled
}

gone() { [ ! -d $SYSFS ]; }

# Disable, wait until C serves every task, and unload.
detach() {
	echo 0 >$SYSFS/enabled && eventually gone && eventually rmmod vmx_vpid 2>/dev/null
}

require() {
	[ "$(id -u)" = 0 ] || skip_all "needs root"
	[ -f "$MODULE" ] || skip_all "vmx_vpid.ko not found: 'make modules', or set VMX_VPID_KO="
	[ -d /sys/kernel/livepatch ] || skip_all "the kernel has no livepatch"
	grep -qw vmx /proc/cpuinfo || skip_all "the CPU has no VMX"
	[ -d /sys/kernel/debug/kvm ] || [ -d /sys/kernel/debug/sched ] ||
		mount -t debugfs none /sys/kernel/debug || skip_all "no debugfs"
	[ -x "$BIN/guests/remap" ] || skip_all "the guests are not built: run 'make selftests'"
	loaded kvm_intel || load_kvm || skip_all "kvm_intel does not load"
	! loaded vmx_vpid || skip_all "vmx_vpid is loaded: disable and unload vmx_vpid first"
	mark_log
}

# Print the address of a function, by its module and a pattern of its name.
SYMBOLS=/proc/kallsyms
address() {
	awk -v module="[$1]" -v name="$2" '$4 == module && $3 ~ name { print "0x" $1; exit }' \
		$SYMBOLS
}
# Copy the symbols of some modules, after each load: the whole file is slow to read in an emulator.
keep_symbols() { # modules
	local module
	SYMBOLS=/tmp/symbols
	grep -F "$(for module; do echo "[$module]"; done)" /proc/kallsyms >$SYMBOLS
}

# True while the module is attached and no guest runs.
nothing_leaked() {
	stat_is vpid_in_use 0 && stat_is vpid_not_held 0 && stat_is flush_lost 0 &&
		stat_is insn_vmfail 0 && stat_is insn_fault 0 || { cat $DEBUGFS/stats; false; }
}

# Set a switch in debugfs.
switch() { # name, value
	echo "$2" >$DEBUGFS/"$1" && grep -q "^$1 $2\$" $DEBUGFS/status
}

# Counters that stay at 0 unless there is an error.
FAILURES="flush_lost insn_vmfail insn_fault vpid_not_held"

# Print the path of a module for the tests, in the image or in the build tree.
test_module() { # name
	local module="$DIR/$1.ko"
	[ -f "$module" ] || module=$(dirname "$MODULE")/selftests/modules/$1.ko
	echo "$module"
}

# 8 threads allocate and free VPIDs at the same time: no VPID may have two holders, and no
# allocation may fail.
stress() { # number of calls
	insmod "$(test_module vmx_vpid_stress)" operations="$1" \
		allocate="$(address kvm_intel '^allocate_vpid$')" \
		release="$(address kvm_intel '^free_vpid$')" || { dmesg | tail -5; return 1; }
	rmmod vmx_vpid_stress
}
# Print the reason why stress cannot run on this machine; nothing if stress can run.
stress_lacks() {
	if [ ! -f "$(test_module vmx_vpid_stress)" ]; then
		echo "vmx_vpid_stress.ko is not built: 'make modules'"
	elif grep -qw ibt /proc/cpuinfo; then
		echo "IBT: functions of KVM cannot be called by address"
	elif [ "$(cat /proc/sys/kernel/kptr_restrict)" = 2 ]; then
		echo "kptr_restrict is 2"
	fi
}

# The number of lines in vpids that agree with KVM, and of lines that do not.
lines_held() { grep -c 'state=held' $DEBUGFS/vpids; }
lines_wrong() { grep -cE 'state=(double|free|unclaimed)' $DEBUGFS/vpids; }
held_is() { [ "$(lines_held)" = "$1" ] && [ "$(lines_wrong)" = 0 ]; }
# Read vpids until /tmp/stop exists or a line is wrong; print the number of lists.  A VPID
# that no vCPU has (state=unclaimed) belongs to a vCPU that is being created, or to stress.
watch_lines() {
	local lines seen=0
	while [ ! -e /tmp/stop ]; do
		sleep 0.05
		# The file does not exist while the module is not loaded.
		lines=$(cat $DEBUGFS/vpids 2>/dev/null) || continue
		case $lines in
		*state=double* | *state=free*) echo "$lines" | grep -E 'double|free'; return 1 ;;
		*state=held*) seen=$((seen + 1)) ;;
		esac
	done
	echo "$seen lists with a vCPU"
	[ $seen -gt 0 ]
}

# Only the shell that started a child can wait for the child; check runs a subshell.
ended_well() { [ $ended = 0 ]; }
start() { # command, in the background
	"$@" >/dev/null 2>&1 &
	child=$!
}
finish() { # after SIGTERM; with an argument, when the child ends by itself
	[ -n "${1:-}" ] || kill $child
	wait $child
	ended=$?
}

refused_as() { # errno's text, command...
	local text="$1" out
	shift
	out=$("$@" 2>&1) && return 1
	case $out in
	*"$text"*) ;;
	*) echo "$out"; return 1 ;;
	esac
}

guest() { # name, arguments
	local name="$1"
	shift
	"$BIN/guests/$name" "$@"
}
