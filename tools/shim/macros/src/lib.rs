// SPDX-License-Identifier: GPL-2.0

//! This crate has the procedural macros of the kernel that the pure files of vmx_vpid use.
//!
//! `paste!` is the kernel's own.  The other macros do only the part of the work that userspace
//! needs, and do not check their input: the kernel's build reports errors in the input.

// The kernel's file uses only the part of proc_macro2 that the compiler's proc_macro has, too.
extern crate proc_macro as proc_macro2;

// The kernel's own file: the kernel's build lints it.
#[allow(clippy::all, missing_docs, unreachable_pub)]
mod sources {
    include!(concat!(env!("OUT_DIR"), "/sources.rs"));
    pub(crate) use source::paste;
}

use proc_macro::{
    Delimiter,
    Group,
    Ident,
    TokenStream,
    TokenTree, //
};

/// Joins the parts in `[< >]` to identifiers.
#[proc_macro]
pub fn paste(input: TokenStream) -> TokenStream {
    let mut tokens: Vec<_> = input.into_iter().collect();
    sources::paste::expand(&mut tokens);
    tokens.into_iter().collect()
}

/// Formats like `format_args!()`.
#[proc_macro]
pub fn fmt(input: TokenStream) -> TokenStream {
    let mut output = source("::core::format_args!");
    output.extend([TokenTree::from(Group::new(Delimiter::Parenthesis, input))]);
    output
}

/// Turns the module of a KUnit suite into a test module that has the name of the suite, so that the
/// path of each test contains the suite.
#[proc_macro_attribute]
pub fn kunit_tests(suite: TokenStream, module: TokenStream) -> TokenStream {
    let mut output = source("#[cfg(test)]");
    let mut after_mod = false;
    for token in module {
        match &token {
            TokenTree::Ident(_) if after_mod => {
                output.extend(suite.clone());
                after_mod = false;
                continue;
            }
            TokenTree::Ident(word) => after_mod = word.to_string() == "mod",
            _ => (),
        }
        output.extend([token]);
    }
    output
}

/// Adds `HAS_` constants for the functions of a trait, and their values to an implementation.
#[proc_macro_attribute]
pub fn vtable(_: TokenStream, item: TokenStream) -> TokenStream {
    let mut is_trait = false;
    let mut output = TokenStream::new();
    for token in item {
        let token = match token {
            TokenTree::Group(body) if body.delimiter() == Delimiter::Brace => {
                let mut stream = body.stream();
                stream.extend(source(&present(stream.clone(), is_trait)));
                TokenTree::Group(Group::new(Delimiter::Brace, stream))
            }
            other => {
                is_trait |= names(&other, "trait");
                other
            }
        };
        output.extend([token]);
    }
    output
}

/// Returns the constants for the functions in the body of a trait or of an implementation.
fn present(body: TokenStream, is_trait: bool) -> String {
    let mut text = String::from(if is_trait {
        "/** Forces an implementation to have the attribute. */ const USE_VTABLE_ATTR: ();"
    } else {
        "const USE_VTABLE_ATTR: () = ();"
    });
    let tokens: Vec<_> = body.into_iter().collect();
    for pair in tokens.windows(2) {
        if let [word, TokenTree::Ident(function)] = pair {
            if names(word, "fn") {
                let constant = function.to_string().to_uppercase();
                text += "/** Whether the implementation has the function. */";
                text += &format!("const HAS_{constant}: bool = {};", !is_trait);
            }
        }
    }
    text
}

/// Implements `Zeroable` for a type without parameters.
///
/// The kernel's own macro checks that the fields are `Zeroable`.
#[proc_macro_derive(Zeroable)]
pub fn derive_zeroable(item: TokenStream) -> TokenStream {
    let name = type_name(item).map_or_else(String::new, |name| name.to_string());
    source(&format!(
        "// SAFETY: The kernel's macro checks that all fields of the type are `Zeroable`.\n\
         unsafe impl ::pin_init::Zeroable for {name} {{}}"
    ))
}

/// Returns the name of the type to which a derive macro is applied.
fn type_name(item: TokenStream) -> Option<Ident> {
    let mut tokens = item.into_iter();
    tokens.find(|token| names(token, "struct") || names(token, "union"))?;
    match tokens.next()? {
        TokenTree::Ident(name) => Some(name),
        _ => None,
    }
}

/// Returns whether a token is a certain word.
fn names(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident.to_string() == word)
}

/// Returns the tokens of a text.
fn source(text: &str) -> TokenStream {
    text.parse().unwrap_or_default()
}
