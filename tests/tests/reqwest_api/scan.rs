//! The public items of a crate, read from its source: what it hands out under which path.
//!
//! Macros are followed as far as both crates need it: a macro of this crate's that is called in an
//! `impl` block stands for the functions in its body.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{ImplItem, Item, TraitItem, UseTree, Visibility};

/// Implementations that a user may rest on. Others go without saying, or are nobody's business.
const TRAITS: [&str; 9] =
    ["AsyncRead", "AsyncWrite", "Body", "Clone", "Default", "From", "FromStr", "Service", "TryFrom"];

type Names = Vec<String>;

/// A module's items, and what its names stand for.
#[derive(Default)]
struct Module {
    items: Vec<Item>,
    /// Names that are imported, and from where.
    uses: Vec<(String, Names, bool)>,
    /// Types that are made by macros.
    made: BTreeSet<String>,
}

/// A crate.
#[derive(Default)]
struct Crate {
    modules: BTreeMap<Names, Module>,
    /// The functions that a macro stands for, and the macros it calls.
    macros: HashMap<String, (Vec<String>, Vec<String>)>,
}

/// Every public item of the crate whose `lib.rs` this is, with paths that begin with `name`.
pub(super) fn public(lib: &Path, name: &str) -> BTreeSet<String> {
    let mut all = Crate::default();
    all.read(lib, lib.parent().expect("a folder"), &Vec::new());
    let mut seen = Seen::default();
    all.walk(&Vec::new(), name, &mut seen);
    all.implementations(&mut seen);
    seen.items
}

#[derive(Default)]
struct Seen {
    items: BTreeSet<String>,
    /// Where public types are, by where they are defined.
    types: HashMap<(Names, String), String>,
    walked: BTreeSet<(Names, String)>,
}

