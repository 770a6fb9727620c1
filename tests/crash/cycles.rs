//! Killed a thousand times in one and the same directory, with whatever it did in between.
//!
//! `SEAWALL_CYCLES=1000` kills as often; `SEAWALL_SEED=7` is the only sequence of dice that is thrown.

use std::{env, fs, path::Path, time::Duration};

use rand::{Rng as _, rngs::SmallRng, seq::IndexedRandom as _};
use seawall::chaos::{Fault, FaultProxy, RedisServer};

use super::{
    app::{App, End, Line},
    dice,
    scene::{Scene, durable},
};

/// How often an app is started in a directory before its books are balanced, and a new one is begun.
const IN_ONE_DIRECTORY: u64 = 250;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_killed_a_thousand_times_as_it_opens_spools_replays_rotates_and_closes_loses_nothing()
 {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let cycles = number("SEAWALL_CYCLES").unwrap_or(40);
    let mut seed = number("SEAWALL_SEED").unwrap_or(0);
    let mut redis = durable().await;
    let mut sum = Sum::default();
    while sum.cycles < cycles {
        let count = IN_ONE_DIRECTORY.min(cycles - sum.cycles);
        live(&mut redis, seed, count, &mut sum).await;
        seed += 1;
        println!("{sum}");
    }
}

/// What came of it.
#[derive(Debug, Default)]
struct Sum {
    cycles: u64,
    kills: u64,
    /// Between the first thing that opening does, and the last.
    inside_open: u64,
    inside_close: u64,
    acknowledged: u64,
    delivered: u64,
    lost: u64,
    duplicated: u64,
    /// Of a directory at the end of a cycle, the most.
    generations: u64,
    files: u64,
    bytes: u64,
    /// The first and the last in each directory, in turns.
    openings: Vec<Duration>,
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let quarter = (self.openings.len() / 4).max(1);
        let median = |times: &[Duration]| {
            let mut times = times.to_vec();
            times.sort_unstable();
            times.get(times.len() / 2).copied().unwrap_or_default()
        };
        write!(
            f,
            "cycles={} kills={} inside_open={} inside_close={} acknowledged={} delivered={} lost={} \
             duplicated={}; at most {} generations, {} files, {} bytes; opening took {:?} in the \
             first quarter, {:?} in the last",
            self.cycles,
            self.kills,
            self.inside_open,
            self.inside_close,
            self.acknowledged,
            self.delivered,
            self.lost,
            self.duplicated,
            self.generations,
            self.files,
            self.bytes,
            median(&self.openings[..quarter.min(self.openings.len())]),
            median(&self.openings[self.openings.len().saturating_sub(quarter)..]),
        )
    }
}

/// Many lives of an app in one directory.
async fn live(redis: &mut RedisServer, seed: u64, cycles: u64, sum: &mut Sum) {
    let mut dice = dice(seed);
    let proxy = FaultProxy::start(redis.addr()).await.unwrap();
    let mut scene = Scene::new(redis, seed).await;
    for cycle in 0..cycles {
        weather(&mut scene, &proxy, &mut dice).await;
        let padding = *[0, 300, 4_000, 40_000].choose(&mut dice).unwrap();
        let mut orders = scene.orders(dice.random_range(1..1_000_000 / (padding as u64 + 1_000)));
        orders.url = proxy.url();
        orders.padding = padding;
        orders.window = dice.random_range(1..100);
        orders.max_batch = dice.random_range(1..100);
        orders.spool_after_ms = dice.random_range(1..30);
        orders.generation_bytes = 1 << dice.random_range(20..24);
        orders.end = *[
            End::Stay,
            End::Flush,
            End::Shutdown(dice.random_range(0..10)),
        ]
        .choose(&mut dice)
        .unwrap();
        let closes = matches!(orders.end, End::Shutdown(_));
        let some = Duration::from_micros(dice.random_range(0..40_000));
        let mut app = scene.start(&orders);
        let end = if cycle % 2 == 0 {
            // From its start, or from its opening: loading the program takes some of the time.
            if dice.random_bool(0.5) {
                app.says(Line::Opening).await;
            }
            app.listen(some).await;
            Moment::Early
        } else if dice.random_bool(0.3) {
            // Opening may take longer.
            app.listen(some * dice.random_range(1..10)).await;
            Moment::Early
        } else if closes {
            app.receipts(orders.count).await;
            if dice.random_bool(0.3) {
                Moment::Ended
            } else {
                app.listen(some).await;
                Moment::Close
            }
        } else {
            app.receipts(dice.random_range(0..=orders.count)).await;
            app.listen(some).await;
            Moment::Work
        };
        note(&mut app, end, sum).await;
        let found = look(&orders.dir);
        sum.generations = sum.generations.max(found.generations);
        sum.files = sum.files.max(found.files);
        sum.bytes = sum.bytes.max(found.bytes);
        assert_eq!(found.strangers, [""; 0], "seed {seed}, cycle {cycle}");
        assert!(
            found.generations <= 32 && found.files <= 32 * 6,
            "seed {seed}, cycle {cycle}: {found:?}"
        );
        assert_eq!(
            fs::read_dir(orders.dir.join("quarantine"))
                .into_iter()
                .flatten()
                .count(),
            0,
            "seed {seed}, cycle {cycle}: a kill damages nothing"
        );
    }
    proxy.heal();
    let balance = scene.settle(seed).await;
    sum.acknowledged += balance.acknowledged;
    sum.delivered += balance.delivered;
    sum.lost += balance.lost;
    sum.duplicated += balance.duplicated;
    scene.clear().await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Early,
    Work,
    Close,
    Ended,
}

