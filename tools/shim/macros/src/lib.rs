// SPDX-License-Identifier: GPL-2.0

//! This crate has the procedural macros of the kernel that the pure files of vmx_vpid use.
//!
//! `paste!` is the kernel's own.  The others do what remains to do without a kernel, and read as
//! many tokens as that takes; the kernel's build reports errors in their input.

// What that crate has of its own, the compiler has too.
extern crate proc_macro as proc_macro2;

// The kernel's own file, which clippy has seen there.
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

/// Makes identifiers of the parts in `[< >]`.
#[proc_macro]
pub fn paste(input: TokenStream) -> TokenStream {
    let mut tokens: Vec<_> = input.into_iter().collect();
    sources::paste::expand(&mut tokens);
    tokens.into_iter().collect()
}

/// Formats as `format_args!()` does.
#[proc_macro]
pub fn fmt(input: TokenStream) -> TokenStream {
    let mut output = source("::core::format_args!");
    output.extend([TokenTree::from(Group::new(Delimiter::Parenthesis, input))]);
    output
}

/// Makes a KUnit suite one of the compiler's tests: the same module, by the suite's name.
///
/// That way the path of each test tells its suite.
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

/// Adds to a trait `HAS_` constants for its functions, and to its implementation their values.
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

/// The constants that tell of the functions in the body of a trait, or of its implementation.
fn present(body: TokenStream, is_trait: bool) -> String {
    let mut text = String::from(if is_trait {
        "/** Tells whether the implementation has the attribute. */ const USE_VTABLE_ATTR: ();"
    } else {
        "const USE_VTABLE_ATTR: () = ();"
    });
    let tokens: Vec<_> = body.into_iter().collect();
    for pair in tokens.windows(2) {
        if let [word, TokenTree::Ident(function)] = pair {
            if names(word, "fn") {
                let constant = function.to_string().to_uppercase();
                text += "/** Tells whether the function is there. */";
                text += &format!("const HAS_{constant}: bool = {};", !is_trait);
            }
        }
    }
    text
}

/// Implements `Zeroable` for a type without parameters.
///
/// Whether its fields are so, the kernel's own macro checks.
#[proc_macro_derive(Zeroable)]
pub fn derive_zeroable(item: TokenStream) -> TokenStream {
    let name = type_name(item).map_or_else(String::new, |name| name.to_string());
    source(&format!(
        "// SAFETY: The kernel's build has checked its fields.\n\
         unsafe impl ::pin_init::Zeroable for {name} {{}}"
    ))
}

/// The name of the type that a derive macro is given.
fn type_name(item: TokenStream) -> Option<Ident> {
    let mut tokens = item.into_iter();
    tokens.find(|token| names(token, "struct") || names(token, "union"))?;
    match tokens.next()? {
        TokenTree::Ident(name) => Some(name),
        _ => None,
    }
}

/// Whether a token is a certain word.
fn names(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident.to_string() == word)
}

/// The tokens of a text.
fn source(text: &str) -> TokenStream {
    text.parse().unwrap_or_default()
}
