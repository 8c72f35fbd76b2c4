// SPDX-License-Identifier: GPL-2.0

//! Doors for other programs of the host build; no kernel has them.
//!
//! What those programs need of the files here, they call by a function of a module below this one,
//! in plain numbers and types of its own: the files' own types stay within the crate.
