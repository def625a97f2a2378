//! Import cycles between the files of one crate.
//!
//! An edge leads from a file to the file that defines what it imports: `use` items and
//! paths in code, with re-exports followed to the definition. Test modules do not count,
//! and neither does a `mod` declaration by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use syn::visit::Visit;

/// A module: the path of its segments from the crate root, empty for the root.
type ModulePath = Vec<String>;

/// What one file declares and imports.
#[derive(Default)]
struct Module {
    file: PathBuf,
    /// Names of child modules.
    children: BTreeSet<String>,
    /// Names that the file defines itself.
    items: BTreeSet<String>,
    /// Names that it imports, public or not, with the full path of each.
    imports: BTreeMap<String, Vec<String>>,
    /// Paths used in its code, as written.
    paths: BTreeSet<Vec<String>>,
}

/// The cycles in the crate with this `src` folder, each as a list of files.
pub fn find(src: &Path) -> Result<Vec<Vec<PathBuf>>> {
    let root = ["lib.rs", "main.rs"].map(|name| src.join(name)).into_iter().find(|path| path.is_file());
    let Some(root) = root else { return Ok(Vec::new()) };
    let mut modules = BTreeMap::new();
    load(&root, src, Vec::new(), &mut modules)?;
    let mut edges: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> = BTreeMap::new();
    for (path, module) in &modules {
        let targets = edges.entry(path).or_default();
        let imported = module.imports.values().chain(&module.paths);
        for used in imported {
            let Some(target) = resolve(&modules, path, used, 0) else { continue };
            if target != *path
                && let Some((target, _)) = modules.get_key_value(&target)
            {
                targets.insert(target);
            }
        }
    }
    let found = components(&edges);
    Ok(found.into_iter().map(|cycle| cycle.into_iter().map(|path| modules[path].file.clone()).collect()).collect())
}

fn load(file: &Path, folder: &Path, path: ModulePath, modules: &mut BTreeMap<ModulePath, Module>) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let tree = syn::parse_file(&text).with_context(|| file.display().to_string())?;
    let mut module = Module { file: file.to_owned(), ..Module::default() };
    for item in &tree.items {
        let child = match item {
            syn::Item::Mod(child) if child.content.is_none() && !is_test(&child.attrs) => child.ident.to_string(),
            _ => continue,
        };
        let mut inner = path.clone();
        inner.push(child.clone());
        let (flat, nested) = (folder.join(format!("{child}.rs")), folder.join(&child).join("mod.rs"));
        let (file, folder) = (if flat.is_file() { flat } else { nested }, folder.join(&child));
        module.children.insert(child);
        load(&file, &folder, inner, modules)?;
    }
    Collector { module: &mut module, depth: 0 }.visit_file(&tree);
    modules.insert(path, module);
    Ok(())
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

/// Collects names, imports and paths of one file.
struct Collector<'m> {
    module: &'m mut Module,
    /// How many inline modules the visitor is in.
    depth: usize,
}

impl Collector<'_> {
    /// A path as it would be written at the top of the file; `None` if it stays in the file.
    fn at_top(&self, path: Vec<String>) -> Option<Vec<String>> {
        let supers = path.iter().take_while(|segment| *segment == "super").count();
        match supers {
            0 if path.first().is_some_and(|first| first == "self") && self.depth > 0 => None,
            0 => Some(path),
            _ if supers <= self.depth => None,
            _ => Some(path[self.depth..].to_vec()),
        }
    }

    fn add_import(&mut self, key: String, path: Vec<String>) {
        if let Some(path) = self.at_top(path) {
            self.module.imports.insert(key, path);
        }
    }

    fn import(&mut self, tree: &syn::UseTree, mut prefix: Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(&path.tree, prefix);
            }
            syn::UseTree::Name(name) if name.ident == "self" => {
                if let Some(last) = prefix.last().cloned() {
                    self.add_import(last, prefix);
                }
            }
            syn::UseTree::Name(name) => {
                prefix.push(name.ident.to_string());
                self.add_import(name.ident.to_string(), prefix);
            }
            syn::UseTree::Rename(name) => {
                prefix.push(name.ident.to_string());
                let key = if name.rename == "_" { prefix.join("::") } else { name.rename.to_string() };
                self.add_import(key, prefix);
            }
            syn::UseTree::Glob(_) => {
                self.add_import(format!("{}::*", prefix.join("::")), prefix);
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(tree, prefix.clone()));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if let syn::Item::Mod(inner) = item
            && inner.content.is_some()
            && !is_test(&inner.attrs)
        {
            self.depth += 1;
            syn::visit::visit_item(self, item);
            self.depth -= 1;
            return;
        }
        let name = match item {
            syn::Item::Mod(inner) if is_test(&inner.attrs) => return,
            syn::Item::Fn(function) if is_test(&function.attrs) => return,
            syn::Item::Const(item) => Some(&item.ident),
            syn::Item::Enum(item) => Some(&item.ident),
            syn::Item::Fn(item) => Some(&item.sig.ident),
            syn::Item::Static(item) => Some(&item.ident),
            syn::Item::Struct(item) => Some(&item.ident),
            syn::Item::Trait(item) => Some(&item.ident),
            syn::Item::Type(item) => Some(&item.ident),
            _ => None,
        };
        if let Some(name) = name {
            self.module.items.insert(name.to_string());
        }
        syn::visit::visit_item(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&item.tree, Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1
            && let Some(segments) = self.at_top(segments)
        {
            self.module.paths.insert(segments);
        }
        syn::visit::visit_path(self, path);
    }
}

