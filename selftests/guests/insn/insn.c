// SPDX-License-Identifier: GPL-2.0
/*
 * This program executes INVLPG, INVPCID, INVVPID and INVEPT in a guest.
 *
 * Usage: insn [--ept 0|1] [--unrestricted 0|1] [--gaps c|arch] [--list] [GROUP...]
 *   --ept   kvm_intel's parameter "ept"; default: the present value
 *   --unrestricted
 *           kvm_intel's parameter "unrestricted_guest", with EPT; default: the present value
 *   --gaps  the wanted result of a case in which KVM's C code is known to differ
 *           from the architecture: that of C, or (default) of the architecture
 *   --list  print the groups of this configuration
 * The output has a line for each case that fails, and a line for each group; the
 * exit status is 1 if a case failed.
 */
#include <getopt.h>

#include "groups.h"

/*
 * INVPCID and INVLPG exit to KVM with shadow paging only.  KVM has an internal memslot
 * with shadow paging, and with EPT if guests are restricted.
 */
enum when { SHADOW = 1, RESTRICTED = 2, UNRESTRICTED = 4, EPT = 6, BOTH = 7 };

/* The initial state of the machine; PLAIN and VMX have INVPCID if the CPU has INVPCID. */
enum machine_kind { NONE, PLAIN, NO_INVPCID, WITH_INVPCID, VMX };

static const struct group {
	const char *name;
	enum when when;
	enum machine_kind kind;
	void (*run)(struct machine *m);
} groups[] = {
	{ "invlpg-address", SHADOW, PLAIN, invlpg_address },
	{ "invlpg-segment", SHADOW, PLAIN, invlpg_segment },
	{ "invlpg-privilege", SHADOW, PLAIN, invlpg_privilege },
	{ "invpcid-types", SHADOW, WITH_INVPCID, invpcid_types },
	{ "invpcid-descriptor", SHADOW, WITH_INVPCID, invpcid_descriptor },
	{ "invpcid-address", SHADOW, WITH_INVPCID, invpcid_address },
	{ "invpcid-segment", SHADOW, WITH_INVPCID, invpcid_segment },
	{ "invpcid-compat", SHADOW, WITH_INVPCID, invpcid_compat },
	{ "invpcid-privilege", SHADOW, WITH_INVPCID, invpcid_privilege },
	{ "invpcid-no-cpuid", SHADOW, NO_INVPCID, invpcid_no_cpuid },
	{ "invpcid-paging-off", SHADOW, WITH_INVPCID, invpcid_paging_off },
	{ "invpcid-two-level", SHADOW, WITH_INVPCID, invpcid_two_level },
	{ "invpcid-pae", SHADOW, WITH_INVPCID, invpcid_pae },
	{ "invpcid-four-level", SHADOW, WITH_INVPCID, invpcid_four_level },
	{ "invpcid-slots", SHADOW, WITH_INVPCID, invpcid_slots },
	{ "invvpid-types", BOTH, VMX, invvpid_types },
	{ "invvpid-descriptor", BOTH, VMX, invvpid_descriptor },
	{ "invvpid-address", BOTH, VMX, invvpid_address },
	{ "invvpid-segment", BOTH, VMX, invvpid_segment },
	{ "invvpid-privilege", BOTH, VMX, invvpid_privilege },
	{ "invvpid-no-vmx", BOTH, PLAIN, invvpid_no_vmx },
	{ "invvpid-no-vmcs", BOTH, VMX, invvpid_no_vmcs },
	{ "invvpid-caps", BOTH, PLAIN, invvpid_caps },
	{ "invvpid-two-level", BOTH, VMX, invvpid_two_level },
	{ "invvpid-pae", BOTH, VMX, invvpid_pae },
	{ "invvpid-four-level", BOTH, VMX, invvpid_four_level },
	{ "invvpid-slots", SHADOW | RESTRICTED, VMX, invvpid_slots },
	{ "invept-types", EPT, VMX, invept_types },
	{ "invept-descriptor", EPT, VMX, invept_descriptor },
	{ "invept-address", EPT, VMX, invept_address },
	{ "invept-segment", EPT, VMX, invept_segment },
	{ "invept-privilege", EPT, VMX, invept_privilege },
	{ "invept-no-vmx", BOTH, PLAIN, invept_no_vmx },
	{ "invept-no-vmcs", EPT, VMX, invept_no_vmcs },
	{ "invept-caps", EPT, PLAIN, invept_caps },
	{ "invept-paging", EPT, VMX, invept_paging },
	{ "invept-slots", RESTRICTED, VMX, invept_slots },
	{ "step", BOTH, VMX, step },
	{ "in-l2", BOTH, NONE, in_l2 },
	{ "flush-linear", SHADOW, NONE, flush_linear },
	{ "flush-l2", BOTH, NONE, flush_l2 },
	{ "invept-no-ept", SHADOW, VMX, invept_no_ept },
};

static bool run_group(const struct group *group, bool ept, bool c)
{
	struct machine m = { .group = group->name, .ept = ept, .c = c };

	if (group->kind != NONE)
		machine_open(&m, group->kind != NO_INVPCID);
	if (group->kind == VMX)
		enter_vmx(&m);
	group->run(&m);
	if (group->kind != NONE)
		machine_close(&m);
	printf("GROUP %s: %d cases, %d failed\n", m.group, m.cases, m.failed);
	return m.cases && !m.failed;
}

static bool wanted(const struct group *group, enum when now, char **names, int count)
{
	int i;

	if (!(group->when & now))
		return false;
	if (group->kind == WITH_INVPCID && !kvm_cpu_has(X86_FEATURE_INVPCID))
		return false;
	for (i = 0; i < count; i++) {
		if (!strcmp(names[i], group->name))
			return true;
	}
	return !count;
}

static int explain(const char *program)
{
	fprintf(stderr, "usage: %s [OPTION...] [GROUP...]\n", program);
	fprintf(stderr, "--ept 0|1, --unrestricted 0|1, --gaps c|arch, --list\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "ept", required_argument, NULL, 'e' },
		{ "unrestricted", required_argument, NULL, 'u' },
		{ "gaps", required_argument, NULL, 'g' },
		{ "list", no_argument, NULL, 'l' },
		{ }
	};
	bool c = false, list = false, good = true;
	int option, i, ran = 0, ept = -1, unrestricted = -1;
	enum when now = SHADOW;

	setlinebuf(stdout);
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'e')
			ept = !!atoi_non_negative("ept", optarg);
		else if (option == 'u')
			unrestricted = !!atoi_non_negative("unrestricted", optarg);
		else if (option == 'g')
			c = !strcmp(optarg, "c");
		else if (option == 'l')
			list = true;
		else
			return explain(argv[0]);
	}
	if (ept < 0)
		ept = get_kvm_intel_param_bool("ept");
	if (unrestricted < 0)
		unrestricted = get_kvm_intel_param_bool("unrestricted_guest");
	if (ept)
		now = unrestricted ? UNRESTRICTED : RESTRICTED;
	for (i = 0; i < ARRAY_SIZE(groups); i++) {
		if (!wanted(&groups[i], now, argv + optind, argc - optind))
			continue;
		ran++;
		if (list)
			printf("%s\n", groups[i].name);
		else
			good &= run_group(&groups[i], ept, c);
	}
	if (!ran)
		fprintf(stderr, "no such group in this configuration\n");
	return good && ran ? 0 : 1;
}
