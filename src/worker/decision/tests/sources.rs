//! What other job queues document, told as here and executed on a paused clock: the same executions, delays and ends.

use tokio::time::{Instant, sleep};

use super::*;

/// How a job went.
#[derive(Debug, PartialEq)]
struct Story {
    executions: u32,
    /// From each execution to the next one, in seconds.
    waits: Vec<f64>,
    end: End,
}

#[derive(Debug, PartialEq)]
enum End {
    Succeeded,
    Dead(DeadReason),
    Discarded,
}

/// Executes a job until it is over. An execution itself takes no time.
async fn run(
    own: Option<&Retries>,
    sample: f64,
    handler: impl Fn(u32) -> Result<(), Failure>,
) -> Story {
    let enqueued = Instant::now();
    let mut starts = Vec::new();
    let end = loop {
        starts.push(Instant::now());
        let attempt = starts.len() as u32;
        let Err(failure) = handler(attempt) else {
            break End::Succeeded;
        };
        let failed = Failed {
            attempt,
            age: enqueued.elapsed(),
            ..first(&failure)
        };
        match rules().decide(own, &failed, sample) {
            Decision::Retry(delay) => sleep(delay).await,
            Decision::Again { .. } => {}
            Decision::Bury(reason) => break End::Dead(reason),
            Decision::Discard => break End::Discarded,
        }
    };
    let waits = starts.windows(2).map(|pair| pair[1] - pair[0]);
    Story {
        executions: starts.len() as u32,
        waits: waits.map(|wait| wait.as_secs_f64()).collect(),
        end,
    }
}

/// A job with these retries that fails each time.
async fn failing(own: &Retries) -> Story {
    run(Some(own), 0.5, |_| Err(error("ConnectionError"))).await
}

fn error(error_type: &'static str) -> Failure {
    Failure::new(error_type, "as in the example")
}

fn exhausted(waits: &[f64]) -> Story {
    Story {
        executions: waits.len() as u32 + 1,
        waits: waits.to_vec(),
        end: End::Dead(DeadReason::Exhausted),
    }
}

#[tokio::test(start_paused = true)]
async fn omniq_max_retries_3_is_4_executions() {
    let by_default = run(None, 0.5, |_| Err(error("ConnectionError"))).await;
    assert_eq!(by_default, exhausted(&[1.0, 2.0, 4.0]));
    let own = Retries::exponential(s(1), s(60)).with_max(3);
    assert_eq!(failing(&own).await, by_default);
}

#[tokio::test(start_paused = true)]
async fn omniq_delays_are_1_2_4_8_16_32_60_60_seconds_a_quarter_less_or_more() {
    const TABLE: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0];
    let own = Retries::exponential(s(1), s(60)).with_max(8);
    for (sample, factor) in [(0.0, 0.75), (0.5, 1.0), (1.0, 1.25)] {
        let story = run(Some(&own), sample, |_| Err(error("x"))).await;
        assert_eq!(story, exhausted(&TABLE.map(|seconds| seconds * factor)));
    }
}

#[tokio::test(start_paused = true)]
async fn naq_fixed_max_retries_3_retry_delay_5() {
    let own = Retries::fixed(s(5)).with_max(3).with_jitter(0.0);
    assert_eq!(failing(&own).await, exhausted(&[5.0, 5.0, 5.0]));
}

#[tokio::test(start_paused = true)]
async fn naq_list_max_retries_3_retry_delay_2_5_10() {
    let own = Retries::delays([2, 5, 10].map(s)).with_jitter(0.0);
    assert_eq!(failing(&own).await, exhausted(&[2.0, 5.0, 10.0]));
    // The last one repeats.
    assert_eq!(
        failing(&own.with_max(5)).await,
        exhausted(&[2.0, 5.0, 10.0, 10.0, 10.0])
    );
}

#[tokio::test(start_paused = true)]
async fn naq_exponential_max_retries_4_retry_delay_2_is_2_4_8_16_seconds() {
    let own = Retries::exponential(s(2), s(3600))
        .with_max(4)
        .with_jitter(0.0);
    assert_eq!(failing(&own).await, exhausted(&[2.0, 4.0, 8.0, 16.0]));
}

#[tokio::test(start_paused = true)]
async fn naq_max_retries_0_is_1_execution() {
    assert_eq!(failing(&Retries::none()).await, exhausted(&[]));
    assert_eq!(
        failing(&Retries::fixed(s(5)).with_max(0)).await,
        exhausted(&[])
    );
}

