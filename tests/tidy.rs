//! The architecture as a test: who may import whom, and what a file may look like.
//!
//! Each check is a function from files to complaints, so that the last test can show it broken ones.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Imports go down this list, never up and never sideways.
const RANKS: &[(u8, &[&str])] = &[
    (0, &["call", "chaos", "metrics", "replicas"]),
    (1, &["classify"]),
    (2, &["error"]),
    (3, &["breaker", "connect", "observe", "retry", "spool"]),
    (4, &["sequence", "wrap"]),
    (5, &["job"]),
    (6, &["worker"]),
    (7, &["stack"]),
    (8, &["bin"]),
];

/// What the crate's root offers under shorter names, and whose it is.
const EXPORTS: &[(&str, &str)] = &[
    ("RedisCall", "call"),
    ("Reply", "call"),
    ("Error", "error"),
    ("Job", "job"),
    ("Seawall", "stack"),
];

const LONGEST: usize = 500;

#[test]
fn imports_only_go_down() {
    clean(imports(&sources()));
}

#[test]
fn every_module_has_a_rank() {
    let sources = sources();
    let there: BTreeSet<_> = sources.iter().filter_map(File::module).collect();
    let ranked: BTreeSet<_> = RANKS
        .iter()
        .flat_map(|(_, names)| *names)
        .copied()
        .collect();
    assert_eq!(there, ranked);
}

#[test]
fn the_roots_short_names_are_known() {
    let root = File::read(Path::new("src/lib.rs"));
    for (name, module) in EXPORTS {
        assert!(
            root.code.contains(name) && root.code.contains(&format!("{module}::")),
            "{name} is no longer {module}'s: put EXPORTS right"
        );
    }
    let exported = root.code.split("pub use self::").nth(1).unwrap_or_default();
    let exported = exported.split(';').next().unwrap_or_default();
    let names = words(exported).filter(|word| word.starts_with(char::is_uppercase));
    let known: BTreeSet<_> = EXPORTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.collect::<BTreeSet<_>>(), known);
}

#[test]
fn every_file_says_what_it_is_for() {
    clean(undocumented(&sources()));
}

#[test]
fn files_are_short() {
    clean(too_long(&sources()));
}

#[test]
fn only_the_store_names_sled() {
    clean(naming(&sources(), &["sled::"], is_store));
}

#[test]
fn library_code_neither_unwraps_nor_leaves_things_to_do() {
    let banned = [".unwrap()", "todo!", "unimplemented!", "dbg!"];
    clean(naming(&sources(), &banned, |_| false));
}

#[test]
fn metrics_are_made_in_one_place() {
    let makers = [
        "Counter::new",
        "Counter::with_opts",
        "CounterVec::new",
        "Gauge::new",
        "Gauge::with_opts",
        "GaugeVec::new",
        "Histogram::with_opts",
        "HistogramVec::new",
        "HistogramOpts",
        "Opts::new",
        "register_counter",
        "register_int",
        "register_gauge",
        "register_histogram",
        "default_registry",
    ];
    clean(naming(&sources(), &makers, |path| {
        path.starts_with("src/metrics")
    }));
}

