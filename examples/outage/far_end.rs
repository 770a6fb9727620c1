//! What Redis holds at the end, read page by page and left where it is.

use std::collections::HashMap;

use redis::{RedisResult, aio::MultiplexedConnection};
use seawall::chaos::{Books, RedisServer};

use crate::producers::{Place, QUEUES, Queue};

/// Writes down everything that has arrived, in the order in which it stands there.
pub(crate) async fn read(redis: &RedisServer, books: &Books) -> RedisResult<()> {
    let mut connection = redis.connection().await?;
    for (at, Queue { name, stream }) in QUEUES.into_iter().enumerate() {
        let enter = |payload: &[u8]| match Place::read(at, payload) {
            Some(place) => books.deliver((place.lane(), place.number())),
            // Counted as unexpected: nobody has attempted it.
            None => books.deliver(("not a job of ours", 0)),
        };
        if stream {
            read_stream(&mut connection, name, enter).await?;
        } else {
            read_list(&mut connection, name, enter).await?;
        }
    }
    Ok(())
}

async fn read_list(
    connection: &mut MultiplexedConnection,
    key: &str,
    enter: impl Fn(&[u8]),
) -> RedisResult<()> {
    for start in (0..).step_by(PAGE) {
        let mut range = redis::cmd("LRANGE");
        range.arg(key).arg(start).arg(start + PAGE - 1);
        let page: Vec<Vec<u8>> = range.query_async(connection).await?;
        page.iter().for_each(|payload| enter(payload));
        if page.len() < PAGE {
            break;
        }
    }
    Ok(())
}

async fn read_stream(
    connection: &mut MultiplexedConnection,
    key: &str,
    enter: impl Fn(&[u8]),
) -> RedisResult<()> {
    let mut after = String::from("-");
    loop {
        let mut range = redis::cmd("XRANGE");
        range.arg(key).arg(&after).arg("+").arg("COUNT").arg(PAGE);
        let page: Vec<(String, HashMap<String, Vec<u8>>)> = range.query_async(connection).await?;
        for (_, fields) in &page {
            enter(fields.get("payload").map_or(&[], Vec::as_slice));
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => after = format!("({last}"),
            _ => return Ok(()),
        }
    }
}

const PAGE: usize = 2_000;