#[tokio::test(start_paused = true)]
async fn naq_retry_on_connection_and_timeout_errors_ignore_on_value_and_authentication_errors() {
    let own = Retries::fixed(s(5))
        .with_jitter(0.0)
        .retry_on(["ConnectionError", "TimeoutError"])
        .ignore_on(["ValueError", "AuthenticationError"]);
    for again in ["ConnectionError", "TimeoutError"] {
        let story = run(Some(&own), 0.5, |_| Err(error(again))).await;
        assert_eq!(story, exhausted(&[5.0, 5.0, 5.0]), "{again}");
    }
    for never in ["ValueError", "AuthenticationError", "KeyError"] {
        let story = run(Some(&own), 0.5, |_| Err(error(never))).await;
        let buried = Story {
            end: End::Dead(DeadReason::Ignored),
            ..exhausted(&[])
        };
        assert_eq!(story, buried, "{never}");
    }
    // Exhausted comes before ignored: the fourth execution fails with an error that is ignored.
    let story = run(Some(&own), 0.5, |attempt| {
        let fails = if attempt < 4 {
            "TimeoutError"
        } else {
            "ValueError"
        };
        Err(error(fails))
    });
    assert_eq!(story.await, exhausted(&[5.0, 5.0, 5.0]));
}

#[tokio::test(start_paused = true)]
async fn naq_an_api_call_that_succeeds_at_its_third_attempt() {
    let own = Retries::delays([5, 10].map(s)).with_jitter(0.0);
    let story = run(Some(&own), 0.5, |attempt| match attempt {
        1 => Err(error("ConnectionError")),
        2 => Err(error("TimeoutError")),
        _ => Ok(()),
    });
    let succeeded = Story {
        executions: 3,
        waits: vec![5.0, 10.0],
        end: End::Succeeded,
    };
    assert_eq!(story.await, succeeded);
}

#[tokio::test(start_paused = true)]
async fn rq_retry_max_3_interval_10_30_60() {
    let own = Retries::delays([10, 30, 60].map(s))
        .with_max(3)
        .with_jitter(0.0);
    assert_eq!(failing(&own).await, exhausted(&[10.0, 30.0, 60.0]));
}

#[tokio::test(start_paused = true)]
async fn rq_retry_max_5_interval_10_30_60_repeats_the_last_interval() {
    // RQ itself repeats the first one, and so waits the longest before its last attempt only.
    let own = Retries::delays([10, 30, 60].map(s))
        .with_max(5)
        .with_jitter(0.0);
    assert_eq!(
        failing(&own).await,
        exhausted(&[10.0, 30.0, 60.0, 60.0, 60.0])
    );
}

#[tokio::test(start_paused = true)]
async fn rq_retry_max_3_without_an_interval_is_at_once() {
    let own = Retries::fixed(Duration::ZERO).with_max(3);
    assert_eq!(failing(&own).await, exhausted(&[0.0, 0.0, 0.0]));
}

#[tokio::test(start_paused = true)]
async fn sidekiq_and_asynq_retry_25_is_26_executions() {
    let own = Retries::default().with_max(25);
    assert_eq!(failing(&own).await.executions, 26);
}

#[tokio::test(start_paused = true)]
async fn sidekiq_retry_for_stops_by_time_instead_of_by_count() {
    let own = Retries::fixed(s(600))
        .with_max(1_000)
        .with_jitter(0.0)
        .retry_for(s(3600));
    let story = failing(&own).await;
    let stopped = Story {
        executions: 7,
        waits: vec![600.0; 6],
        end: End::Dead(DeadReason::TooLate),
    };
    assert_eq!(story, stopped);
}

#[tokio::test(start_paused = true)]
async fn sidekiq_retry_in_discard_and_kill_end_a_job() {
    let discarded = run(None, 0.5, |_| Err(error("x").discard())).await;
    assert_eq!(discarded.end, End::Discarded);
    let killed = run(None, 0.5, |_| Err(error("x").permanently())).await;
    assert_eq!(killed.end, End::Dead(DeadReason::Permanent));
    assert_eq!((discarded.executions, killed.executions), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn asynq_skip_retry_goes_to_the_archive_whatever_is_left() {
    let own = Retries::default().with_max(25);
    let story = run(Some(&own), 0.5, |attempt| match attempt {
        1 => Err(error("x")),
        _ => Err(error("x").permanently()),
    });
    let skipped = Story {
        executions: 2,
        waits: vec![1.0],
        end: End::Dead(DeadReason::Permanent),
    };
    assert_eq!(story.await, skipped);
}

#[tokio::test(start_paused = true)]
async fn celery_retry_with_a_countdown_waits_as_told_and_counts() {
    let own = Retries::default().with_max(3);
    let countdown = |_| Err(error("x").retry_after(s(42)));
    let story = run(Some(&own), 0.5, countdown).await;
    assert_eq!(story, exhausted(&[42.0, 42.0, 42.0]));
}

#[tokio::test(start_paused = true)]
async fn bullmq_attempts_3_backoff_exponential_1000_is_3_executions() {
    let own = Retries::exponential(s(1), s(3600))
        .with_max(2)
        .with_jitter(0.0);
    assert_eq!(failing(&own).await, exhausted(&[1.0, 2.0]));
}