/// A check that sees nothing would be as green as one with nothing to see.
#[test]
fn each_check_sees_what_it_looks_for() {
    let file = |path: &str, text: &str| File::new(path.into(), text.to_owned());
    let sees = |found: Vec<String>, what: &str| {
        assert!(
            found.iter().any(|found| found.contains(what)),
            "{what}: {found:?}"
        );
    };
    let unseen = |found: Vec<String>| assert!(found.is_empty(), "{found:?}");

    let importing = |path, text| imports(&[file(path, text)]);
    sees(
        importing("src/call/mod.rs", "use crate::error::Error;"),
        "error",
    );
    sees(
        importing(
            "src/retry/a.rs",
            "use crate::{\n  error::E,\n  breaker::{A, B},\n};",
        ),
        "breaker",
    );
    sees(
        importing("src/retry/a.rs", "use crate::{error::{E, F}, connect::C};"),
        "connect",
    );
    sees(importing("src/error.rs", "fn f() -> crate::Job {}"), "job");
    sees(
        importing("src/retry/mod.rs", "use super::connect::C;"),
        "connect",
    );
    sees(
        importing("src/retry/a/b.rs", "use super::super::super::connect::C;"),
        "super::super",
    );
    sees(importing("src/chaos/a.rs", "use crate::call::C;"), "call");
    unseen(importing(
        "src/retry/a.rs",
        "use crate::{call::C, error::E, metrics::M};",
    ));
    unseen(importing(
        "src/retry/a.rs",
        "//! [x](crate::stack)\nuse crate::retry::b;",
    ));
    unseen(importing(
        "src/retry/a.rs",
        "#[cfg(doc)]\nuse crate::{\n    stack::S,\n};",
    ));
    unseen(importing(
        "src/stack/a.rs",
        "use crate::{Error, job::Job, spool};",
    ));

    sees(
        undocumented(&[file("src/a.rs", "use std::fmt;\n")]),
        "src/a.rs",
    );
    unseen(undocumented(&[file("src/a.rs", "//! For a.\n")]));

    let long = |lines: usize| [file("src/a.rs", &"//\n".repeat(lines))];
    sees(too_long(&long(501)), "501");
    unseen(too_long(&long(500)));

    let named = |path, text| {
        naming(&[file(path, text)], &["sled::", ".unwrap()"], |path| {
            is_store(path)
        })
    };
    sees(
        named("src/spool/commit.rs", "//!\nlet a = sled::open();"),
        "src/spool/commit.rs:2",
    );
    sees(named("src/a.rs", "fn f() { x\n.unwrap() }"), ".unwrap()");
    unseen(named("src/spool/store/mod.rs", "sled::open()"));
    unseen(named(
        "src/a.rs",
        "/// `sled::open().unwrap()`\nfn f() {} // sled::open",
    ));
    unseen(named(
        "src/a.rs",
        "#[cfg(test)]\nmod tests {\n  sled::open().unwrap()\n}",
    ));
    let parent = file("src/a.rs", "#[cfg(test)]\nmod model;");
    let model = file("src/a/model.rs", "x.unwrap()");
    unseen(naming(&[parent, model], &[".unwrap()"], |_| false));
}

fn is_store(path: &Path) -> bool {
    path.starts_with("src/spool/store")
}

// ===== the checks =====

fn imports(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let Some(module) = file.module() else {
            continue;
        };
        for target in file.imports() {
            let down = target == module || rank(target) < rank(module);
            // What imports nothing of ours is as low as can be.
            if !down || (module == "chaos" && target != "chaos") {
                found.push(format!(
                    "{}: {module} (rank {}) imports {target} (rank {})",
                    file.path.display(),
                    rank(module),
                    rank(target)
                ));
            }
        }
        if file.code.contains("super::super::super") {
            found.push(format!("{}: super::super::super", file.path.display()));
        }
    }
    found
}

fn undocumented(files: &[File]) -> Vec<String> {
    let said = |text: &str| text.starts_with("//!") || text.trim().is_empty();
    let bare = files.iter().filter(|file| !said(&file.text));
    bare.map(|file| format!("{}: does not start with //!", file.path.display()))
        .collect()
}

fn too_long(files: &[File]) -> Vec<String> {
    let lines = |file: &File| file.text.lines().count();
    files
        .iter()
        .filter(|file| lines(file) > LONGEST)
        .map(|file| {
            format!(
                "{}: {} lines, at most {LONGEST}",
                file.path.display(),
                lines(file)
            )
        })
        .collect()
}

/// Who names what, outside tests, without being allowed to.
fn naming(files: &[File], names: &[&str], allowed: impl Fn(&Path) -> bool) -> Vec<String> {
    let of_tests = test_files(files);
    let mut found = Vec::new();
    for file in files {
        if allowed(&file.path) || of_tests.iter().any(|path| file.path.starts_with(path)) {
            continue;
        }
        for (number, line) in (1..).zip(file.library_code().lines()) {
            for name in names.iter().filter(|name| mentions(line, name)) {
                found.push(format!("{}:{number}: {name}", file.path.display()));
            }
        }
    }
    found
}

/// Whether `line` has `name` by itself, not as the end of a longer one.
fn mentions(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        !name.starts_with(is_part) || !before.is_some_and(is_part) || line[..at].ends_with("Int")
    })
}

fn rank(module: &str) -> u8 {
    RANKS
        .iter()
        .find(|(_, names)| names.contains(&module))
        .map_or(u8::MAX, |(rank, _)| *rank)
}

