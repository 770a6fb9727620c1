//! What a worker process notes about its executions, on the local disk: [`Diary`] writes, [`Execution`]s are read.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// How an execution has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Succeeded,
    Failed,
    /// Its future was dropped.
    Cancelled,
}

/// One execution, by the notes of the worker that made it.
#[derive(Clone, Debug)]
pub(super) struct Execution {
    pub(super) worker: String,
    pub(super) job: u64,
    pub(super) attempt: u32,
    pub(super) began: u64,
    /// When and how; nothing if the worker did not come so far.
    pub(super) ended: Option<(u64, Ended)>,
}

/// Appends a line for each beginning and each end. What is written is safe from a kill, though not from a power cut.
#[derive(Clone)]
pub(super) struct Diary(Arc<File>);

impl Diary {
    pub(super) fn open(path: &Path) -> Self {
        let file = File::options().create(true).append(true).open(path);
        Self(Arc::new(file.unwrap()))
    }

    pub(super) fn begin(&self, job: u64, attempt: u32) -> Note {
        self.write(&format!("begun {} {job} {attempt}\n", now()));
        Note {
            diary: self.clone(),
            job,
            attempt,
            ended: Ended::Cancelled,
        }
    }

    /// The process was not given the processor, or was stopped, from then to then.
    pub(super) fn stalled(&self, from: u64, to: u64) {
        self.write(&format!("stalled {from} {to}\n"));
    }

    fn write(&self, line: &str) {
        // In one piece, as all that is appended is.
        (&*self.0).write_all(line.as_bytes()).unwrap();
    }
}

/// An execution that is going on. Its end is noted when this is dropped.
pub(super) struct Note {
    diary: Diary,
    job: u64,
    attempt: u32,
    ended: Ended,
}

impl Note {
    pub(super) fn end(mut self, ended: Ended) {
        self.ended = ended;
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let (job, attempt) = (self.job, self.attempt);
        let how = match self.ended {
            Ended::Succeeded => "succeeded",
            Ended::Failed => "failed",
            Ended::Cancelled => "cancelled",
        };
        self.diary
            .write(&format!("{how} {} {job} {attempt}\n", now()));
    }
}

/// All that `worker` has noted: its executions, and when it was stalled.
pub(super) fn read(path: &Path, worker: &str) -> (Vec<Execution>, Vec<(u64, u64)>) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let (mut executions, mut stalls) = (Vec::<Execution>::new(), Vec::new());
    for line in text.lines() {
        let (word, numbers) = line.split_once(' ').unwrap();
        let numbers: Vec<u64> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
        let ended = match word {
            "begun" => {
                executions.push(Execution {
                    worker: worker.to_owned(),
                    began: numbers[0],
                    job: numbers[1],
                    attempt: u32::try_from(numbers[2]).unwrap(),
                    ended: None,
                });
                continue;
            }
            "stalled" => {
                stalls.push((numbers[0], numbers[1]));
                continue;
            }
            "succeeded" => Ended::Succeeded,
            "failed" => Ended::Failed,
            "cancelled" => Ended::Cancelled,
            _ => panic!("not a word of a diary: {line}"),
        };
        let of_it = |execution: &&mut Execution| {
            execution.ended.is_none()
                && execution.job == numbers[1]
                && u64::from(execution.attempt) == numbers[2]
        };
        let execution = executions.iter_mut().find(of_it).unwrap();
        execution.ended = Some((numbers[0], ended));
    }
    (executions, stalls)
}

/// Microseconds since 1970: the processes of a test are on one machine.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}
