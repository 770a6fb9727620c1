//! Cuts the power at random moments of a log.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use rand::{Rng as _, rngs::SmallRng, seq::IndexedRandom as _};
use tempfile::TempDir;

use super::{
    RUNNING, dice,
    disk::{Bits, Disk, Naming, contents},
    facts::{Facts, Violation},
    judge::{judge, watch},
    log::Entry,
    note::Note,
    scenes::{GROUPS, SCENES, Scene, play},
    states,
    worker::{Place, scratch},
};

const BITS: [Bits; 7] = [
    Bits::Nothing,
    Bits::Everything,
    Bits::Some,
    Bits::Torn,
    Bits::OnlyLast,
    Bits::OnlySize,
    Bits::Mixed,
];
const NAMINGS: [Naming; 4] = [
    Naming::Nothing,
    Naming::Everything,
    Naming::Prefix,
    Naming::Some,
];

/// What was looked at, and what was wrong with it.
#[derive(Default)]
struct Found {
    states: u64,
    wrong: u64,
    records: u64,
    kinds: BTreeMap<String, u64>,
    /// The first few, for the eyes.
    told: Vec<String>,
}

/// Where the power is cut, and what is left.
#[derive(Clone, Copy, Debug)]
struct Cut {
    at: usize,
    bits: Bits,
    naming: Naming,
}

/// Looks at `count` states of what the worker did.
fn explore(
    scene: Scene,
    entries: &[Entry],
    place: &Place,
    count: u64,
    dice: &mut SmallRng,
    found: &mut Found,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut cuts: Vec<_> = (0..count).map(|_| cut(entries, dice)).collect();
    cuts.sort_by_key(|cut| cut.at);
    let (mut disk, mut facts) = (Disk::new(place.root()), Facts::default());
    let mut done = 0;
    for cut in cuts {
        for entry in &entries[done..cut.at] {
            disk.apply(entry);
            facts.learn(entry);
        }
        done = cut.at;
        let dir = scratch();
        let kept = dice.clone();
        disk.write_cut(dir.path(), cut.bits, cut.naming, dice);
        let violations = runtime.block_on(judge(dir.path(), facts.clone(), dice));
        found.states += 1;
        found.records += (facts.acknowledged.difference(&facts.delivered)).count() as u64;
        let what = format!(
            "{scene:?} cut at {} of {}, {:?}, names {:?}",
            cut.at,
            entries.len(),
            cut.bits,
            cut.naming
        );
        let kept = match &*violations {
            [] => String::new(),
            _ => keep(&disk, place, cut, kept),
        };
        found.add(&what, &violations, &kept);
    }
}

/// A part of the cuts is anywhere. As promises and names are rare and syncs are short, the others are
/// after a promise, near a change of names, or between a write and its sync.
fn cut(entries: &[Entry], dice: &mut SmallRng) -> Cut {
    let near = |dice: &mut SmallRng, wanted: fn(&Entry) -> bool| {
        let all: Vec<_> = (0..entries.len())
            .filter(|at| wanted(&entries[*at]))
            .collect();
        all.choose(dice).copied()
    };
    let at = match dice.random_range(0..10) {
        0 => near(
            dice,
            |entry| matches!(entry, Entry::Note(text) if text.starts_with("ack")),
        )
        .map(|at| at + 1),
        1 | 2 => near(dice, Entry::is_of_names).map(|at| at + dice.random_range(0..12)),
        3..=5 => near(dice, |entry| matches!(entry, Entry::Sync { .. })),
        _ => None,
    };
    let at = at.unwrap_or_else(|| dice.random_range(0..=entries.len()));
    Cut {
        at: at.min(entries.len()),
        bits: *BITS.choose(dice).expect("there are some"),
        naming: *NAMINGS.choose(dice).expect("there are some"),
    }
}

/// Makes the state once more, for the eyes, if it is wanted, with the log beside it.
fn keep(disk: &Disk, place: &Place, cut: Cut, mut dice: SmallRng) -> String {
    if std::env::var_os("SEAWALL_KEEP").is_none() {
        return String::new();
    }
    let dir = TempDir::with_prefix("seawall-state-").unwrap().keep();
    disk.write_cut(&dir, cut.bits, cut.naming, &mut dice);
    std::fs::copy(place.log(), dir.join("log")).unwrap();
    format!(", kept in {}", dir.display())
}

impl Found {
    fn add(&mut self, what: &str, violations: &[Violation], kept: &str) {
        if violations.is_empty() {
            return;
        }
        self.wrong += 1;
        let kinds: BTreeSet<_> = violations.iter().map(Violation::kind).collect();
        for kind in kinds {
            *self.kinds.entry(kind).or_default() += 1;
        }
        if self.told.len() < 12 {
            let (some, all) = (&violations[..violations.len().min(3)], violations.len());
            self.told
                .push(format!("{what}: {some:?}, {all} in all{kept}"));
        }
    }

