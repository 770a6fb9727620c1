//! A disk that keeps only what it must: what may be there after the power was cut.
//!
//! What was synced is there. Of a file's later changes any may be there or not, and of a write each
//! sector by itself; of the changes of names that a directory's sync has not covered, a part.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use rand::{Rng as _, rngs::SmallRng, seq::IndexedRandom as _};

use super::log::Entry;

/// What has happened so far, and what of it is certain.
pub(crate) struct Disk {
    root: String,
    nodes: Vec<Node>,
    inodes: HashMap<u64, usize>,
    seen: Names,
    durable: Names,
    unsynced: Vec<Renaming>,
}

/// A name in a directory, and the node it leads to.
type Names = BTreeMap<(usize, String), usize>;

#[derive(Default)]
struct Node {
    is_dir: bool,
    /// What is certain.
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Bytes),
    Size(u64),
    /// Zeros from here to there.
    Zero(u64, u64),
    /// At least so long.
    Reach(u64),
}

/// One atomic change of names: the first goes, the second comes.
#[derive(Clone)]
struct Renaming {
    gone: Option<(usize, String)>,
    come: Option<((usize, String), usize)>,
    /// The directories that are still to be synced.
    needs: Vec<usize>,
}

/// What is kept of a file's changes since its last sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Bits {
    Nothing,
    Everything,
    Some,
    /// Of each write some sectors.
    Torn,
    OnlyLast,
    /// All new sizes, and zeros.
    OnlySize,
    /// Each file in its own way.
    Mixed,
}

/// What is kept of the changes of names since their directories' last syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Naming {
    Nothing,
    Everything,
    /// The first of them, as a journal does.
    Prefix,
    /// Any of them.
    Some,
}

const SECTOR: u64 = 512;
const ROOT: usize = 0;

impl Disk {
    /// Of which `root` is all there is, durably and empty.
    pub(crate) fn new(root: &Path) -> Self {
        let root_node = Node {
            is_dir: true,
            ..Node::default()
        };
        Self {
            root: root.to_str().expect("a path in UTF-8").to_owned(),
            nodes: vec![root_node],
            inodes: HashMap::from([(inode(root), ROOT)]),
            seen: Names::new(),
            durable: Names::new(),
            unsynced: Vec::new(),
        }
    }

    pub(crate) fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Create { path, inode } => self.make(path, *inode, false),
            Entry::MakeDir { path, inode } => self.make(path, *inode, true),
            Entry::Size { inode, length } => self.change(*inode, Change::Size(*length)),
            Entry::Write {
                inode,
                offset,
                bytes,
            } => self.change(*inode, Change::Write(*offset, bytes.clone())),
            Entry::Allocate {
                inode,
                mode,
                offset,
                length,
            } => {
                let end = offset + length;
                if mode & (PUNCH_HOLE | ZERO_RANGE) != 0 {
                    self.change(*inode, Change::Zero(*offset, end));
                }
                if mode & KEEP_SIZE == 0 {
                    self.change(*inode, Change::Reach(end));
                }
            }
            Entry::Rename { from, to } => {
                let node = self.node(from);
                let (gone, come) = (self.place(from), self.place(to));
                self.rename(Some(gone), Some((come, node)));
            }
            Entry::Link { from, to } => {
                let come = (self.place(to), self.node(from));
                self.rename(None, Some(come));
            }
            Entry::Unlink { path } | Entry::RemoveDir { path } => {
                let gone = self.place(path);
                self.rename(Some(gone), None);
            }
            Entry::Sync { inode } => {
                let node = self.inodes[inode];
                self.sync(node);
            }
            Entry::SyncAll => (0..self.nodes.len()).for_each(|node| self.sync(node)),
            Entry::SyncRange | Entry::Note(_) => {}
        }
    }

    /// Writes what would be there now, if the power were not cut, or to everyone's delight.
    pub(crate) fn write_seen(&self, into: &Path) {
        self.write(into, &self.seen, &mut |node| {
            node.unsynced.iter().fold(node.synced.clone(), changed)
        });
    }

    /// Writes what may be there when the power is cut now.
    pub(crate) fn write_cut(&self, into: &Path, bits: Bits, naming: Naming, dice: &mut SmallRng) {
        let mut names = self.durable.clone();
        let kept = match naming {
            Naming::Nothing => 0,
            Naming::Everything | Naming::Some => self.unsynced.len(),
            Naming::Prefix => dice.random_range(0..=self.unsynced.len()),
        };
        for renaming in &self.unsynced[..kept] {
            if naming != Naming::Some || dice.random_bool(0.5) {
                renaming.apply(&mut names);
            }
        }
        self.write(into, &names, &mut |node| node.cut(bits, dice));
    }

    fn make(&mut self, path: &str, inode: u64, is_dir: bool) {
        let node = self.nodes.len();
        self.nodes.push(Node {
            is_dir,
            ..Node::default()
        });
        self.inodes.insert(inode, node);
        let place = self.place(path);
        self.rename(None, Some((place, node)));
    }

    fn change(&mut self, inode: u64, change: Change) {
        self.nodes[self.inodes[&inode]].unsynced.push(change);
    }

    fn rename(&mut self, gone: Option<(usize, String)>, come: Option<((usize, String), usize)>) {
        let mut needs: Vec<usize> = gone.iter().map(|(dir, _)| *dir).collect();
        needs.extend(come.iter().map(|((dir, _), _)| *dir));
        needs.dedup();
        let renaming = Renaming { gone, come, needs };
        renaming.apply(&mut self.seen);
        self.unsynced.push(renaming);
    }

    fn sync(&mut self, node: usize) {
        let synced = &mut self.nodes[node];
        let content = std::mem::take(&mut synced.synced);
        synced.synced = synced
            .unsynced
            .drain(..)
            .fold(content, |content, change| changed(content, &change));
        if synced.is_dir {
            let durable = &mut self.durable;
            self.unsynced.retain_mut(|renaming| {
                renaming.needs.retain(|dir| *dir != node);
                let done = renaming.needs.is_empty();
                if done {
                    renaming.apply(durable);
                }
                !done
            });
        }
    }

    /// The directory that `path` names something in, and the name.
    fn place(&self, path: &str) -> (usize, String) {
        let (parent, name) = path.rsplit_once('/').expect("a whole path");
        (self.node(parent), name.to_owned())
    }

    fn node(&self, path: &str) -> usize {
        let inner = path.strip_prefix(&self.root).expect("a path inside");
        let names = inner.split('/').filter(|name| !name.is_empty());
        names.fold(ROOT, |dir, name| {
            let found = self.seen.get(&(dir, name.to_owned()));
            *found.unwrap_or_else(|| panic!("the log knows nothing of {path}"))
        })
    }

    fn write(&self, into: &Path, names: &Names, content: &mut dyn FnMut(&Node) -> Vec<u8>) {
        let mut left = vec![(ROOT, into.to_owned())];
        fs::create_dir_all(into).unwrap();
        while let Some((dir, path)) = left.pop() {
            for ((_, name), node) in names.range((dir, String::new())..(dir + 1, String::new())) {
                let path = path.join(name);
                if self.nodes[*node].is_dir {
                    fs::create_dir(&path).unwrap();
                    left.push((*node, path));
                } else {
                    write_sparse(&path, &content(&self.nodes[*node]));
                }
            }
        }
    }
}

