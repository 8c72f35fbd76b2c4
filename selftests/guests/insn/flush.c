// SPDX-License-Identifier: GPL-2.0
/*
 * This file has the cases of the effect of INVLPG and INVPCID on translations: the
 * guest reads a page, changes its page-table entry, executes the instruction, and reads
 * the page again.
 *
 * Only the first of several address spaces has the page.  If the guest has entered other
 * address spaces since, the translation belongs to a cached root, and an invalidation of
 * the current root alone does not drop the translation.
 */
#include "groups.h"

#define NOFLUSH		BIT_ULL(63)
#define GLOBAL		BIT_ULL(8)
#define OLD		0x1111
#define NEW		0x2222
#define NOT_OLD		0x3333	/* the first read did not return OLD */
#define ROOTS		4
#define PAGE_GVA	BIT_ULL(39)	/* in an entry of the root for itself */

enum how { BY_INVLPG = -1, BY_TYPE0, BY_TYPE1, BY_TYPE2, BY_TYPE3, BY_NOTHING };

static const struct flush {
	const char *name;
	enum how how;
	bool pcide;		/* with PCIDs: the first read is under PCID 1 */
	int away;		/* address spaces that the guest enters after the read */
	bool global;
} flushes[] = {
	{ "INVLPG", BY_INVLPG },
	{ "INVLPG, global page", BY_INVLPG, .global = true },
	{ "INVPCID type 0", BY_TYPE0 },
	{ "INVPCID type 1", BY_TYPE1 },
	{ "INVPCID type 2", BY_TYPE2 },
	{ "INVPCID type 3", BY_TYPE3 },
	{ "INVPCID type 2, global page", BY_TYPE2, .global = true },
	{ "INVLPG, PCIDE", BY_INVLPG, true },
	{ "INVLPG, PCIDE, global page", BY_INVLPG, true, .global = true },
	{ "INVPCID type 0, current PCID", BY_TYPE0, true },
	{ "INVPCID type 1, current PCID", BY_TYPE1, true },
	{ "INVPCID type 2, current PCID", BY_TYPE2, true },
	{ "INVPCID type 3, current PCID", BY_TYPE3, true },
	{ "INVPCID type 2, current PCID, global page", BY_TYPE2, true, .global = true },
	{ "INVPCID type 0, previous root", BY_TYPE0, true, 1 },
	{ "INVPCID type 1, previous root", BY_TYPE1, true, 1 },
	{ "INVPCID type 2, previous root", BY_TYPE2, true, 1 },
	{ "INVPCID type 3, previous root", BY_TYPE3, true, 1 },
	{ "INVPCID type 0, root before that", BY_TYPE0, true, 2 },
	{ "INVPCID type 1, root before that", BY_TYPE1, true, 2 },
	{ "INVPCID type 2, root before that", BY_TYPE2, true, 2 },
	{ "INVPCID type 3, root before that", BY_TYPE3, true, 2 },
	{ "INVPCID type 0, third root before", BY_TYPE0, true, 3 },
	{ "INVPCID type 1, third root before", BY_TYPE1, true, 3 },
	{ "INVPCID type 2, third root before", BY_TYPE2, true, 3 },
	{ "INVPCID type 3, third root before", BY_TYPE3, true, 3 },
	{ "INVLPG, global page, previous root", BY_INVLPG, true, 1, true },
	{ "INVPCID type 2, global page, previous root", BY_TYPE2, true, 1, true },
	{ "INVPCID type 2, global page, third root before", BY_TYPE2, true, 3, true },
	/* Without an instruction the old translation has to stay. */
	{ "nothing", BY_NOTHING },
	{ "nothing, PCIDE", BY_NOTHING, true },
	{ "nothing, previous root", BY_NOTHING, true, 1 },
};

struct world {
	u64 *page;
	u64 *entry;
	u64 old, new;		/* values of the entry */
	u64 root[ROOTS];
};

static u64 seen[ARRAY_SIZE(flushes)];

static void drop_by_type(u64 type, u64 pcid, void *address)
{
	u64 descriptor[2] = { pcid, (u64)address };

	asm volatile("invpcid %0, %1" : : "m"(descriptor), "r"(type) : "memory");
}

