/* SPDX-License-Identifier: GPL-2.0 */
/*
 * This header describes a case: one instruction, executed in a guest, in any state of
 * the CPU.
 *
 * A case is a line of a table: the instruction, the mode, the operand, and the
 * result that is wanted.  The host writes the instruction into the guest's memory,
 * sets every register, runs the vCPU and checks the result.
 */
#ifndef INSN_H
#define INSN_H

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "vmx.h"

enum op { INVLPG, INVPCID, INVVPID, INVEPT };

enum cpumode { LONG, COMPAT, PROT32, PROT16, VM86, REAL, NR_MODES };

/* AUTO: four levels in LONG and COMPAT, two in VM86, off in REAL, else PAE. */
enum pgmode { AUTO, OFF, TWO_LEVEL, PAE, FOUR_LEVEL };

/* 0 is "none", so that a table can omit unused registers and segments. */
enum reg { NOREG, AX, CX, DX, BX, SP, BP, SI, DI, R8, R9, R10, R11, R12, R13, R14, R15, IP };
enum seg { NOSEG, ES, CS, SS, DS, FS, GS };

#define NR_REGS		16

/*
 * The results of an instruction.  An exception has a vector and an error code.  The
 * address of a page fault is the address of the operand's first byte, or with PF2 the
 * address of the first byte in the operand's second page.
 */
#define OK		1
#define VMFAIL		2	/* VMfailValid with error 28, invalid operand */
#define VMFAIL_INVALID	3	/* no current VMCS to hold an error */
#define STUCK		4	/* KVM_RUN ended without an OUT of the guest */
#define REFUSED		5	/* the result for reserved bits: #GP(0) or VMFAIL */
#define EXC(v, e)	(0x100 | (v) | (e) << 16)
#define SECOND_PAGE	0x80000000u
#define STEPPED		EXC(1, 0)	/* success, and then the trap of TF */
#define UD		EXC(6, 0)
#define SS0		EXC(12, 0)
#define GP0		EXC(13, 0)
#define PF(e)		EXC(14, e)
#define PF2(e)		(PF(e) | SECOND_PAGE)

#define VMERR_INVALID_OPERAND	28

/* The encoding of a memory operand; aim() sets the registers so that it leads to the target. */
struct form {
	u8 asize;		/* 16, 32 or 64; 0: the mode's own */
	u8 seg;			/* override */
	u8 base;		/* IP: relative to the instruction pointer */
	u8 index;
	u8 shift;		/* scale of the index: 0 to 3 */
	u8 dsize;		/* of the displacement: 0, 8, 16 or 32 bits */
	bool absolute;		/* no register at all, only a displacement */
	bool direct;		/* a register instead of memory (mod = 3) */
	s32 disp;
	u64 step;		/* value of the index; default: 0x20 */
};

/* The hidden part of a segment register that is not flat. */
struct shape {
	u8 seg;
	u8 type;		/* default: read/write data, accessed, or readable code */
	bool unusable;
	bool small;		/* D/B bit 0 */
	bool limited;		/* .limit counts; otherwise 4 GiB */
	u64 base;
	u32 limit;
};

/* Levels of a page walk, as indices. */
enum { PT, PD, PDPT, PML4, NR_LEVELS };

struct test {
	const char *name;
	enum cpumode mode;
	enum pgmode paging;
	bool user;		/* at CPL 3 */
	bool lock;		/* with a LOCK prefix */
	bool typed;		/* .type counts; default: a valid type */
	u64 type;
	enum reg type_reg;	/* default: CX */
	bool described;		/* .desc counts; default: a valid descriptor */
	u64 desc[2];
	struct form form;
	struct shape shape;
	bool offset;		/* .at is an effective address, not a linear one */
	u64 at;			/* address of the operand; default: DESC */
	u64 place;		/* physical address of the operand; default: .at */
	u64 cr0, cr3, cr4;	/* bits set in addition */
	u64 cr4_off, efer_off;	/* bits cleared */
	u64 rflags;		/* bits set in addition */
	bool effect;		/* the instruction has to drop the window's translation */
	u64 store;		/* address of a word that the guest stores before it */
	u32 was, word;		/* the old and the new value of that word */
	u32 want;
	const char *gap;	/* name of a known difference of KVM's C code */
	u32 c;			/* the result in C */
	u64 c_cr2;		/* CR2 in C; default: the operand */
};

#define TYPE(t)		.typed = true, .type = (t)
#define DESC2(a, b)	.described = true, .desc = { a, b }
#define OFFSET(a)	.offset = true, .at = (a)
#define GAP(id, end)	.gap = (id), .c = (end)

/*
 * Guest-physical memory.  Below 2 MiB the supervisor's linear addresses are the same;
 * CPL 3 has the same memory at ALIAS.  Real mode and 16-bit addresses reach only the
 * memory below 64 KiB.
 */
