//! The least an application has to do: one job, enqueued whether Redis is up or not.
//!
//! ```text
//! cargo run --example quickstart                             # redis://127.0.0.1:6379
//! cargo run --example quickstart -- redis://:secret@host/2
//! ```
//!
//! With Redis up it says `Delivered`. With Redis down it says `Spooled`, a moment later and not with an
//! error: the job is on the local disk. Start Redis and run it again: the job of the first run is
//! delivered before that of the second.
#![allow(clippy::print_stdout, reason = "a program, not the library")]

use std::{env, time::Duration};

use seawall::{Job, Seawall};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::args()
        .nth(1)
        .or_else(|| env::var("SEAWALL_REDIS_URL").ok());
    let url = url.unwrap_or_else(|| "redis://127.0.0.1:6379".into());
    let spool = env::temp_dir().join("seawall-quickstart");

    let seawall = Seawall::builder(&url, &spool)?.connect().await?;
    // Optional: without it, the first jobs of a fresh start may take the way over the disk.
    if let Err(error) = seawall
        .connection()
        .wait_ready(Duration::from_secs(1))
        .await
    {
        println!("starting without Redis: {error}");
    }

    let receipt = seawall.enqueue(Job::new("emails", "hello")).await?;
    println!("{:?}", receipt.place()); // Delivered, or Spooled while Redis is out

    let left = seawall.shutdown(Duration::from_secs(5)).await?;
    println!("{left} jobs wait in {} for the next run", spool.display());
    Ok(())
}