impl Crate {
    /// Reads a module's file and those of the modules below it.
    fn read(&mut self, file: &Path, folder: &Path, path: &Names) {
        let text =
            std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let items =
            syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())).items;
        self.take(items, folder, path);
    }

    fn take(&mut self, items: Vec<Item>, folder: &Path, path: &Names) {
        for item in items {
            if !holds(attributes(&item)) {
                continue;
            }
            match &item {
                Item::Mod(module) => {
                    let name = module.ident.to_string();
                    let below = folder.join(&name);
                    let inner = [path.as_slice(), std::slice::from_ref(&name)].concat();
                    if let Some((_, items)) = &module.content {
                        self.take(items.clone(), &below, &inner);
                    } else {
                        let file: PathBuf = folder.join(format!("{name}.rs"));
                        let file = if file.exists() { file } else { below.join("mod.rs") };
                        self.read(&file, &below, &inner);
                    }
                    self.modules.entry(path.clone()).or_default().items.push(item);
                }
                Item::Macro(call) => self.take_macro(call, folder, path),
                Item::Use(tree) => {
                    let public = is_public(&tree.vis);
                    let mut uses = Vec::new();
                    flatten(&tree.tree, &Vec::new(), &mut uses);
                    let module = self.modules.entry(path.clone()).or_default();
                    module.uses.extend(uses.into_iter().map(|(name, from)| (name, from, public)));
                }
                _ => self.modules.entry(path.clone()).or_default().items.push(item),
            }
        }
    }

    fn take_macro(&mut self, call: &syn::ItemMacro, folder: &Path, path: &Names) {
        let called = last(&call.mac.path);
        if called == "macro_rules" {
            let name = call.ident.as_ref().map(ToString::to_string).unwrap_or_default();
            let mut found = (Vec::new(), Vec::new());
            functions(call.mac.tokens.clone(), true, &mut found);
            self.macros.insert(name, found);
        } else if called == "if_hyper" {
            let inner = syn::parse2::<syn::File>(call.mac.tokens.clone()).expect("items");
            self.take(inner.items, folder, path);
        } else {
            let mut public = false;
            let mut kind = false;
            for token in call.mac.tokens.clone() {
                match token {
                    TokenTree::Ident(word) if word == "pub" => public = true,
                    TokenTree::Ident(word) if public && (word == "struct" || word == "enum") => kind = true,
                    TokenTree::Ident(word) if kind => {
                        self.modules.entry(path.clone()).or_default().made.insert(word.to_string());
                        (public, kind) = (false, false);
                    }
                    _ => {}
                }
            }
        }
    }

    /// What a module hands out, as `shown`.
    fn walk(&self, path: &Names, shown: &str, seen: &mut Seen) {
        if !seen.walked.insert((path.clone(), shown.to_owned())) {
            return;
        }
        let Some(module) = self.modules.get(path) else { return };
        for item in &module.items {
            let Some((vis, name)) = head(item) else { continue };
            if is_public(vis) && !is_hidden(attributes(item)) {
                self.hand_out(path, &name, &format!("{shown}::{name}"), seen);
            }
        }
        for (name, from, public) in &module.uses {
            if *public {
                let shown = format!("{shown}::{name}");
                match self.resolve(path, from) {
                    Some((home, name)) => self.hand_out(&home, &name, &shown, seen),
                    None => _ = seen.items.insert(shown),
                }
            }
        }
    }

    /// One item, defined in `home`.
    fn hand_out(&self, home: &Names, name: &str, shown: &str, seen: &mut Seen) {
        let inner = [home.as_slice(), &[name.to_owned()]].concat();
        let Some(module) = self.modules.get(home) else { return };
        let found = module.items.iter().find(|item| head(item).is_some_and(|(_, own)| own == name));
        match found {
            Some(Item::Mod(_)) => self.walk(&inner, shown, seen),
            Some(item) => {
                seen.items.insert(shown.to_owned());
                seen.types.entry((home.clone(), name.to_owned())).or_insert_with(|| shown.to_owned());
                match item {
                    Item::Trait(of) => {
                        for inner in &of.items {
                            if let TraitItem::Fn(function) = inner {
                                seen.items.insert(format!("{shown}::{}", function.sig.ident));
                            }
                        }
                    }
                    Item::Enum(of) => {
                        for variant in &of.variants {
                            seen.items.insert(format!("{shown}::{}", variant.ident));
                        }
                    }
                    _ => {}
                }
                for derived in derives(attributes(item)).iter().filter(|name| TRAITS.contains(&name.as_str()))
                {
                    seen.items.insert(format!("impl {derived} for {shown}"));
                }
            }
            None if module.made.contains(name) => {
                seen.items.insert(shown.to_owned());
                seen.types.entry((home.clone(), name.to_owned())).or_insert_with(|| shown.to_owned());
            }
            None => {
                let handed = module.uses.iter().find(|(own, ..)| own == name);
                match handed.and_then(|(_, from, _)| self.resolve(home, from)) {
                    Some((home, name)) => self.hand_out(&home, &name, shown, seen),
                    None => _ = seen.items.insert(shown.to_owned()),
                }
            }
        }
    }

    /// Where a path leads that is written in `module`: a module of this crate's, and a name in it.
    fn resolve(&self, module: &Names, written: &Names) -> Option<(Names, String)> {
        let (name, before) = written.split_last()?;
        let mut at = match before.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            None if written.len() == 1 => {
                return self.owns(module, name).then(|| (module.clone(), name.clone()));
            }
            _ => module.clone(),
        };
        for step in before {
            match step.as_str() {
                "crate" | "self" => {}
                "super" => _ = at.pop(),
                step => {
                    at.push(step.to_owned());
                    if !self.modules.contains_key(&at) {
                        at.pop();
                        let module = self.modules.get(&at)?;
                        let (_, from, _) = module.uses.iter().find(|(own, ..)| own == step)?;
                        let (home, name) = self.resolve(&at, from)?;
                        at = [home, vec![name]].concat();
                    }
                }
            }
        }
        // What is only handed on there is looked for where it comes from.
        if self.defines(&at, name) {
            return Some((at, name.clone()));
        }
        let (_, from, _) = self.modules.get(&at)?.uses.iter().find(|(own, ..)| own == name)?;
        (from != written || at != *module).then(|| self.resolve(&at, from))?
    }

    fn defines(&self, module: &Names, name: &str) -> bool {
        self.modules.get(module).is_some_and(|module| {
            module.made.contains(name)
                || module.items.iter().any(|item| head(item).is_some_and(|(_, own)| own == name))
        })
    }

    fn owns(&self, module: &Names, name: &str) -> bool {
        self.defines(module, name)
    }

    /// What public types can do.
    fn implementations(&self, seen: &mut Seen) {
        for (path, module) in &self.modules {
            for item in &module.items {
                let Item::Impl(block) = item else { continue };
                let Some((shown, reference)) = self.of_whom(path, &block.self_ty, seen) else { continue };
                match &block.trait_ {
                    None => self.methods(block, &shown, seen),
                    Some((_, of, _)) if TRAITS.contains(&last(of).as_str()) => {
                        let of = spelled(of.segments.last().expect("a name"));
                        seen.items.insert(format!("impl {of} for {reference}{shown}"));
                    }
                    Some(_) => {}
                }
            }
            for item in &module.items {
                let Item::Impl(block) = item else { continue };
                self.conversions(path, block, seen);
            }
        }
    }

    /// `impl From<Ours> for Theirs`.
    fn conversions(&self, path: &Names, block: &syn::ItemImpl, seen: &mut Seen) {
        let Some((_, of, _)) = &block.trait_ else { return };
        if !["From", "TryFrom"].contains(&last(of).as_str())
            || self.of_whom(path, &block.self_ty, seen).is_some()
        {
            return;
        }
        let Some(syn::PathArguments::AngleBracketed(arguments)) =
            of.segments.last().map(|last| &last.arguments)
        else {
            return;
        };
        let Some(syn::GenericArgument::Type(from)) = arguments.args.first() else { return };
        if let Some((shown, _)) = self.of_whom(path, from, seen) {
            let short = shown.rsplit("::").next().unwrap_or_default();
            let into = match &*block.self_ty {
                syn::Type::Path(into) => spelled(into.path.segments.last().expect("a name")),
                other => other.to_token_stream().to_string(),
            };
            seen.items.insert(format!("impl {}<{short}> for {into}", last(of)));
        }
    }

    fn of_whom(&self, path: &Names, ty: &syn::Type, seen: &Seen) -> Option<(String, &'static str)> {
        let (ty, reference) = match ty {
            syn::Type::Reference(to) => (&*to.elem, "&"),
            ty => (ty, ""),
        };
        let syn::Type::Path(ty) = ty else { return None };
        let written: Names = ty.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let place = match written.as_slice() {
            [name] if !self.defines(path, name) => {
                let (_, from, _) = self.modules.get(path)?.uses.iter().find(|(own, ..)| own == name)?;
                self.resolve(path, from)?
            }
            _ => self.resolve(path, &written)?,
        };
        Some((seen.types.get(&place)?.clone(), reference))
    }

    fn methods(&self, block: &syn::ItemImpl, shown: &str, seen: &mut Seen) {
        for item in &block.items {
            match item {
                ImplItem::Fn(function)
                    if is_public(&function.vis) && holds(&function.attrs) && !is_hidden(&function.attrs) =>
                {
                    seen.items.insert(format!("{shown}::{}", function.sig.ident));
                }
                ImplItem::Const(constant) if is_public(&constant.vis) && holds(&constant.attrs) => {
                    seen.items.insert(format!("{shown}::{}", constant.ident));
                }
                ImplItem::Macro(call) if self.macros.contains_key(&last(&call.mac.path)) => {
                    let mut calls = vec![last(&call.mac.path)];
                    while let Some(name) = calls.pop() {
                        let Some((functions, more)) = self.macros.get(&name) else { continue };
                        calls.extend(more.iter().filter(|inner| **inner != name).cloned());
                        seen.items.extend(functions.iter().map(|name| format!("{shown}::{name}")));
                    }
                    // Those that the call itself names.
                    let mut named = (Vec::new(), Vec::new());
                    functions(call.mac.tokens.clone(), false, &mut named);
                    seen.items.extend(named.0.iter().map(|name| format!("{shown}::{name}")));
                }
                _ => {}
            }
        }
    }
}