    fn tell(&self, what: &str) {
        println!(
            "{what}: {} states, in which {} records had to be; violations in {} {:?}",
            self.states, self.records, self.wrong, self.kinds
        );
        self.told.iter().for_each(|line| println!("  {line}"));
    }
}

/// So many states of each scene and group, of several logs.
fn explore_all(scenes: &[Scene], states: u64, set: &[(&str, &str)], salt: u64) -> Found {
    watch();
    let mut found = Found::default();
    for scene in scenes {
        for group in GROUPS {
            let mut left = states.div_ceil((scenes.len() * GROUPS.len()) as u64);
            for log in 0.. {
                let mut dice = dice(salt << 16 | (*scene as u64) << 12 | (group as u64) << 4 | log);
                let (place, entries) = play(*scene, group, &mut dice, set);
                if set.is_empty() {
                    let facts = Facts::of(&entries);
                    assert!(
                        !facts.acknowledged.is_empty(),
                        "{scene:?}: nothing was acknowledged"
                    );
                    found.add(&format!("{scene:?} with no cut"), &facts.violations, "");
                }
                let now = left.min(A_LOG);
                explore(*scene, &entries, &place, now, &mut dice, &mut found);
                left -= now;
                if left == 0 {
                    break;
                }
            }
        }
    }
    found
}

/// How many states of one log are looked at.
const A_LOG: u64 = 60;

fn holds(scene: Scene) {
    let _others = RUNNING.blocking_read();
    let found = explore_all(&[scene], states() / SCENES.len() as u64, &[], 1);
    found.tell(&format!("power cut, {scene:?}"));
    assert_eq!(found.wrong, 0, "{:#?}", found.told);
}

#[test]
fn a_power_cut_while_records_come_and_go_loses_and_doubles_nothing() {
    holds(Scene::Steady);
}

#[test]
fn a_power_cut_as_the_spool_opens_and_closes_loses_and_doubles_nothing() {
    holds(Scene::Restarts);
}

#[test]
fn a_power_cut_as_generations_rotate_loses_and_doubles_nothing() {
    holds(Scene::Rotation);
}

#[test]
fn a_power_cut_on_a_full_disk_loses_and_doubles_nothing() {
    holds(Scene::FullDisk);
}

/// The control: an explorer that finds nothing there would find nothing anywhere.
#[test]
fn without_the_syncs_the_explorer_finds_losses() {
    let _alone = RUNNING.blocking_write();
    for lost in ["files", "directories"] {
        let set = [("POWERCUT_LOSE", lost)];
        let found = explore_all(&[Scene::Steady, Scene::Restarts], states() / 3, &set, 2);
        println!(
            "control, syncs of {lost} taken out: {} states, violations in {} {:?}",
            found.states, found.wrong, found.kinds
        );
        assert!(
            found.kinds.contains_key("Lost"),
            "{lost}: {:?}",
            found.kinds
        );
    }
}

/// What escapes the shim would be a blind spot.
#[test]
fn the_log_replayed_is_the_directory() {
    for scene in SCENES {
        let (place, entries) = play(scene, 8, &mut dice(3), &[]);
        let mut disk = Disk::new(place.root());
        entries.iter().for_each(|entry| disk.apply(entry));
        let replayed = scratch();
        disk.write_seen(replayed.path());
        let (there, told) = (contents(place.root()), contents(replayed.path()));
        assert!(
            there.keys().eq(told.keys()),
            "{scene:?}: {:?} and {:?}",
            there.keys(),
            told.keys()
        );
        for (name, bytes) in &there {
            assert!(
                *bytes == told[name],
                "{scene:?}: {} differs",
                name.display()
            );
        }
        assert!(
            there.contains_key(Path::new("spool/FORMAT")),
            "{scene:?}: {:?}",
            there.keys()
        );
    }
}

#[test]
fn each_receipt_comes_after_a_sync_of_the_file_that_has_the_record() {
    let mut receipts = 0;
    for (salt, group) in GROUPS.into_iter().enumerate() {
        let (_place, entries) = play(Scene::Restarts, group, &mut dice(4 + salt as u64), &[]);
        // The file that a record was written to last, and whether that was synced since.
        let mut written: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
        for entry in &entries {
            match entry {
                Entry::Write { inode, bytes, .. } => {
                    for id in Note::ids_in(bytes) {
                        // A later copy does not undo the sync of an earlier one.
                        let place = written.entry(id).or_insert((*inode, false));
                        place.0 = if place.1 { place.0 } else { *inode };
                    }
                }
                Entry::Sync { inode } => {
                    let of_it = written.values_mut().filter(|(file, _)| file == inode);
                    of_it.for_each(|(_, synced)| *synced = true);
                }
                Entry::Note(text) => {
                    if let Some(id) = text.strip_prefix("ack ") {
                        let synced = written
                            .get(&id.parse().unwrap())
                            .is_some_and(|(_, synced)| *synced);
                        assert!(synced, "record {id} was acknowledged and not synced");
                        receipts += 1;
                    }
                }
                _ => {}
            }
        }
    }
    println!("order: {receipts} receipts, each after a sync of its record's file");
    assert!(receipts > 0);
}
