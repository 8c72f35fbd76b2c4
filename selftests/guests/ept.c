// SPDX-License-Identifier: GPL-2.0
/*
 * This guest causes EPT violations and misconfigurations of each kind, and checks the
 * results: memory that the host has not mapped yet, has unmapped, shares or
 * write-protects, and registers of devices.
 *
 * Usage: ept [STAGE...]
 * The default is all stages; "ept list" prints their names.  The output of a stage is the
 * same on every kernel that serves the guest right.
 */
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define PAGES		16
#define SLOT		10
/* The addresses of the slot's pages. */
#define SLOT_GPA	0x40000000ul
#define SLOT_GVA	0x40000000ul
/* The same pages again, each mapped by a page table of its own. */
#define APART_GVA	0x80000000ul
#define APART(i)	(APART_GVA + (i) * (1ul << 21))
/* Two pages of registers, where there is no memory. */
#define DEVICE_GPA	0xd0000000ul
#define TOLD_GPA	(DEVICE_GPA + PAGE_SIZE)
#define DEVICE_SIZE	(2 * PAGE_SIZE)

#define PATTERN		0x0123456789abcdeful

/* The action of the host before the guest continues. */
enum { NOTHING, DROP_FRAME, SEND_NMI };

static u64 page(int i)
{
	return SLOT_GVA + i * PAGE_SIZE;
}

static void read_fresh(void)
{
	int i;

	for (i = 0; i < PAGES; i++)
		GUEST_ASSERT_EQ(READ_ONCE(*(u64 *)page(i)), 0);
}

static void write_fresh(void)
{
	int i;

	for (i = 0; i < PAGES; i++)
		WRITE_ONCE(*(u64 *)page(i), i + 1);
	for (i = 0; i < PAGES; i++)
		GUEST_ASSERT_EQ(READ_ONCE(*(u64 *)page(i)), i + 1);
}

/* The host maps one page of zeroes for all pages, until the guest writes. */
static void write_read(void)
{
	read_fresh();
	write_fresh();
}

/* Each page has the code "lea 1(%rdi), %rax; ret". */
static void fetch_fresh(void)
{
	u64 (*function)(u64) = NULL;
	int i;

	for (i = 0; i < PAGES; i++) {
		function = (void *)page(i);
		GUEST_ASSERT_EQ(function(i), i + 1);
	}
}

static void walk_fresh(void)
{
	int i;

	for (i = 0; i < PAGES; i++)
		WRITE_ONCE(*(u64 *)APART(i), i + 1);
	for (i = 0; i < PAGES; i++)
		GUEST_ASSERT_EQ(READ_ONCE(*(u64 *)page(i)), i + 1);
}

/* The host reads the dirty log twice. */
static void write_watched(void)
{
	int i;

	for (i = 0; i < PAGES; i++)
		WRITE_ONCE(*(u64 *)page(i), 0);
	GUEST_SYNC(NOTHING);
	for (i = 0; i < PAGES; i += 3)
		WRITE_ONCE(*(u64 *)page(i), i);
}

static void access_device(void)
{
	u64 at = DEVICE_GPA;
	int turn;

	/* The first access is a violation; then KVM has marked the page as MMIO. */
	for (turn = 0; turn < 4; turn++) {
		WRITE_ONCE(*(u8 *)at, 0x11 + turn);
		GUEST_ASSERT_EQ(READ_ONCE(*(u8 *)at), (0x11 + turn) ^ 0xff);
		WRITE_ONCE(*(u16 *)(at + 8), 0x2222 + turn);
		GUEST_ASSERT_EQ(READ_ONCE(*(u16 *)(at + 8)), (0x2222 + turn) ^ 0xffff);
		WRITE_ONCE(*(u32 *)(at + 16), 0x33333333 + turn);
		GUEST_ASSERT_EQ(READ_ONCE(*(u32 *)(at + 16)), ~(0x33333333u + turn));
		WRITE_ONCE(*(u64 *)(at + 24), PATTERN + turn);
		GUEST_ASSERT_EQ(READ_ONCE(*(u64 *)(at + 24)), ~(PATTERN + turn));
	}
}

