//! What is told of failures, and how it is stored.

use proptest::prelude::*;

use super::*;

fn failed(attempt: u32) -> FailedAttempt {
    let failure = Failure::new("http_503", format!("failure {attempt}"));
    let started = 1_700_000_000_000 + u64::from(attempt) * 1_000;
    FailedAttempt::new(attempt, &failure, started, started + 250, "web-1:4242")
}

fn after(attempts: u32) -> TaskError {
    let record = (1..=attempts).fold(None, |earlier, attempt| {
        Some(TaskError::after(earlier, failed(attempt), false))
    });
    record.expect("it failed at least once")
}

#[test]
fn the_last_failure_is_the_one_that_is_told() {
    let error = after(3);
    assert_eq!(error.error_type(), "http_503");
    assert_eq!(error.message(), "failure 3");
    assert_eq!((error.attempts(), error.retry_count()), (3, 2));
    assert_eq!(error.worker(), "web-1:4242");
    assert_eq!(error.reason(), None);
    let took = error.failed_at().duration_since(error.started_at());
    assert_eq!(took.unwrap(), Duration::from_millis(250));
    assert_eq!(error.to_string(), "http_503: failure 3");
}

#[test]
fn ten_failures_are_remembered_and_all_are_counted() {
    let error = after(25);
    let attempts = error.history().iter().map(FailedAttempt::attempt);
    assert_eq!(attempts.collect::<Vec<_>>(), (16..=25).collect::<Vec<_>>());
    assert_eq!(error.attempts(), 25);
}

#[test]
fn deaths_are_counted_apart() {
    let error = TaskError::after(Some(after(1)), failed(2), true);
    assert_eq!((error.attempts(), error.deaths()), (2, 1));
}

#[test]
fn after_a_requeue_executions_are_counted_on_and_retries_and_deaths_anew() {
    let dead = TaskError::after(Some(after(3)), failed(4), true);
    let requeued = TaskError::requeued(Some(dead), 1_700_000_000_000);
    assert!(requeued.to_stored().starts_with("4 0 4 1700000000000\n{"));
    let read = TaskError::parse(requeued.to_stored().as_bytes());
    assert_eq!(read.as_ref(), Some(&requeued));
    assert_eq!((requeued.attempts(), requeued.retry_count()), (4, 0));
    let error = TaskError::after(read, failed(5), false);
    assert_eq!((error.attempts(), error.retry_count()), (5, 0));
    let error = TaskError::after(Some(error), failed(6), false);
    assert_eq!((error.attempts(), error.retry_count()), (6, 1));
    assert_eq!((error.deaths(), error.attempts_before_requeue()), (0, 4));
    assert_eq!(error.history().len(), 6);
}

/// Jobs that wait in Redis are read by the next version, and the count in front by a script.
#[test]
fn the_stored_form_stays_readable() {
    let error = TaskError::after(None, failed(1), true).with_reason(DeadReason::Poison);
    let stored = "1 1\n{\"attempt\":1,\"type\":\"http_503\",\"message\":\"failure 1\",\
        \"started\":1700000001000,\"failed\":1700000001250,\"worker\":\"web-1:4242\",\
        \"dead\":\"poison\"}\n";
    assert_eq!(error.to_stored(), stored);
    assert_eq!(TaskError::parse(stored.as_bytes()), Some(error));

    let newer = b"7 2 9\n{\"attempt\":7,\"type\":\"x\",\"colour\":1,\"dead\":\"bored\"}\n";
    let newer = TaskError::parse(newer).unwrap();
    assert_eq!((newer.attempts(), newer.deaths()), (7, 2));
    assert_eq!((newer.error_type(), newer.reason()), ("x", None));
}

#[test]
fn nothing_stored_is_no_failure_and_garbage_is_one_of_an_unknown_type() {
    assert_eq!(TaskError::parse(b""), None);
    let garbage = TaskError::parse(b"garbage\n{").unwrap();
    assert_eq!((garbage.attempts(), garbage.error_type()), (0, "unknown"));
    let counted = TaskError::parse(b"4294967296").unwrap();
    assert_eq!(counted.attempts(), u32::MAX);
}

#[test]
fn a_record_keeps_to_its_size_and_always_has_the_last_failure() {
    let worst = "\u{1}".repeat(LONGEST_MESSAGE);
    let mut record = None;
    for attempt in 1..=12 {
        let failure = Failure::new("\u{1}".repeat(LONGEST_TYPE), worst.clone());
        let worker = "\u{1}".repeat(LONGEST_WORKER);
        let failed = FailedAttempt::new(attempt, &failure, u64::MAX, u64::MAX, &worker);
        let error = TaskError::after(record, failed, true).with_reason(DeadReason::Exhausted);
        let stored = error.to_stored();
        assert!(stored.len() <= LONGEST_STORED, "{}", stored.len());
        let read = TaskError::parse(stored.as_bytes()).unwrap();
        assert_eq!(
            read.history(),
            &error.history()[error.history().len() - 1..]
        );
        record = Some(error);
    }
}

fn failures() -> impl Strategy<Value = FailedAttempt> {
    (
        any::<u32>(),
        ("\\PC{0,40}", "(?s).{0,1500}", "\\PC{0,40}"),
        any::<(u64, u64)>(),
    )
        .prop_map(
            |(attempt, (error_type, message, worker), (started, failed))| {
                let failure = Failure::new(error_type, message);
                FailedAttempt::new(attempt, &failure, started, failed, &worker)
            },
        )
}

proptest! {
    #[test]
    fn what_is_stored_is_read_back(
        failures in proptest::collection::vec((failures(), any::<bool>()), 1..15),
    ) {
        let record = failures.iter().cloned().fold(None, |earlier, (failed, died)| {
            Some(TaskError::after(earlier, failed, died))
        });
        let error = record.unwrap();
        let stored = error.to_stored();
        prop_assert!(stored.len() <= LONGEST_STORED);
        let read = TaskError::parse(stored.as_bytes()).unwrap();
        prop_assert_eq!((read.attempts(), read.deaths()), (error.attempts(), error.deaths()));
        prop_assert!(!read.history().is_empty());
        prop_assert!(error.history().ends_with(read.history()));
        if error.history().iter().map(|kept| kept.to_line().len() + 1).sum::<usize>() < 16_000 {
            prop_assert_eq!(&read, &error);
        }
        let _ = (read.started_at(), read.failed_at());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        text in "[0-9]{0,12} ?[0-9]{0,12}\n?(\\{\"attempt\":[0-9]{1,12},\"type\":\"[a-z\\\\\"]{0,9}\"\\}\n){0,3}",
        at in any::<prop::sample::Index>(),
    ) {
        let mut mixed = text.clone().into_bytes();
        mixed.splice(at.index(text.len() + 1).., bytes.iter().copied());
        for stored in [bytes.as_slice(), text.as_bytes(), &mixed] {
            if let Some(read) = TaskError::parse(stored) {
                let again = TaskError::parse(read.to_stored().as_bytes());
                prop_assert_eq!(again, Some(read));
            }
        }
    }
}