/// Ends the app in the one way or the other, and counts what it was.
async fn note(app: &mut App, moment: Moment, sum: &mut Sum) {
    let is_kill = moment != Moment::Ended;
    if is_kill {
        app.kill_now().await;
    } else {
        app.end().await;
    }
    assert_eq!(app.complaint, None, "{}", app.stderr());
    sum.cycles += 1;
    sum.kills += u64::from(is_kill);
    sum.inside_open += u64::from(app.opening.is_some() && app.open.is_none());
    sum.inside_close += u64::from(moment == Moment::Close && app.left.is_none());
    if let (Some(opening), Some(open)) = (app.opening, app.open) {
        sum.openings.push(open - opening);
    }
}

/// Redis comes and goes, mostly between two lives and sometimes in the middle of one.
async fn weather(scene: &mut Scene<'_>, proxy: &FaultProxy, dice: &mut SmallRng) {
    if dice.random_bool(0.1) {
        if scene.redis.is_running() {
            scene.redis.kill().await.unwrap();
        } else {
            scene.redis.restart().await.unwrap();
        }
    }
    // Outages last for some lives, so that what these leave adds up.
    if dice.random_bool(0.9) {
        return;
    }
    let faults = [
        Fault::None,
        Fault::None,
        Fault::None,
        Fault::BlackHole,
        Fault::Refuse,
        Fault::Reset,
        Fault::DropNextReply,
        Fault::CutRequestAfter(dice.random_range(0..200_000)),
    ];
    proxy.set(*faults.choose(dice).unwrap());
}

/// What is in the directory of a spool.
#[derive(Debug, Default)]
struct Found {
    generations: u64,
    files: u64,
    bytes: u64,
    /// What has no business there.
    strangers: Vec<String>,
}

fn look(dir: &Path) -> Found {
    let mut found = Found::default();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let known = ["LOCK", "FORMAT", "CLEAN", "BALLAST", "quarantine"];
        let is_new = |name: &str| {
            let whole = name.strip_suffix(".new");
            whole.is_some_and(|name| known.contains(&name))
        };
        if name.starts_with("gen-") {
            found.generations += 1;
            let blobs = fs::read_dir(entry.path().join("blobs"));
            assert_eq!(blobs.into_iter().flatten().count(), 0, "{name}");
        } else if !known.contains(&&*name) && !is_new(&name) {
            found.strangers.push(name);
        }
        count(&entry.path(), &mut found);
    }
    found
}

fn count(path: &Path, found: &mut Found) {
    let metadata = fs::metadata(path).unwrap();
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            count(&entry.unwrap().path(), found);
        }
    } else {
        found.files += 1;
        found.bytes += metadata.len();
    }
}