/// How far re-exports are followed.
const MAX_REEXPORTS: usize = 8;

/// The module that defines what a path means in `from`; none for other crates.
fn resolve(
    modules: &BTreeMap<ModulePath, Module>,
    from: &ModulePath,
    path: &[String],
    followed: usize,
) -> Option<ModulePath> {
    let (first, mut rest) = path.split_first()?;
    let mut at = match first.as_str() {
        "crate" => Vec::new(),
        "self" => from.clone(),
        "super" => from[..from.len().checked_sub(1)?].to_vec(),
        name if modules[from].children.contains(name) => {
            let mut child = from.clone();
            child.push(name.to_owned());
            child
        }
        name => {
            let import = modules[from].imports.get(name).filter(|import| *import != path)?;
            let full: Vec<String> = import.iter().chain(rest).cloned().collect();
            return if followed < MAX_REEXPORTS { resolve(modules, from, &full, followed + 1) } else { None };
        }
    };
    while let Some((next, more)) = rest.split_first() {
        if next == "super" {
            at.pop();
        } else if modules.get(&at)?.children.contains(next) {
            at.push(next.clone());
        } else {
            let module = &modules[&at];
            if !module.items.contains(next)
                && let Some(import) = module.imports.get(next)
                && followed < MAX_REEXPORTS
            {
                let full: Vec<String> = import.iter().chain(more).cloned().collect();
                return resolve(modules, &at, &full, followed + 1);
            }
            return Some(at);
        }
        rest = more;
    }
    // A module itself: `use super::key;` imports nothing until something in it is named.
    None
}

/// Strongly connected components of more than one module.
fn components<'m>(edges: &BTreeMap<&'m ModulePath, BTreeSet<&'m ModulePath>>) -> Vec<BTreeSet<&'m ModulePath>> {
    let reachable = |from: &'m ModulePath| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(at) = open.pop() {
            for next in edges.get(at).into_iter().flatten() {
                if seen.insert(*next) {
                    open.push(next);
                }
            }
        }
        seen
    };
    let reach: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> =
        edges.keys().map(|module| (*module, reachable(module))).collect();
    let mut found: Vec<BTreeSet<&ModulePath>> = Vec::new();
    for module in edges.keys() {
        let together: BTreeSet<&ModulePath> = reach[module]
            .iter()
            .filter(|other| reach.get(**other).is_some_and(|reach| reach.contains(module)))
            .copied()
            .collect();
        if together.len() > 1 && !found.contains(&together) {
            found.push(together);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let name = |path: PathBuf| path.strip_prefix(folder.path()).unwrap().display().to_string();
        let cycles = find(folder.path()).unwrap();
        cycles.into_iter().map(|cycle| cycle.into_iter().map(name).collect()).collect()
    }

    #[test]
    fn a_cycle_through_a_reexport_is_found() {
        let found = cycles(&[
            ("lib.rs", "mod a; mod b; pub use b::B;"),
            ("a.rs", "use crate::B; pub struct A(B);"),
            ("b.rs", "pub struct B; fn f() { super::a::g(); }"),
        ]);
        assert_eq!(found, [["a.rs", "b.rs"]]);
    }

    #[test]
    fn a_parent_and_its_child_that_import_each_other_are_a_cycle() {
        let child = ("read/csv.rs", "use super::Options; pub fn read(_: Options) {}");
        let found = cycles(&[
            ("lib.rs", "mod read;"),
            ("read/mod.rs", "mod csv; pub struct Options; fn f() { csv::read(Options) }"),
            child,
        ]);
        assert_eq!(found, [["read/mod.rs", "read/csv.rs"]]);
        let apart = cycles(&[
            ("lib.rs", "mod read;"),
            ("read/mod.rs", "mod csv; mod options; use options::Options; fn f() { csv::read(Options) }"),
            ("read/options.rs", "pub struct Options;"),
            child,
        ]);
        assert!(apart.is_empty(), "{apart:?}");
    }

    #[test]
    fn an_inline_module_belongs_to_its_file() {
        let found = cycles(&[
            ("lib.rs", "mod a; pub use a::A;"),
            ("a.rs", "pub struct A; fn f() {} mod system { use super::f; pub fn g() { f() } }"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn tests_and_bare_module_imports_do_not_count() {
        let found = cycles(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }"),
            ("b.rs", "use crate::a::A; pub struct B(A);"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