/// Files and folders that only tests are compiled from.
fn test_files(files: &[File]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in files {
        for (at, _) in file.code.match_indices(TEST) {
            let declared = item(&file.code[at..]).strip_prefix("mod ");
            let name = declared.and_then(|name| name.strip_suffix(';'));
            if let Some(name) = name {
                let folder = file.folder();
                found.extend([folder.join(format!("{name}.rs")), folder.join(name)]);
            }
        }
    }
    found
}

const TEST: &str = "#[cfg(test)]\n";

/// The line of the item that `code` starts with an attribute of, without its visibility.
fn item(code: &str) -> &str {
    let line = code.lines().nth(1).unwrap_or_default();
    line.strip_prefix("pub(super) ").unwrap_or(line)
}

// ===== reading =====

/// A source file.
struct File {
    path: PathBuf,
    text: String,
    /// Without comments, and without what only rustdoc sees. It has the lines of `text`.
    code: String,
}

impl File {
    fn new(path: PathBuf, text: String) -> Self {
        let code = text.lines().map(uncommented).collect::<Vec<_>>().join("\n");
        Self {
            path,
            code: without_doc_imports(&code),
            text,
        }
    }

    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        Self::new(path.to_owned(), text.unwrap())
    }

    /// The top-level module that it is part of; `None` for the root.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src").ok()?;
        let name = inside.components().next()?.as_os_str().to_str()?;
        let name = name.strip_suffix(".rs").unwrap_or(name);
        (name != "lib").then_some(name)
    }

    /// Where its submodules are.
    fn folder(&self) -> PathBuf {
        match self.path.file_name() {
            Some(name) if name == "mod.rs" || name == "lib.rs" => {
                self.path.parent().unwrap().to_owned()
            }
            _ => self.path.with_extension(""),
        }
    }

    /// The top-level modules that it names.
    fn imports(&self) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for (at, marker) in self.code.match_indices("crate::") {
            found.extend(
                heads(&self.code[at + marker.len()..])
                    .into_iter()
                    .map(owner),
            );
        }
        let is_top = self.path.ends_with("mod.rs") && self.path.components().count() == 3
            || self.path.components().count() == 2;
        for (at, marker) in self.code.match_indices("super::") {
            let heads = heads(&self.code[at + marker.len()..]);
            let modules = heads
                .into_iter()
                .filter(|head| is_top && rank(head) != u8::MAX);
            found.extend(modules);
        }
        found.retain(|module| rank(module) != u8::MAX);
        found
    }

    fn library_code(&self) -> &str {
        // Tests come last in a file.
        let mut marks = self.code.match_indices(TEST).map(|(at, _)| at);
        let end = marks.find(|at| item(&self.code[*at..]) == "mod tests {");
        &self.code[..end.unwrap_or(self.code.len())]
    }
}

/// The first names of a path, or of each path in a group: `a` of `a::b`, `a` and `c` of `{a::b, c}`.
fn heads(path: &str) -> Vec<&str> {
    if !path.starts_with('{') {
        return words(path).take(1).collect();
    }
    let (mut heads, mut depth, mut expected) = (Vec::new(), 0, false);
    for (at, c) in path.char_indices() {
        match c {
            '{' => {
                depth += 1;
                expected = depth == 1;
            }
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' => expected = depth == 1,
            c if c.is_alphanumeric() && expected => {
                heads.extend(words(&path[at..]).next());
                expected = false;
            }
            _ => {}
        }
    }
    heads
}

/// Whose a name of the crate's root is.
fn owner(name: &str) -> &str {
    let export = EXPORTS.iter().find(|(export, _)| *export == name);
    export.map_or(name, |(_, module)| module)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

fn uncommented(line: &str) -> &str {
    match line.find("//") {
        // `redis://` in a string is no comment.
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    }
}

/// Blanks out each `#[cfg(doc)]` import.
fn without_doc_imports(code: &str) -> String {
    let mut left = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("#[cfg(doc)]") {
        left.push_str(before);
        let end = after.find(';').map_or(after.len(), |at| at + 1);
        left.extend(after[..end].chars().filter(|c| *c == '\n'));
        rest = &after[end..];
    }
    left + rest
}

fn sources() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut files) = (vec![root.join("src")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(File::read(path.strip_prefix(root).unwrap()));
            }
        }
    }
    assert!(files.len() > 50, "this looks at nothing");
    files
}

#[track_caller]
fn clean(mut found: Vec<String>) {
    found.sort();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}
