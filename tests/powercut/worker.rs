//! An application in a process of its own, over whose file operations the shim keeps books.
//!
//! What it was promised and what was delivered it notes in the same log, by opening
//! [names](note_down) that are not there.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use seawall::{
    Error,
    chaos::wait_until,
    classify::{Class, Landed, Verdict},
    spool::{Ack, Applied, Batch, Receipt, Replay, Spool, SpoolLayer, SpoolOptions},
};
use serde::{Deserialize, Serialize};
use tempfile::{NamedTempFile, TempDir};
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};

use super::{
    disk::{contents, write_sparse},
    note::{LIFE, Note},
    shim,
};

/// What one life of the worker does. All records are acknowledged when the disk has them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) dir: PathBuf,
    /// Which life it is: its records are told from those of others by it.
    pub(crate) life: u64,
    /// How many records are on their way to the disk at a time.
    pub(crate) group: usize,
    pub(crate) steps: Vec<Step>,
    /// How large a generation gets.
    pub(crate) generation: u64,
}

/// More than any life here writes.
pub(crate) const LARGE: u64 = 64 << 20;
/// As small as can be.
pub(crate) const SMALL: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Step {
    /// So many records, each of so many bytes if that is not 0.
    Append(u64, usize),
    /// The far end, which is out otherwise, takes so many batches, or all that there is.
    Take(u64),
    /// The end, in order.
    Close,
    /// The end, in the middle of everything.
    Exit,
}

/// As the explorer opens it too, so that both know the same spool.
pub(crate) fn options(dir: &Path, generation: u64) -> SpoolOptions {
    let millis = Duration::from_millis;
    SpoolOptions::new(dir.join("spool"))
        .with_generation_bytes(generation)
        .with_ack(Ack::Spooled)
        .with_max_batch(16, 1 << 20)
        .with_replay(Replay::unpaced().with_delays(millis(1), millis(2)))
}

/// A worker's directory and its log, where files cost least.
pub(crate) struct Place {
    root: TempDir,
    log: NamedTempFile,
    life: u64,
}

/// What there is to set about a worker beyond its orders: see `shim.c`.
pub(crate) type Setting<'a> = (&'a str, &'a str);

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            root: scratch(),
            log: NamedTempFile::new_in(memory()).unwrap(),
            life: 0,
        }
    }

    /// Another one with the same files, and the same past.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self {
            life: self.life,
            ..Self::new()
        };
        fs::copy(self.log(), copy.log()).unwrap();
        for (name, bytes) in contents(self.root()) {
            let path = copy.root().join(name);
            match bytes {
                Some(bytes) => write_sparse(&path, &bytes),
                None => fs::create_dir(&path).unwrap(),
            }
        }
        copy
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn log(&self) -> &Path {
        self.log.path()
    }

    /// Orders for a life that has not been lived yet.
    pub(crate) fn orders(&mut self, group: usize, steps: &[Step]) -> Orders {
        self.life += 1;
        Orders {
            dir: self.root().to_owned(),
            life: self.life,
            group,
            steps: steps.to_vec(),
            generation: LARGE,
        }
    }

    /// A worker that is yet to be started, by `program` if there is one, with its arguments.
    pub(crate) fn command(
        &self,
        orders: &Orders,
        before: &[String],
        set: &[Setting<'_>],
    ) -> Command {
        let worker = env::current_exe().unwrap();
        let mut command = match before {
            [] => Command::new(worker),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(worker);
                command
            }
        };
        command
            .args(["--exact", "worker::the_worker", "--nocapture"])
            .env(ORDERS, serde_json::to_string(orders).unwrap())
            .env("LD_PRELOAD", shim::path())
            .env("POWERCUT_ROOT", self.root())
            .env("POWERCUT_LOG", self.log())
            .envs(set.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Lives a life to its end.
    pub(crate) fn run(&self, orders: &Orders, set: &[Setting<'_>]) -> ExitStatus {
        self.command(orders, &[], set).status().unwrap()
    }
}

/// A directory without symbolic links in its name.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in(memory()).unwrap()
}

fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let chosen = if memory.is_dir() {
        memory
    } else {
        &*env::temp_dir()
    };
    chosen.canonicalize().unwrap()
}