impl Renaming {
    fn apply(&self, names: &mut Names) {
        if let Some(gone) = &self.gone {
            names.remove(gone);
        }
        if let Some((place, node)) = &self.come {
            names.insert(place.clone(), *node);
        }
    }
}

impl Node {
    fn cut(&self, bits: Bits, dice: &mut SmallRng) -> Vec<u8> {
        const EACH: [Bits; 6] = [
            Bits::Nothing,
            Bits::Everything,
            Bits::Some,
            Bits::Torn,
            Bits::OnlyLast,
            Bits::OnlySize,
        ];
        let bits = match bits {
            Bits::Mixed => *EACH.choose(dice).expect("there are some"),
            bits => bits,
        };
        let mut content = self.synced.clone();
        for (at, change) in self.unsynced.iter().enumerate() {
            let kept = match bits {
                Bits::Nothing | Bits::Mixed => false,
                Bits::Everything | Bits::Torn | Bits::OnlySize => true,
                Bits::Some => dice.random_bool(0.5),
                Bits::OnlyLast => at + 1 == self.unsynced.len(),
            };
            content = match change {
                _ if !kept => content,
                Change::Write(offset, bytes) if bits == Bits::OnlySize => {
                    changed(content, &Change::Reach(offset + bytes.len() as u64))
                }
                Change::Write(offset, bytes) if bits == Bits::Torn => {
                    torn(content, *offset, bytes, dice)
                }
                change => changed(content, change),
            };
        }
        content
    }
}

fn changed(mut content: Vec<u8>, change: &Change) -> Vec<u8> {
    let reach = |content: &mut Vec<u8>, end: usize| {
        if content.len() < end {
            content.resize(end, 0);
        }
    };
    match change {
        Change::Write(offset, bytes) => {
            let (start, end) = (*offset as usize, *offset as usize + bytes.len());
            reach(&mut content, end);
            content[start..end].copy_from_slice(bytes);
        }
        Change::Size(length) => content.resize(*length as usize, 0),
        Change::Zero(start, end) => {
            let end = content.len().min(*end as usize);
            let start = end.min(*start as usize);
            content[start..end].fill(0);
        }
        Change::Reach(end) => reach(&mut content, *end as usize),
    }
    content
}

/// Each sector that the write touches has come to the disk or has not.
fn torn(mut content: Vec<u8>, offset: u64, bytes: &Bytes, dice: &mut SmallRng) -> Vec<u8> {
    let end = offset + bytes.len() as u64;
    let odds = *[0.1, 0.5, 0.9].choose(dice).expect("there are some");
    let mut start = offset;
    while start < end {
        let next = end.min((start / SECTOR + 1) * SECTOR);
        if dice.random_bool(odds) {
            let sector = bytes.slice((start - offset) as usize..(next - offset) as usize);
            content = changed(content, &Change::Write(start, sector));
        }
        start = next;
    }
    content
}

const KEEP_SIZE: u32 = 1;
const PUNCH_HOLE: u32 = 2;
const ZERO_RANGE: u32 = 16;

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).unwrap().ino()
}

/// Large stretches of zeros stay holes.
pub(crate) fn write_sparse(path: &Path, content: &[u8]) {
    const BLOCK: usize = 64 << 10;
    let file = File::create(path).unwrap();
    file.set_len(content.len() as u64).unwrap();
    for (at, block) in content.chunks(BLOCK).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, (at * BLOCK) as u64).unwrap();
        }
    }
}

/// All that is in a directory: a file's bytes, or `None` for a directory.
pub(crate) fn contents(of: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![of.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(of).unwrap().to_owned();
            if path.is_dir() {
                found.insert(name, None);
                left.push(path);
            } else {
                found.insert(name, Some(fs::read(&path).unwrap()));
            }
        }
    }
    found
}