/// The functions that tokens define, public ones only if asked, and the macros that they call.
fn functions(tokens: TokenStream, public: bool, found: &mut (Vec<String>, Vec<String>)) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut is_public = !public;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(word) if word == "pub" => {
                let narrowed = matches!(tokens.get(at + 1), Some(TokenTree::Group(group))
                    if group.delimiter() == Delimiter::Parenthesis);
                is_public = !narrowed;
            }
            TokenTree::Ident(word) if word == "fn" && is_public => {
                if let Some(TokenTree::Ident(name)) = tokens.get(at + 1) {
                    found.0.push(name.to_string());
                }
                is_public = !public;
            }
            TokenTree::Ident(word) => {
                if matches!(tokens.get(at + 1), Some(TokenTree::Punct(mark)) if mark.as_char() == '!') {
                    found.1.push(word.to_string());
                }
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                functions(group.stream(), public, found);
                is_public = !public;
            }
            TokenTree::Punct(mark) if mark.as_char() == ';' => is_public = !public,
            _ => {}
        }
    }
}

fn flatten(tree: &UseTree, before: &Names, out: &mut Vec<(String, Names)>) {
    let with = |name: String| [before.as_slice(), &[name]].concat();
    match tree {
        UseTree::Path(path) => flatten(&path.tree, &with(path.ident.to_string()), out),
        UseTree::Name(name) if name.ident == "self" => {
            out.extend(before.last().map(|last| (last.clone(), before.clone())));
        }
        UseTree::Name(name) => out.push((name.ident.to_string(), with(name.ident.to_string()))),
        UseTree::Rename(as_) => out.push((as_.rename.to_string(), with(as_.ident.to_string()))),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, out)),
        UseTree::Glob(_) => {}
    }
}

