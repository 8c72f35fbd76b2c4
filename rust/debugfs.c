// SPDX-License-Identifier: GPL-2.0
/*
 * This file makes the files under vmx_vpid/ in debugfs.
 *
 * A file of the kernel crate has no owner: if the module is unloaded while the file is
 * open, closing the file runs freed code.  DEFINE_SHOW_ATTRIBUTE() names the module as
 * the owner, so that an open file keeps the module loaded.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include "vmx_vpid.h"

static int stats_show(struct seq_file *file, void *data)
{
	vmx_vpid_show_stats(file);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int status_show(struct seq_file *file, void *data)
{
	vmx_vpid_show_status(file);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(status);

static int asid_show(struct seq_file *file, void *data)
{
	vmx_vpid_show_asid(file);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(asid);

static int roots_show(struct seq_file *file, void *data)
{
	return vmx_vpid_show_roots(file);
}
DEFINE_SHOW_ATTRIBUTE(roots);

static int vmcs_show(struct seq_file *file, void *data)
{
	vmx_vpid_show_vmcs(file);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(vmcs);

/* The file "vpids" shows the list that was made when the file was opened. */
static void *vpids_start(struct seq_file *file, loff_t *pos)
{
	return vmx_vpid_list_has(file->private, *pos) ? pos : NULL;
}

static void *vpids_next(struct seq_file *file, void *line, loff_t *pos)
{
	++*pos;
	return vpids_start(file, pos);
}

static void vpids_stop(struct seq_file *file, void *line)
{
}

static int vpids_show(struct seq_file *file, void *line)
{
	vmx_vpid_list_show(file->private, *(loff_t *)line, file);
	return 0;
}

static const struct seq_operations vpids_sops = {
	.start = vpids_start,
	.next = vpids_next,
	.stop = vpids_stop,
	.show = vpids_show,
};

static int vpids_open(struct inode *inode, struct file *file)
{
	void *list;
	int ret;

	ret = vmx_vpid_list_take(&list);
	if (ret)
		return ret;

	ret = seq_open(file, &vpids_sops);
	if (ret) {
		vmx_vpid_list_drop(list);
		return ret;
	}

	((struct seq_file *)file->private_data)->private = list;
	return 0;
}

static int vpids_release(struct inode *inode, struct file *file)
{
	vmx_vpid_list_drop(((struct seq_file *)file->private_data)->private);
	return seq_release(inode, file);
}

static const struct file_operations vpids_fops = {
	.owner = THIS_MODULE,
	.open = vpids_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = vpids_release,
};

/* The files "ept" and "ept_summary": Rust makes a line right before it is shown. */
static void *ept_start(struct seq_file *file, loff_t *pos)
{
	int ret = vmx_vpid_ept_line(file->private, *pos);

	return ret < 0 ? ERR_PTR(ret) : ret ? file : NULL;
}

static void *ept_next(struct seq_file *file, void *line, loff_t *pos)
{
	++*pos;
	return ept_start(file, pos);
}

static void ept_stop(struct seq_file *file, void *line)
{
}

static int ept_show(struct seq_file *file, void *line)
{
	vmx_vpid_ept_show(file->private, file);
	return 0;
}

static const struct seq_operations ept_sops = {
	.start = ept_start,
	.next = ept_next,
	.stop = ept_stop,
	.show = ept_show,
};

/* The process whose VMs are shown; 0 for the VMs of all processes. */
static int ept_pid;

static int open_ept(struct file *file, bool summary)
{
	void *seq;
	int ret;

	ret = vmx_vpid_ept_open(summary, READ_ONCE(ept_pid), &seq);
	if (ret)
		return ret;

	ret = seq_open(file, &ept_sops);
	if (ret) {
		vmx_vpid_ept_close(seq);
		return ret;
	}

	((struct seq_file *)file->private_data)->private = seq;
	return 0;
}

static int ept_open(struct inode *inode, struct file *file)
{
	return open_ept(file, false);
}

static int ept_summary_open(struct inode *inode, struct file *file)
{
	return open_ept(file, true);
}

static int ept_release(struct inode *inode, struct file *file)
{
	vmx_vpid_ept_close(((struct seq_file *)file->private_data)->private);
	return seq_release(inode, file);
}

static const struct file_operations ept_fops = {
	.owner = THIS_MODULE,
	.open = ept_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = ept_release,
};

static const struct file_operations ept_summary_fops = {
	.owner = THIS_MODULE,
	.open = ept_summary_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = ept_release,
};

static int ept_pid_get(void *data, u64 *value)
{
	*value = READ_ONCE(ept_pid);
	return 0;
}

static int ept_pid_set(void *data, u64 value)
{
	if (value > INT_MAX) {
		pr_err("ept_pid=%llu is refused: write the number of a process, or 0 for all\n",
		       value);
		return -EINVAL;
	}

	WRITE_ONCE(ept_pid, value);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(ept_pid_fops, ept_pid_get, ept_pid_set, "%llu\n");

static int switch_get(void *data, u64 *value)
{
	*value = vmx_vpid_switch_get((unsigned long)data);
	return 0;
}

static int switch_set(void *data, u64 value)
{
	return vmx_vpid_switch_set((unsigned long)data, value);
}
DEFINE_DEBUGFS_ATTRIBUTE(switch_fops, switch_get, switch_set, "%llu\n");
DEFINE_DEBUGFS_ATTRIBUTE(mask_fops, switch_get, switch_set, "0x%llx\n");

static struct dentry *dir;

static void create_switch(const char *name, enum vmx_vpid_switch which,
			  const struct file_operations *fops)
{
	debugfs_create_file_unsafe(name, 0600, dir, (void *)(unsigned long)which, fops);
}

void vmx_vpid_debugfs_create(void)
{
	dir = debugfs_create_dir("vmx_vpid", NULL);
	debugfs_create_file("stats", 0400, dir, NULL, &stats_fops);
	debugfs_create_file("status", 0400, dir, NULL, &status_fops);
	debugfs_create_file("roots", 0400, dir, NULL, &roots_fops);
	debugfs_create_file("vpids", 0400, dir, NULL, &vpids_fops);
	debugfs_create_file("asid", 0400, dir, NULL, &asid_fops);
	debugfs_create_file("ept", 0400, dir, NULL, &ept_fops);
	debugfs_create_file("ept_summary", 0400, dir, NULL, &ept_summary_fops);
	debugfs_create_file_unsafe("ept_pid", 0600, dir, NULL, &ept_pid_fops);
	create_switch("force_flush", VMX_VPID_FORCE_FLUSH, &switch_fops);
	create_switch("flush_context", VMX_VPID_FLUSH_CONTEXT, &switch_fops);
	debugfs_create_file("vmcs", 0400, dir, NULL, &vmcs_fops);
	create_switch("check_vmcs", VMX_VPID_CHECK_VMCS, &switch_fops);
	create_switch("caps_mask", VMX_VPID_CAPS_MASK, &mask_fops);
	create_switch("asid_follow", VMX_VPID_ASID_FOLLOW, &switch_fops);
	create_switch("asid_twist", VMX_VPID_ASID_TWIST, &switch_fops);
}

void vmx_vpid_debugfs_remove(void)
{
	debugfs_remove(dir);
}