#define STUBS		0x1000	/* a stub for each vector: OUT to the port of that vector */
#define CODE		0x2000
#define STACK_TOP	0x4000
#define DATA		0x5000	/* filled with ones, which no instruction accepts */
#define DATA_END	0xd000
#define DESC		0xa000	/* the operand */
#define IDT64		0x11000
#define IDT32		0x12000
#define GDT		0x12800
#define TSS64		0x13000
#define TSS32		0x13800
#define FAULT_TOP	0x15000	/* the stack for exceptions that switch stacks */
#define VMXON_PAGE	0x18000
#define VMCS_PAGE	0x19000
#define TABLES		0x20000
#define FRAME		0x40000	/* the frame of the window's first page */
#define FRAME2		0x44000	/* the frame of the window's second page */
#define EDGE_FRAME	0x48000	/* the frame of the pages at both ends of the canonical hole */
#define EPT_ROOT	0x50000	/* in EPTPs only */
#define LARGE_FRAME	0x201000	/* the frame of the window's large pages */
#define MEMORY		0x400000
#define TOP_FRAME	0xfffff000u	/* the last page below 4 GiB */
#define HIGH_MEMORY	0x100000000ull
#define NO_MEMORY	0x80000000ull	/* no memory at this address */
#define INTERNAL		0xfffbd000ull	/* KVM's pages for real mode, see slots.c */
#define READ_ONLY	0x90000000ull	/* two pages that the guest cannot write */
#define ALIAS		0x200000

/* Linear addresses with page tables of their own: two pages, with FRAME and FRAME2. */
#define WINDOW		0x40201000ull
#define WINDOW64	0x8040201000ull
#define EDGE_LOW	0x00007ffffffff000ull
#define EDGE_HIGH	0xffff800000000000ull

/* Ports of OUT: after the instruction, or TRAP_PORT + vector in a stub. */
#define DONE_PORT	0x40
#define TRAP_PORT	0x80

#define ARITHMETIC	(X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | X86_EFLAGS_ZF | \
			 X86_EFLAGS_SF | X86_EFLAGS_OF)

struct machine {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct kvm_sregs reset;
	u8 *memory;
	bool ept;
	bool c;			/* C serves: known differences have to show */
	void *unreadable;	/* a page that KVM cannot read while the guest runs */
	const char *group;
	int cases;
	int failed;
};

/* The result of an instruction. */
struct result {
	u32 end;
	u64 cr2;
	char remark[160];	/* errors in registers, flags and so on */
};

/* A prepared run. */
struct shot {
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	u64 start, end;		/* RIP of the instruction, and of the OUT after it */
	u64 linear;		/* of the operand */
	int length;
};

/* encode.c */
int encode(u8 *code, enum op insn, const struct test *test, s32 disp);
u64 *reg_of(struct kvm_regs *regs, enum reg reg);
void aim(struct shot *shot, enum op insn, const struct test *test, u8 *code);
extern const char * const insn_names[];
extern const char * const mode_names[];

/* modes.c */
void set_mode(struct kvm_sregs *sregs, const struct test *test);
struct kvm_segment *segment_of(struct kvm_sregs *sregs, enum seg seg);
int width_of(const struct test *test);
u64 alias_of(const struct test *test);
enum pgmode paging_of(const struct test *test);

/* machine.c */
void machine_open(struct machine *machine, bool invpcid);
void machine_close(struct machine *machine);
void *at(struct machine *machine, u64 address);
u64 execute(struct machine *machine, const void *code, int length, struct kvm_regs *regs,
	    u64 cr4);
void enter_vmx(struct machine *machine);
void load_vmcs_page(struct machine *machine);
void clear_vmcs_page(struct machine *machine);
u64 vm_instruction_error(struct machine *machine);
u64 good_eptp(void);
int max_phys(struct machine *machine);

/* tables.c */
u64 *entry_of(struct machine *machine, enum pgmode paging, u64 linear, int level);
u32 *low_entry32(struct machine *machine);
void use_read_only_table(struct machine *machine);
void write_page_tables(struct machine *machine);

/* effect.c */
u8 *before(struct machine *machine, u8 *code, const struct test *test);
u8 *store(u8 *code, const struct test *test, u64 address, u32 word);
u8 *after(u8 *code, const struct test *test);

/* judge.c */
void try(struct machine *machine, enum op insn, const struct test *test);
void try_all(struct machine *machine, enum op insn, const struct test *tests);
void in_mode(struct machine *machine, enum op insn, enum cpumode mode, const struct test *tests);

/* guest.c */
u64 *show_entry(struct kvm_vm *vm, u64 *entry);
void count_effect(struct machine *machine, const char *name, bool good, u64 seen);
void run_to_the_end(struct kvm_vcpu *vcpu);

#endif /* INSN_H */
