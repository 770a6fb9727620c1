//! Writes and syncs that fail, once or for as long as it lasts.

use std::{collections::BTreeMap, path::Path};

use tokio::time::Instant;

use crate::{
    bounded, seeds,
    worker::{Orders, Worker, read_trace},
};

/// The system calls that change what is on disk, or say that it is there.
const CALLS: &[&str] = &[
    "pwrite64",
    "write",
    "fdatasync",
    "fsync",
    "sync_file_range",
    "ftruncate",
    "fallocate",
    "rename",
    "openat",
    "mkdir",
    "unlink",
    "unlinkat",
    "rmdir",
];

/// One fault.
#[derive(Clone, Copy, Debug)]
struct Fault {
    call: &'static str,
    error: &'static str,
    /// The how manieth call of a thread fails.
    when: usize,
    /// And all that come after it, until it is healed.
    lasts: bool,
    /// The call takes its time before it fails, if it fails.
    slow: bool,
}

impl Fault {
    fn arguments(self, dir: &Path) -> Vec<String> {
        let Self {
            call,
            error,
            when,
            lasts,
            slow,
        } = self;
        let more = if lasts { "+" } else { "" };
        let slow = if slow { ":delay_enter=300000" } else { "" };
        let mut arguments = of_the_spool(dir);
        arguments.extend(["-o".to_owned(), "/dev/null".to_owned()]);
        arguments.extend(["-e".to_owned(), format!("trace={call}")]);
        arguments.extend([
            "-e".to_owned(),
            format!("inject={call}:error={error}{slow}:when={when}{more}"),
        ]);
        arguments
    }
}

/// Nothing is meddled with but the spool's own files.
fn of_the_spool(dir: &Path) -> Vec<String> {
    let mut paths = vec![dir.to_owned(), dir.parent().unwrap().to_owned()];
    for name in [
        "LOCK",
        "FORMAT",
        "FORMAT.new",
        "CLEAN",
        "CLEAN.new",
        "BALLAST",
        "quarantine",
    ] {
        paths.push(dir.join(name));
    }
    for generation in 1..30 {
        let generation = dir.join(format!("gen-{generation}"));
        for name in ["db", "conf", "blobs", "snap.tmp"] {
            paths.push(generation.join(name));
        }
        paths.push(generation.with_extension("gone"));
        paths.push(generation);
    }
    let paths = paths.into_iter().map(|path| path.display().to_string());
    paths.flat_map(|path| ["-P".to_owned(), path]).collect()
}

/// How often a thread of a worker that nothing happens to does each of the calls.
fn counted() -> BTreeMap<&'static str, usize> {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("spool");
    let trace = scratch.path().join("trace");
    let mut arguments = of_the_spool(&dir);
    arguments.extend(["-o".to_owned(), trace.display().to_string()]);
    arguments.extend(["-e".to_owned(), format!("trace={}", CALLS.join(","))]);
    let mut worker = Worker::start(&Orders::new(&dir), &arguments);
    let ran = worker.until("loaded").and_then(|_| {
        worker.go();
        worker.until("left").and_then(|_| worker.end())
    });
    ran.unwrap();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let text = read_trace(&trace);
    for line in text.lines() {
        let (thread, rest) = line.split_once(' ').unwrap();
        let call = CALLS
            .iter()
            .find(|call| rest.trim_start().starts_with(&format!("{call}(")));
        if let Some(call) = call {
            *counts.entry((call, thread)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((call, _), count) in counts {
        let call = CALLS.iter().find(|other| **other == call).unwrap();
        let entry: &mut usize = most.entry(*call).or_default();
        *entry = count.max(*entry);
    }
    most
}

/// What one worker has gone through.
#[derive(Debug, Default)]
struct Figures {
    faults: usize,
    acknowledged: usize,
    refused: usize,
    uncertain: usize,
    delivered: usize,
    met: usize,
    broken_closes: usize,
    /// Those of sled, which are caught.
    panics: usize,
}

fn one(fault: Fault) -> Result<Figures, String> {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("spool");
    let mut worker = Worker::start(&Orders::new(&dir), &fault.arguments(&dir));
    // It may never get beyond opening.
    let (met, _) = worker.until_any(&["loaded", "closed"])?;
    if fault.lasts && met == 0 {
        worker.heal();
    } else if met == 1 {
        worker.heal();
        worker.until("loaded")?;
    }
    worker.go();
    worker.until("works")?;
    let lost = worker.until("drained")?;
    if lost != "0" {
        return Err(format!("{lost} said to be lost"));
    }
    // The close itself may be what fails, and says so.
    let (broken, left) = worker.until_any(&["left", "broken"])?;
    if broken == 0 && left != "0" {
        return Err(format!("{left} left"));
    }
    worker.end()?;
    let stderr = worker.stderr();
    let panics = stderr.lines().filter(|line| line.contains("panicked at"));
    if panics.clone().any(|line| !line.contains("/sled-")) {
        return Err(format!("a panic: {stderr}"));
    }
    let panics = panics.count();
    let said = std::mem::take(&mut worker.said);
    drop(worker);
    let figures = Figures {
        faults: 1,
        acknowledged: said.acknowledged.len(),
        refused: said.refused.len(),
        uncertain: said.uncertain.len(),
        delivered: said.delivered.len(),
        met: usize::from(!said.words.is_empty() || broken == 1),
        broken_closes: broken,
        panics,
    };
    bounded("settling", async move { said.settle(&dir).await })?;
    drop(scratch);
    Ok(figures)
}

#[test]
fn a_write_or_sync_that_fails_is_told_to_those_who_wait_and_nothing_acknowledged_is_lost() {
    let begun = Instant::now();
    let counts = counted();
    println!("{counts:?}");
    let mut faults = Vec::new();
    for (call, count) in &counts {
        for when in 1..=*count {
            for error in ["EIO", "ENOSPC"] {
                for (lasts, slow) in [(false, false), (true, false), (false, true)] {
                    if slow && !call.contains("sync") {
                        continue;
                    }
                    faults.push(Fault {
                        call,
                        error,
                        when,
                        lasts,
                        slow,
                    });
                }
            }
        }
    }
    let all = faults.len();
    let wanted = usize::try_from(seeds(20).end).unwrap();
    let step = (all / wanted).max(1);
    let mut figures = Figures::default();
    let mut bad = Vec::new();
    for fault in faults.into_iter().step_by(step) {
        match one(fault) {
            Ok(more) => {
                figures.faults += more.faults;
                figures.acknowledged += more.acknowledged;
                figures.refused += more.refused;
                figures.uncertain += more.uncertain;
                figures.delivered += more.delivered;
                figures.met += more.met;
                figures.broken_closes += more.broken_closes;
                figures.panics += more.panics;
            }
            Err(why) => {
                println!("{fault:?}: {why}");
                bad.push(fault);
            }
        }
    }
    println!(
        "injected: of {all} faults {figures:?} in {:?}",
        begun.elapsed()
    );
    assert!(
        bad.is_empty(),
        "{} of {}: {bad:#?}",
        bad.len(),
        bad.len() + figures.faults
    );
}
