// SPDX-License-Identifier: GPL-2.0
/*
 * This file has functions for the groups whose guests are C code on the library of
 * KVM's selftests.
 */
#include "insn.h"

/* Map a page of tables for the guest; return the guest's address of the entry. */
u64 *show_entry(struct kvm_vm *vm, u64 *entry)
{
	gva_t window = vm_unused_gva_gap(vm, PAGE_SIZE, KVM_UTIL_MIN_VADDR);
	gpa_t gpa = addr_hva2gpa(vm, entry);

	virt_pg_map(vm, window, gpa & PAGE_MASK);
	return (u64 *)(window + (gpa & ~PAGE_MASK));
}

/* Count a case whose result is a value that the guest read. */
void count_effect(struct machine *m, const char *name, bool good, u64 seen)
{
	m->cases++;
	if (good)
		return;
	m->failed++;
	printf("%s: %s: got %#lx\n", m->group, name, seen);
}

void run_to_the_end(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	/* Livepatch may interrupt KVM_RUN by a fake signal. */
	while (__vcpu_run(vcpu) && errno == EINTR)
		;
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(uc.cmd, UCALL_DONE);
}