static void tell_device(void)
{
	int i;

	for (i = 0; i < PAGES; i++)
		WRITE_ONCE(*(u32 *)TOLD_GPA, i);
}

/*
 * An NMI handler that ends by an IRET from a stack that the host has unmapped, which is
 * an EPT violation during IRET.  A second NMI is pending, and must not come before the
 * IRET has ended.
 */
extern char finish_nmi[], finish_nmi_iret[];

asm(".globl finish_nmi, finish_nmi_iret\n"
	"finish_nmi:\n"
	"mov %rdi, %rsp\n"
	"pop %rax\n pop %rcx\n pop %rdx\n pop %rbx\n pop %rbp\n pop %rsi\n pop %rdi\n"
	"pop %r8\n pop %r9\n pop %r10\n pop %r11\n pop %r12\n pop %r13\n pop %r14\n pop %r15\n"
	"add $16, %rsp\n"
	"finish_nmi_iret:\n"
	"iretq\n");

/* Words on the stack: registers, vector and error code of struct ex_regs; IRET's frame. */
#define BEFORE_IRET	17
#define FRAME		5

static int nmis;

static void nmi_handler(struct ex_regs *regs)
{
	/* The registers end one page, and the frame begins the next page. */
	u64 *stack = (u64 *)page(1) - BEFORE_IRET;
	void (*finish)(u64 *stack) = (void *)finish_nmi;
	int i;

	GUEST_ASSERT(regs->rip != (u64)finish_nmi_iret);
	if (nmis++)
		return;

	for (i = 0; i < BEFORE_IRET + FRAME; i++)
		WRITE_ONCE(stack[i], ((u64 *)regs)[i]);
	GUEST_SYNC(SEND_NMI);
	GUEST_SYNC(DROP_FRAME);
	finish(stack);
}

static void take_nmis(void)
{
	GUEST_SYNC(SEND_NMI);
	while (READ_ONCE(nmis) < 2)
		;
	GUEST_ASSERT_EQ(nmis, 2);
}

static void fill_with_code(u8 *memory)
{
	static const u8 code[] = { 0x48, 0x8d, 0x47, 0x01, 0xc3 };
	int i;

	for (i = 0; i < PAGES; i++)
		memcpy(memory + i * PAGE_SIZE, code, sizeof(code));
}

static struct stage {
	const char *name;
	void (*guest)(void);
	void (*host)(u8 *memory);	/* before the guest runs */
} stages[] = {
	{ "read", read_fresh },
	{ "write", write_fresh },
	{ "write-read", write_read },
	{ "fetch", fetch_fresh, fill_with_code },
	{ "walk", walk_fresh },
	{ "watch", write_watched },
	{ "device", access_device },
	{ "told", tell_device },
	{ "nmi", take_nmis },
};

static struct stage *running;

static void guest_code(void (*stage)(void))
{
	stage();
	GUEST_DONE();
}

/* Registers that return the inverse of the written value. */
static void emulate_device(struct kvm_run *run)
{
	static u8 registers[DEVICE_SIZE];
	u64 offset = run->mmio.phys_addr - DEVICE_GPA;
	unsigned int i;

	TEST_ASSERT(offset + run->mmio.len <= DEVICE_SIZE, "MMIO at 0x%llx",
		    run->mmio.phys_addr);
	for (i = 0; i < run->mmio.len; i++) {
		if (run->mmio.is_write)
			registers[offset + i] = run->mmio.data[i];
		else
			run->mmio.data[i] = ~registers[offset + i];
	}
}

static void take_frame_away(u8 *memory)
{
	/* This unmaps the page from the guest's EPT, and keeps its contents. */
	u8 *frame = memory + PAGE_SIZE;

	TEST_ASSERT_EQ(mprotect(frame, PAGE_SIZE, PROT_NONE), 0);
	TEST_ASSERT_EQ(mprotect(frame, PAGE_SIZE, PROT_READ | PROT_WRITE), 0);
}