static void forget(const struct flush *flush, struct world *world)
{
	u64 pcid = flush->pcide ? 1 : 0;

	if (flush->how == BY_INVLPG)
		asm volatile("invlpg (%0)" : : "r"(world->page) : "memory");
	else if (flush->how != BY_NOTHING)
		drop_by_type(flush->how, flush->how < BY_TYPE2 ? pcid : 0, world->page);
}

/* Address space i has PCID i + 1. */
static void enter(struct world *world, const struct flush *flush, int i, u64 flags)
{
	set_cr3(world->root[i] | (flush->pcide ? i + 1 : 0) | flags);
}

static u64 once(struct world *world, const struct flush *flush)
{
	u64 global = flush->global ? GLOBAL : 0, value;
	u64 old_cr4 = get_cr4(), root = get_cr3();
	int i;

	set_cr4(old_cr4 | X86_CR4_PGE | (flush->pcide ? X86_CR4_PCIDE : 0));
	/* A load of CR3 without NOFLUSH brings the root up to date. */
	for (i = flush->away; i >= 0; i--)
		enter(world, flush, i, 0);
	WRITE_ONCE(*world->entry, world->old | global);
	/* This drops everything, by an instruction that is not under test. */
	set_cr4(get_cr4() ^ X86_CR4_PGE);
	set_cr4(get_cr4() ^ X86_CR4_PGE);
	value = READ_ONCE(*world->page);
	for (i = 1; i <= flush->away; i++)
		enter(world, flush, i, NOFLUSH);
	WRITE_ONCE(*world->entry, world->new | global);
	forget(flush, world);
	if (flush->away)
		enter(world, flush, 0, NOFLUSH);
	value = value == OLD ? READ_ONCE(*world->page) : NOT_OLD;
	set_cr3(root & PAGE_MASK);
	set_cr4(old_cr4);
	return value;
}

static void guest_code(struct world *world)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(flushes); i++) {
		if (flushes[i].how < BY_TYPE0 || flushes[i].how > BY_TYPE3 ||
		    this_cpu_has(X86_FEATURE_INVPCID))
			seen[i] = once(world, &flushes[i]);
	}
	GUEST_DONE();
}

static void make_world(struct kvm_vm *vm, struct kvm_vcpu *vcpu)
{
	gva_t world_gva = vm_alloc_page(vm), pages = vm_alloc_pages(vm, 2), copy;
	struct world *world = addr_gva2hva(vm, world_gva);
	u64 *root;
	int i;

	virt_pg_map(vm, PAGE_GVA, addr_gva2gpa(vm, pages));
	world->page = (u64 *)PAGE_GVA;
	world->entry = show_entry(vm, vm_get_pte(vm, PAGE_GVA));
	world->old = *vm_get_pte(vm, PAGE_GVA);
	world->new = *vm_get_pte(vm, pages + PAGE_SIZE);
	*(u64 *)addr_gva2hva(vm, pages) = OLD;
	*(u64 *)addr_gva2hva(vm, pages + PAGE_SIZE) = NEW;
	world->root[0] = vm->mmu.pgd;
	for (i = 1; i < ROOTS; i++) {
		copy = vm_alloc_page(vm);
		root = addr_gva2hva(vm, copy);
		world->root[i] = addr_gva2gpa(vm, copy);
		memcpy(root, addr_gpa2hva(vm, vm->mmu.pgd), PAGE_SIZE);
		root[1] = 0;
	}
	vcpu_args_set(vcpu, 1, world_gva);
}

void flush_linear(struct machine *m)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	int i;

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	make_world(vm, vcpu);
	run_to_the_end(vcpu);
	sync_global_from_guest(vm, seen);
	for (i = 0; i < ARRAY_SIZE(flushes); i++) {
		if (!seen[i])
			continue;
		/* Without an instruction the old page has to show, or the others prove nothing. */
		count_effect(m, flushes[i].name,
			     seen[i] == (flushes[i].how == BY_NOTHING ? OLD : NEW), seen[i]);
	}
	kvm_vm_free(vm);
}