const ORDERS: &str = "SEAWALL_POWERCUT_ORDERS";

/// Not a test: what a [`Place`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker() {
    if let Ok(orders) = env::var(ORDERS) {
        let orders: Orders = serde_json::from_str(&orders).unwrap();
        tokio::spawn(orders.carry_out()).await.unwrap();
    }
}

impl Orders {
    pub(crate) fn with_generation(mut self, bytes: u64) -> Self {
        self.generation = bytes;
        self
    }

    async fn carry_out(self) {
        note_down("open");
        let spool = match Spool::open(options(&self.dir, self.generation)).await {
            Ok(spool) => spool,
            Err(error) => return note_down(&format!("refused {error}")),
        };
        let far = Arc::new(Mutex::new(0));
        let service = service_fn({
            let far = far.clone();
            move |batch| std::future::ready(take(&mut far.lock(), &batch))
        });
        let mut spooling = SpoolLayer::new(&spool).layer(service);
        let mut next = self.life * LIFE;
        for step in &self.steps {
            match *step {
                Step::Append(count, bytes) => {
                    let (end, mut in_vain) = (next + count, 0);
                    while next < end && in_vain < ENOUGH {
                        let group = next..end.min(next + self.group as u64);
                        next = group.end;
                        let mut answers = Vec::new();
                        for id in group {
                            let usual = bytes == 0;
                            let note = if usual {
                                Note::usual(id)
                            } else {
                                Note::new(id, bytes)
                            };
                            note_down(&format!("call {id}"));
                            let answer = spooling.ready().await.unwrap().call(note);
                            answers.push(async move { tell(id, &answer.await) });
                        }
                        let kept = join_all(answers).await.contains(&true);
                        in_vain = if kept { 0 } else { in_vain + 1 };
                    }
                }
                Step::Take(batches) => {
                    *far.lock() = batches;
                    let taken = || async { *far.lock() == 0 || spool.stats().records == 0 };
                    // A spool whose disk has failed may never get there, and need not.
                    let patience = if batches == u64::MAX {
                        4 * PATIENCE
                    } else {
                        PATIENCE
                    };
                    let _ = wait_until("what was to be taken", patience, taken).await;
                    *far.lock() = 0;
                }
                Step::Close => {
                    let left = spool.shutdown(Duration::ZERO).await;
                    note_down(&format!("closed {left:?}"));
                }
                Step::Exit => note_down("!exit"),
            }
        }
    }
}

const PATIENCE: Duration = Duration::from_millis(500);
/// So many groups of records, one after the other, that the disk did not take: no more are tried.
const ENOUGH: u32 = 4;

/// Whether the record was acknowledged.
fn tell(id: u64, answer: &Result<Receipt, Error>) -> bool {
    match answer {
        Ok(_) => note_down(&format!("ack {id}")),
        Err(error) if error.may_have_landed() => note_down(&format!("maybe {id}")),
        Err(_) => note_down(&format!("no {id}")),
    }
    answer.is_ok()
}

/// The worker's far end carries out each batch that gets to it, once: what it is sent again here is
/// a matter of this process and not of its disk.
fn take(batches: &mut u64, batch: &Batch<Note>) -> Result<Applied, Error> {
    let lane = batch.lane();
    if batch.ends_lane() {
        note_down(&format!("end {lane}"));
        return Ok(Applied::all());
    }
    if *batches == 0 {
        return Err(outage());
    }
    *batches -= 1;
    for (number, note) in batch.iter() {
        let note = note.expect("no record expires");
        note_down(&format!("sent {lane} {number} {} {}", note.id, note.intact));
    }
    Ok(Applied::all())
}

pub(crate) fn outage() -> Error {
    Error::foreign(Verdict::new(Class::Outage, Landed::No), "out")
}

/// Into the log.
fn note_down(text: &str) {
    let _ = File::open(format!("/powercut/{text}"));
}
