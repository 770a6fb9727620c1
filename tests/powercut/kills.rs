//! Kills a worker before each system call that changes something.
//!
//! Once through the shim, which counts the changes of all threads together, and once through strace,
//! which sees what does not go through libc, and counts for each thread, call and file by itself.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, ExitStatus},
};

use super::{
    RUNNING, dice,
    facts::{Facts, Violation},
    judge::{judge, watch},
    log, sampled,
    worker::{Orders, Place, SMALL, Step},
};

/// What the worker that is killed finds there.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    /// A spool that was closed, with records.
    Closed,
    /// A spool that was not.
    Crashed,
}

const BEFORE: [Before; 3] = [Before::Nothing, Before::Closed, Before::Crashed];

/// An opening, some of all that happens, and an end in order.
const LIFE: [Step; 6] = [
    Step::Append(6, 0),
    Step::Take(2),
    // Larger than a generation.
    Step::Append(5, 250_000),
    Step::Append(4, 0),
    Step::Take(u64::MAX),
    Step::Close,
];

impl Before {
    fn place(self) -> Place {
        let mut place = Place::new();
        let end = match self {
            Self::Nothing => return place,
            Self::Closed => Step::Close,
            Self::Crashed => Step::Exit,
        };
        let life = [Step::Append(20, 0), Step::Take(1), Step::Append(9, 0), end];
        let orders = place.orders(4, &life);
        assert!(place.run(&orders, &[]).success(), "the worker fails");
        place
    }
}

#[derive(Default)]
struct Found {
    kills: u64,
    acknowledged: usize,
    wrong: Vec<String>,
}

impl Found {
    /// Looks at what a worker has left that was killed, or was to be. Says whether it was.
    async fn look(&mut self, place: &Place, ended: ExitStatus, what: &str) -> bool {
        if ended.success() {
            return false;
        }
        assert_eq!(ended.signal(), Some(9), "{what}: the worker fails");
        self.kills += 1;
        let facts = Facts::of(&log::read(place.log()));
        self.acknowledged += facts.acknowledged.len();
        let violations: Vec<Violation> = judge(place.root(), facts, &mut dice(self.kills)).await;
        if !violations.is_empty() {
            let (some, all) = (&violations[..violations.len().min(3)], violations.len());
            self.wrong.push(format!("{what}: {some:?}, {all} in all"));
        }
        true
    }

    fn tell(&self, what: &str) {
        println!(
            "{what}: {} kills, {} records acknowledged before them; violations after {}",
            self.kills,
            self.acknowledged,
            self.wrong.len()
        );
        assert!(self.kills > 0, "{what}: nothing was killed");
        assert!(self.wrong.is_empty(), "{what}: {:#?}", self.wrong);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_before_any_change_of_a_file_loses_and_doubles_nothing() {
    let _others = RUNNING.read().await;
    watch();
    let mut found = Found::default();
    for before in BEFORE {
        let start = before.place();
        let mut number = 0;
        loop {
            // A sample of a third, another one for each start.
            number += sampled(1, 3 + u64::from(number % 2 == 0));
            let mut place = start.copy();
            let orders = place.orders(2, &LIFE).with_generation(SMALL);
            let ended = place.run(&orders, &[("POWERCUT_KILL", &number.to_string())]);
            let what = format!("{before:?}, killed before change {number}");
            if !found.look(&place, ended, &what).await {
                break;
            }
        }
    }
    found.tell("kills before each change");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_system_call_loses_and_doubles_nothing() {
    let _others = RUNNING.read().await;
    watch();
    let strace = Command::new("strace").arg("-V").output();
    assert!(
        strace.is_ok_and(|strace| strace.status.success()),
        "strace is missing: apt-get install --no-install-recommends strace"
    );
    let mut found = Found::default();
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    let mut turn = 0_u64;
    for before in BEFORE {
        let start = before.place();
        for ((call, path), times) in &calls(&start) {
            // One more, in case that a thread has more to do this time.
            for when in 1..=times + 1 {
                turn += 1;
                if !turn.is_multiple_of(sampled(1, 16)) {
                    continue;
                }
                let mut place = start.copy();
                let orders = place.orders(2, &LIFE).with_generation(SMALL);
                let file = place.root().join(path);
                let ended = killed_at(&place, &orders, call, &file, when);
                let what = format!("{before:?}, killed at {call} {when} of {}", path.display());
                if found.look(&place, ended, &what).await {
                    *kinds.entry(call.clone()).or_default() += 1;
                }
            }
        }
    }
    println!("kills by call: {kinds:?}");
    found.tell("kills at each system call");
}

/// Which calls meet which files, and how often a thread makes each.
fn calls(start: &Place) -> BTreeMap<(String, std::path::PathBuf), u64> {
    let mut place = start.copy();
    let orders = place.orders(2, &LIFE).with_generation(SMALL);
    let trace = tempfile::NamedTempFile::new().unwrap();
    let output = trace.path().to_str().unwrap();
    let calls = format!("trace={CALLS}");
    let strace = [
        "strace", "-f", "-qq", "-y", "-s0", "-o", output, "-e", &calls,
    ];
    let mut command = place.command(&orders, &strace.map(str::to_owned), &[]);
    assert!(
        command.status().unwrap().success(),
        "the worker fails under strace"
    );
    let trace = std::fs::read_to_string(trace.path()).unwrap();
    let mut times = BTreeMap::new();
    for line in trace.lines() {
        let mut words = line.split_whitespace();
        let (Some(thread), Some(said)) = (words.next(), words.next()) else {
            continue;
        };
        let Some((call, _)) = said.split_once('(') else {
            continue;
        };
        for path in paths(line, place.root()) {
            let key = (call.to_owned(), path.to_owned());
            *times.entry((key, thread)).or_insert(0) += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((key, _), times) in times {
        let most = most.entry(key).or_insert(0);
        *most = times.max(*most);
    }
    most
}

/// What `line` names below `root`, each once: `openat(.., "/root/a", ..)`, `write(3</root/a>, ..)`.
fn paths<'a>(line: &'a str, root: &Path) -> std::collections::BTreeSet<&'a Path> {
    let root = root.to_str().unwrap();
    let arguments = line
        .rsplit_once(" = ")
        .map_or(line, |(arguments, _)| arguments);
    let found = arguments.split(['"', '<', '>']);
    found
        .filter_map(|text| text.strip_prefix(root))
        .filter_map(|inner| inner.strip_prefix('/'))
        .map(Path::new)
        .collect()
}

/// Dead when a thread makes the call for the so-manieth time with that file.
fn killed_at(place: &Place, orders: &Orders, call: &str, file: &Path, when: u64) -> ExitStatus {
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:signal=KILL:when={when}");
    let file = file.to_str().unwrap();
    let strace = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        file,
        "-e",
        &trace,
        "-e",
        &inject,
    ];
    let mut command = place.command(orders, &strace.map(str::to_owned), &[]);
    command.status().unwrap()
}

/// Some of them are not there on every machine.
const CALLS: &str = "?open,openat,?creat,write,pwrite64,writev,pwritev,?pwritev2,ftruncate,?truncate,\
    fallocate,copy_file_range,sendfile,?rename,?renameat,renameat2,?unlink,unlinkat,?mkdir,mkdirat,\
    ?rmdir,?link,linkat,?chmod,fchmod,fchmodat,fsync,fdatasync,syncfs,sync_file_range,flock";
