//! The same records, durable, by other means: seawall's spool beside a plain file, fjall and redb used
//! the same way (one value for each 32 KiB of records, one sync for each batch), and sled as one would use it
//! at first, one value for each record.
//!
//! `cargo bench --features chaos --bench engines`

mod report;

use std::{fs::File, io::Write as _, path::Path, time::Duration};

use seawall::{Job, Seawall, spool::Ack};
use tokio::{
    runtime::{self, Runtime},
    time::Instant,
};

use report::{Report, Rounds, Row, Unit};

fn main() {
    let mut report = Report::new("engines");
    let rounds = report.sized(9, 1);
    let round = report.sized(Duration::from_millis(400), Duration::from_millis(20));
    report.condition("rounds", &rounds);
    report.condition("payload", &format!("{PAYLOAD} B"));
    report.condition(
        "durability",
        &"fdatasync, or what each calls that, after each batch",
    );

    for batch in [1, 64, 1024] {
        let dir = report::scratch();
        let path = |name: &str| dir.path().join(name);
        let mut engines: Vec<(&str, Box<dyn Engine>)> = vec![
            ("append + fdatasync", Box::new(Plain::open(&path("plain")))),
            ("seawall", Box::new(Spool::open(&path("spool")))),
            ("fjall", Box::new(Fjall::open(&path("fjall")))),
            ("redb", Box::new(Redb::open(&path("redb")))),
            (
                "sled, a value a record",
                Box::new(Sled::open(&path("sled"))),
            ),
        ];
        let mut rates: Vec<Rounds> = engines.iter().map(|_| Rounds::default()).collect();
        for _ in 0..rounds {
            // In turns, so that all of them meet the same mood of the machine.
            for ((_, engine), rates) in engines.iter_mut().zip(&mut rates) {
                rates.push(rate(&mut **engine, batch, round));
            }
        }
        let plain = rates[0].median();
        for ((name, _), rates) in engines.iter().zip(&mut rates).skip(1) {
            report.row(
                Row::new(
                    format!("{name}, {batch} a batch"),
                    Unit::PerSecond,
                    rates.median(),
                )
                .against("append + fdatasync", plain),
            );
        }
    }
    report.finish();
}

const PAYLOAD: usize = 256;

/// One value for so many bytes of records.
const CHUNK: usize = 32 << 10;

/// Keeps records, so that they survive the machine.
trait Engine {
    /// `count` records, all of them durable when it comes back.
    fn append(&mut self, count: usize);
}

fn rate(engine: &mut dyn Engine, batch: usize, round: Duration) -> f64 {
    let (began, mut records) = (Instant::now(), 0);
    while began.elapsed() < round {
        engine.append(batch);
        records += batch;
    }
    records as f64 / began.elapsed().as_secs_f64()
}

/// The records of a batch, in as many values as it takes.
fn values(count: usize) -> impl Iterator<Item = Vec<u8>> {
    let of_one = CHUNK / PAYLOAD;
    (0..count)
        .step_by(of_one)
        .map(move |begin| vec![b'x'; (count - begin).min(of_one) * PAYLOAD])
}

struct Plain(File);

impl Plain {
    fn open(path: &Path) -> Self {
        Self(File::create(path).expect("a file"))
    }
}

impl Engine for Plain {
    fn append(&mut self, count: usize) {
        for value in values(count) {
            self.0.write_all(&value).expect("there is room");
        }
        self.0.sync_data().expect("the disk works");
    }
}

struct Spool {
    runtime: Runtime,
    seawall: Seawall,
}

impl Spool {
    fn open(path: &Path) -> Self {
        // On one thread nothing is taken before the whole batch is in, so that each is one write.
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let connecting = async {
            Seawall::builder("redis://127.0.0.1:1", path)
                .expect("the settings are right")
                .spool(|options| {
                    options
                        .with_ack(Ack::Spooled)
                        .with_max_records(u64::MAX)
                        .with_max_bytes(u64::MAX)
                })
                .connect()
                .await
                .expect("the spool opens")
        };
        let seawall = runtime.block_on(connecting);
        Self { runtime, seawall }
    }
}

impl Engine for Spool {
    fn append(&mut self, count: usize) {
        let jobs = (0..count).map(|_| Job::new("emails", vec![b'x'; PAYLOAD]));
        let receipts = self.runtime.block_on(self.seawall.enqueue_all(jobs));
        assert!(receipts.iter().all(Result::is_ok), "it is taken");
    }
}

struct Fjall {
    keyspace: fjall::Keyspace,
    partition: fjall::PartitionHandle,
    next: u64,
}

impl Fjall {
    fn open(path: &Path) -> Self {
        let keyspace = fjall::Config::new(path).open().expect("fjall opens");
        let partition = keyspace
            .open_partition("records", fjall::PartitionCreateOptions::default())
            .expect("a partition");
        Self {
            keyspace,
            partition,
            next: 0,
        }
    }
}

impl Engine for Fjall {
    fn append(&mut self, count: usize) {
        let mut batch = self.keyspace.batch();
        for value in values(count) {
            batch.insert(&self.partition, self.next.to_be_bytes(), value);
            self.next += 1;
        }
        batch.commit().expect("fjall commits");
        self.keyspace
            .persist(fjall::PersistMode::SyncData)
            .expect("fjall syncs");
    }
}

struct Redb {
    database: redb::Database,
    next: u64,
}

const RECORDS: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("records");

impl Redb {
    fn open(path: &Path) -> Self {
        Self {
            database: redb::Database::create(path).expect("redb opens"),
            next: 0,
        }
    }
}

impl Engine for Redb {
    fn append(&mut self, count: usize) {
        let writing = self.database.begin_write().expect("redb writes");
        {
            let mut table = writing.open_table(RECORDS).expect("a table");
            for value in values(count) {
                table.insert(self.next, &*value).expect("redb inserts");
                self.next += 1;
            }
        }
        // Durable at once is its default.
        writing.commit().expect("redb commits");
    }
}

struct Sled {
    db: sled::Db,
    file: File,
    next: u64,
}

impl Sled {
    fn open(path: &Path) -> Self {
        let db = sled::open(path).expect("sled opens");
        let file = File::open(path.join("db")).expect("sled's file");
        Self { db, file, next: 0 }
    }
}

impl Engine for Sled {
    fn append(&mut self, count: usize) {
        let mut batch = sled::Batch::default();
        for _ in 0..count {
            batch.insert(&self.next.to_be_bytes(), vec![b'x'; PAYLOAD]);
            self.next += 1;
        }
        self.db.apply_batch(batch).expect("sled applies");
        self.db.flush().expect("sled flushes");
        // Its flush does not reach the disk.
        self.file.sync_data().expect("the disk works");
    }
}
