/* SPDX-License-Identifier: GPL-2.0 */
/* This header declares the groups of cases; insn.c has the configuration of each group. */
#ifndef GROUPS_H
#define GROUPS_H

#include "insn.h"

void invlpg_address(struct machine *m);
void invlpg_segment(struct machine *m);
void invlpg_privilege(struct machine *m);

void invpcid_types(struct machine *m);
void invpcid_descriptor(struct machine *m);
void invpcid_address(struct machine *m);
void invpcid_segment(struct machine *m);
void invpcid_compat(struct machine *m);
void invpcid_privilege(struct machine *m);
void invpcid_no_cpuid(struct machine *m);
void invpcid_paging_off(struct machine *m);
void invpcid_two_level(struct machine *m);
void invpcid_pae(struct machine *m);
void invpcid_four_level(struct machine *m);
void invpcid_slots(struct machine *m);

void invvpid_types(struct machine *m);
void invvpid_descriptor(struct machine *m);
void invvpid_address(struct machine *m);
void invvpid_segment(struct machine *m);
void invvpid_privilege(struct machine *m);
void invvpid_no_vmx(struct machine *m);
void invvpid_no_vmcs(struct machine *m);
void invvpid_caps(struct machine *m);
void invvpid_two_level(struct machine *m);
void invvpid_pae(struct machine *m);
void invvpid_four_level(struct machine *m);
void invvpid_slots(struct machine *m);

void invept_types(struct machine *m);
void invept_descriptor(struct machine *m);
void invept_address(struct machine *m);
void invept_segment(struct machine *m);
void invept_privilege(struct machine *m);
void invept_no_vmx(struct machine *m);
void invept_no_vmcs(struct machine *m);
void invept_caps(struct machine *m);
void invept_paging(struct machine *m);
void invept_slots(struct machine *m);
void invept_no_ept(struct machine *m);

void step(struct machine *m);
void in_l2(struct machine *m);
void flush_linear(struct machine *m);
void flush_l2(struct machine *m);

/* Forms of an address, for INVLPG and the other instructions. */
extern const struct test forms64[], segments64[], forms32[], forms16[];

/* The cases of page walks for one instruction. */
void walk_two_level(struct machine *m, enum op insn);
void walk_pae(struct machine *m, enum op insn);
void walk_four_level(struct machine *m, enum op insn);

#endif /* GROUPS_H */