fn head(item: &Item) -> Option<(&Visibility, String)> {
    Some(match item {
        Item::Const(item) => (&item.vis, item.ident.to_string()),
        Item::Enum(item) => (&item.vis, item.ident.to_string()),
        Item::Fn(item) => (&item.vis, item.sig.ident.to_string()),
        Item::Mod(item) => (&item.vis, item.ident.to_string()),
        Item::Struct(item) => (&item.vis, item.ident.to_string()),
        Item::Trait(item) => (&item.vis, item.ident.to_string()),
        Item::Type(item) => (&item.vis, item.ident.to_string()),
        _ => return None,
    })
}

fn attributes(item: &Item) -> &[syn::Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

fn is_hidden(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.to_token_stream().to_string().contains("doc (hidden)"))
}

fn derives(attributes: &[syn::Attribute]) -> Names {
    let lists = attributes.iter().filter(|attribute| attribute.path().is_ident("derive"));
    let names = lists.flat_map(|list| {
        list.meta
            .require_list()
            .map(|list| list.tokens.to_string())
            .unwrap_or_default()
            .replace(' ', "")
            .split(',')
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    names.collect()
}

/// Whether this can be there on a server: nothing of browsers', Windows' or tests' own. Every
/// feature is on.
fn holds(attributes: &[syn::Attribute]) -> bool {
    let conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    conditions.into_iter().all(|condition| {
        let Ok(list) = condition.meta.require_list() else { return true };
        syn::parse2::<syn::Meta>(list.tokens.clone()).is_ok_and(|meta| may_hold(&meta) != Some(false))
    })
}

/// `None` where it may be either.
fn may_hold(meta: &syn::Meta) -> Option<bool> {
    let inner = |list: &syn::MetaList| {
        let inner =
            list.parse_args_with(syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated);
        inner.map(|all| all.iter().map(may_hold).collect::<Vec<_>>()).unwrap_or_default()
    };
    match meta {
        syn::Meta::List(list) if list.path.is_ident("not") => {
            inner(list).first().copied().flatten().map(|is| !is)
        }
        syn::Meta::List(list) if list.path.is_ident("all") => {
            let all = inner(list);
            if all.contains(&Some(false)) {
                Some(false)
            } else {
                all.into_iter().all(|is| is.is_some()).then_some(true)
            }
        }
        syn::Meta::List(list) if list.path.is_ident("any") => {
            let all = inner(list);
            if all.contains(&Some(true)) {
                Some(true)
            } else {
                all.into_iter().all(|is| is.is_some()).then_some(false)
            }
        }
        syn::Meta::NameValue(is) => {
            let text = is.to_token_stream().to_string();
            let other = ["wasm32", "\"windows\"", "\"macos\"", "\"android\""];
            other.iter().any(|other| text.contains(other)).then_some(false)
        }
        syn::Meta::Path(path) => ["test", "docsrs"].iter().any(|name| path.is_ident(name)).then_some(false),
        syn::Meta::List(_) => None,
    }
}

fn last(path: &syn::Path) -> String {
    path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default()
}

/// As it is written, without spaces that don't matter, lifetimes and paths.
fn spelled(segment: &syn::PathSegment) -> String {
    let text = segment.to_token_stream().to_string();
    let mut out = String::new();
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        if words.peek() == Some(&"::") {
            words.next();
            continue;
        }
        if word.starts_with('\'') && word != "'static" || word == "mut" {
            continue;
        }
        if out.ends_with(|last: char| last.is_alphanumeric())
            && word.starts_with(|first: char| first.is_alphanumeric())
            || out.ends_with(',')
        {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}
