//! The producer processes, as seen by the program that starts, kills and restarts them.

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use seawall::error::BoxError;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    journal::{self, Entry},
    produce::{Level, Order, Setup, Word},
};

/// What the producers of a run have in common.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) url: String,
    /// Jobs a second over all of them.
    pub(crate) rate: f64,
    pub(crate) repair: bool,
    /// What they do from the start.
    pub(crate) order: Order,
}

#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) setup: Setup,
    /// Whether it is killed with SIGKILL now and then.
    pub(crate) victim: bool,
    pub(crate) kills: u32,
    order: Order,
    life: Option<Life>,
}

#[derive(Debug)]
struct Life {
    child: Child,
    orders: ChildStdin,
    /// The last thing that it said.
    said: watch::Receiver<Word>,
    _hearing: AbortOnDropHandle<()>,
}

/// For each level a producer that is left alone, and with `victims` one that is killed now and then.
pub(crate) async fn start(
    load: &Load,
    prefix: &str,
    levels: &[Level],
    victims: bool,
    dir: &Path,
) -> Result<Vec<Producer>, BoxError> {
    let roles: &[_] = if victims { &[false, true] } else { &[false] };
    let mut producers = Vec::new();
    for level in levels {
        for victim in roles.iter().copied() {
            let role = if victim { "victim" } else { "steady" };
            let name = format!("{prefix}{}-{role}", level.name());
            let setup = Setup {
                url: load.url.clone(),
                spool: dir.join(&name),
                journal: dir.join(format!("{name}.journal")),
                level: *level,
                queues: QUEUES,
                rate: load.rate / (roles.len() * levels.len()) as f64,
                repair: load.repair,
                name,
            };
            producers.push(Producer::start(setup, victim, load.order).await?);
        }
    }
    Ok(producers)
}

/// Waits until all of them have delivered everything and ended.
pub(crate) async fn finish(producers: &mut [Producer]) -> Result<(), BoxError> {
    for producer in &mut *producers {
        producer.order(Order::FINISH).await?;
    }
    for producer in producers {
        producer.ended().await;
    }
    Ok(())
}

const QUEUES: usize = 3;

impl Producer {
    async fn start(setup: Setup, victim: bool, order: Order) -> Result<Self, BoxError> {
        let mut producer = Self {
            setup,
            victim,
            kills: 0,
            order,
            life: None,
        };
        producer.begin().await?;
        Ok(producer)
    }

    /// Starts its process, and waits until its spool is open.
    pub(crate) async fn begin(&mut self) -> Result<(), BoxError> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut child = Command::new(env::current_exe()?)
            .arg("--produce")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Of its own: a Ctrl-C at the terminal is for the program that judges.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (mut orders, answers) = pipes.ok_or("the producer has no pipes")?;
        say(&mut orders, &self.setup).await?;
        say(&mut orders, &self.order).await?;
        let (sender, said) = watch::channel(Word::Nothing);
        let hearing = AbortOnDropHandle::new(tokio::spawn(hear(answers, sender)));
        let mut life = Life {
            child,
            orders,
            said,
            _hearing: hearing,
        };
        let opens = life.said.wait_for(|word| *word != Word::Nothing);
        if !timeout(OPENS_WITHIN, opens)
            .await
            .is_ok_and(|open| open.is_ok())
        {
            let log = std::fs::read_to_string(self.log())?;
            return Err(format!("producer {} did not open: {log}", self.setup.name).into());
        }
        self.life = Some(life);
        Ok(())
    }

    /// What it and those before it wrote to their standard error.
    fn log(&self) -> PathBuf {
        self.setup.journal.with_extension("log")
    }

    /// SIGKILL, whatever it is doing.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        if let Some(mut life) = self.life.take() {
            life.child.kill().await?;
            self.kills += 1;
        }
        Ok(())
    }

    pub(crate) async fn order(&mut self, order: Order) -> Result<(), BoxError> {
        self.order = order;
        if let Some(life) = &mut self.life {
            say(&mut life.orders, &order).await?;
        }
        Ok(())
    }

    /// How often it has written down its counts.
    pub(crate) fn counts_written(&self) -> io::Result<usize> {
        Ok(self.counts()?.len())
    }

    /// Whether its counts say, after the first `count` times, that it keeps nothing that replicas lack.
    pub(crate) fn has_no_tail_since(&self, count: usize) -> io::Result<bool> {
        let counts = self.counts()?;
        let tail = counts.last().and_then(|counts| counts.get("tail"));
        Ok(counts.len() > count && tail == Some(&0))
    }

    fn counts(&self) -> io::Result<Vec<BTreeMap<String, u64>>> {
        let (entries, _) = journal::read(&self.setup.journal)?;
        let counts = entries.into_iter().filter_map(|entry| match entry {
            Entry::Counted(counts) => Some(counts),
            _ => None,
        });
        Ok(counts.collect())
    }

    /// Waits until a call of its own was answered at that port.
    pub(crate) async fn served_by(&mut self, port: u16) -> Result<(), BoxError> {
        let life = self.life.as_mut().ok_or("the producer does not live")?;
        let served = life.said.wait_for(|word| *word == Word::ServedBy(port));
        timeout(SERVED_WITHIN, served).await??;
        Ok(())
    }

    /// Waits until its process is gone: whether in order is in its journal. One that hangs is killed.
    async fn ended(&mut self) {
        if let Some(mut life) = self.life.take() {
            let _ = timeout(ENDS_WITHIN, life.child.wait()).await;
        }
    }
}

/// Until the process ends.
async fn hear(answers: ChildStdout, sender: watch::Sender<Word>) {
    let mut lines = BufReader::new(answers).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(word) = serde_json::from_str(&line) {
            let _ = sender.send(word);
        }
    }
}

async fn say(orders: &mut ChildStdin, what: &impl serde::Serialize) -> Result<(), BoxError> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    orders.write_all(&line).await?;
    Ok(())
}

const SERVED_WITHIN: Duration = Duration::from_secs(60);
const OPENS_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(180);