static void print_dirty(struct kvm_vm *vm)
{
	unsigned long dirty = 0;
	int i;

	kvm_vm_get_dirty_log(vm, SLOT, &dirty);
	for (i = 0; i < PAGES; i++)
		putchar(dirty >> i & 1 ? '*' : '-');
	printf(" pages are dirty\n");
}

static int run_guest(struct kvm_vm *vm, struct kvm_vcpu *vcpu, u8 *memory)
{
	bool watched = running->guest == write_watched;
	int accesses = 0;
	struct ucall uc;

	for (;;) {
		/* Livepatch may interrupt KVM_RUN by a fake signal. */
		if (__vcpu_run(vcpu) && errno == EINTR)
			continue;
		if (vcpu->run->exit_reason == KVM_EXIT_MMIO) {
			emulate_device(vcpu->run);
			accesses++;
			continue;
		}
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
		switch (get_ucall(vcpu, &uc)) {
		case UCALL_SYNC:
			if (uc.args[1] == DROP_FRAME)
				take_frame_away(memory);
			else if (uc.args[1] == SEND_NMI)
				__vcpu_ioctl(vcpu, KVM_NMI, NULL);
			else if (watched)
				print_dirty(vm);
			break;
		case UCALL_DONE:
			if (watched)
				print_dirty(vm);
			return accesses;
		case UCALL_ABORT:
			REPORT_GUEST_ASSERT(uc);
		default:
			TEST_FAIL("Unexpected ucall %lu", uc.cmd);
		}
	}
}

/* Have KVM notify an eventfd of any write to a device, of any size. */
static int told_by(struct kvm_vm *vm)
{
	struct kvm_ioeventfd ioeventfd = {
		.addr = TOLD_GPA,
		.fd = eventfd(0, EFD_NONBLOCK),
	};

	TEST_ASSERT(ioeventfd.fd >= 0, "eventfd: %s", strerror(errno));
	vm_ioctl(vm, KVM_IOEVENTFD, &ioeventfd);
	return ioeventfd.fd;
}

static void run_stage(struct stage *stage)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	int accesses, fd, i;
	eventfd_t told = 0;
	u8 *memory;

	running = stage;
	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	vcpu_args_set(vcpu, 1, stage->guest);
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, SLOT_GPA, SLOT, PAGES,
				    stage->guest == write_watched ? KVM_MEM_LOG_DIRTY_PAGES : 0);
	virt_map(vm, SLOT_GVA, SLOT_GPA, PAGES);
	for (i = 0; i < PAGES; i++)
		virt_pg_map(vm, APART(i), SLOT_GPA + i * PAGE_SIZE);
	virt_map(vm, DEVICE_GPA, DEVICE_GPA, DEVICE_SIZE / PAGE_SIZE);
	vm_install_exception_handler(vm, NMI_VECTOR, nmi_handler);
	memory = addr_gpa2hva(vm, SLOT_GPA);
	if (stage->host)
		stage->host(memory);
	fd = told_by(vm);

	accesses = run_guest(vm, vcpu, memory);
	printf("%s: passed", stage->name);
	if (accesses)
		printf(", %d accesses emulated by user space", accesses);
	if (!eventfd_read(fd, &told))
		printf(", %lu writes notified", (unsigned long)told);
	printf("\n");
	kvm_vm_free(vm);
	close(fd);
}

static struct stage *stage_by_name(const char *name)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(stages); i++)
		if (!strcmp(stages[i].name, name))
			return &stages[i];
	TEST_FAIL("no stage %s", name);
	return NULL;
}

int main(int argc, char **argv)
{
	int i;

	TEST_REQUIRE(kvm_has_cap(KVM_CAP_IOEVENTFD_ANY_LENGTH));
	if (argc == 2 && !strcmp(argv[1], "list")) {
		for (i = 0; i < ARRAY_SIZE(stages); i++)
			printf("%s\n", stages[i].name);
		return 0;
	}
	for (i = 1; i < argc; i++)
		run_stage(stage_by_name(argv[i]));
	for (i = 0; argc == 1 && i < ARRAY_SIZE(stages); i++)
		run_stage(&stages[i]);
	return 0;
}
