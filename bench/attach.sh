# SPDX-License-Identifier: GPL-2.0
#
# This script measures the time of attach and detach, and the memory of the module.
# measure.sh sources it.
#
# Probes are at the start and the end of functions, with the TSC as the clock.  The
# module's own work is in livepatch's callbacks, so their time is separate from the time
# of livepatch's own work.

EVENTS=/sys/kernel/tracing/kprobe_events
CALLBACKS="pre_patch post_patch pre_unpatch post_unpatch"

probe() { # name, function
	echo "p:bench/$1 $2" >>$EVENTS && echo "r:bench/${1}_end $2" >>$EVENTS
}
probe_all() {
	local callback
	[ -d /sys/kernel/tracing/instances ] || mount -t tracefs none /sys/kernel/tracing
	probe load load_module && probe patch klp_enable_patch &&
		probe transition klp_try_complete_transition || return
	# Probes of the module's functions work once the module is loaded.
	for callback in $CALLBACKS; do probe $callback "vmx_vpid:$callback" || return; done
	mkdir $TRACING && echo x86-tsc >$TRACING/trace_clock && echo 1 >$TRACING/events/bench/enable
}
probe_none() {
	local name
	echo 0 >$TRACING/events/bench/enable
	trace_off
	for name in load patch transition $CALLBACKS; do
		echo "-:bench/$name" >>$EVENTS
		echo "-:bench/${name}_end" >>$EVENTS
	done
}

# Print the ticks of each probed function, the sum of all its calls.
ticks() { # attach or detach
	awk -v what="$1" '
	!/^#/ {
		for (i = 1; i < NF && $i !~ /^[0-9]+:$/; i++)
			;
		time = $i + 0
		name = $(i + 1)
		sub(/:$/, "", name)
		if (sub(/_end$/, "", name))
			total[name] += time - start[name]
		else
			start[name] = time
	}
	END {
		for (name in total)
			printf "sample rust module %s_%s %.0f %.0f\n", what, name,
				total[name], total[name]
	}' $TRACING/trace
}

# Print the KiB of memory of a kind.
memory_of() { sed -n "s/^$1: *\([0-9]*\) kB/\1/p" /proc/meminfo; }
remember_memory() {
	local kind
	for kind in VmallocUsed Percpu Slab; do eval "before_$kind=$(memory_of $kind)"; done
}
memory() { # name, kind
	local before
	eval "before=\$before_$2"
	sample rust module "$1" $(($(memory_of "$2") - before))
}

attach_probed() {
	remember_memory
	probe_all || problem "the probes for the attach failed"
	attach || problem "the module did not attach"
	ticks attach
	probe_none
	sample rust module memory_code "$(awk '$1 == "vmx_vpid" { print $2 }' /proc/modules)"
	memory memory_vmalloc VmallocUsed
	memory memory_percpu Percpu
	memory memory_slab Slab
}
detach_probed() {
	probe_all || problem "the probes for the detach failed"
	detach || problem "the module did not detach"
	ticks detach
	probe_none
}
