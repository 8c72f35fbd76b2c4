# SPDX-License-Identifier: GPL-2.0
"""Sphinx's configuration: make htmldocs builds the documents with it."""

# pylint: disable=invalid-name,redefined-builtin

project = "vmx_vpid"
author = "The vmx_vpid developers"
copyright = author
root_doc = "index"
html_theme = "alabaster"
html_theme_options = {"page_width": "65em", "description": "KVM's VPIDs and TLB flushes, in Rust"}
html_show_copyright = False
html_copy_source = False
exclude_patterns = ["ABI"]
# The words after a literal block are the tree's own: no language is guessed.
highlight_language = "none"
