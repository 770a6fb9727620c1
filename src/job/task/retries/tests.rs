//! The schedules, what is refused, and what is stored of them.

use proptest::prelude::*;

use super::*;

const fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// The delays in seconds, as many as it allows.
fn table(retries: &Retries, sample: f64) -> Vec<f64> {
    let delays = (1..=retries.max()).map(|retry| retries.delay(retry, sample));
    delays.map(|delay| delay.as_secs_f64()).collect()
}

fn json(retries: &Retries) -> String {
    serde_json::to_string(retries).unwrap()
}

#[test]
fn the_schedules_are_what_their_names_say() {
    let rows: [(Retries, &[f64]); 9] = [
        (Retries::default(), &[1.0, 2.0, 4.0]),
        (
            Retries::default().with_max(9),
            &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0],
        ),
        (Retries::fixed(s(5)), &[5.0, 5.0, 5.0]),
        (Retries::delays([s(2), s(5), s(10)]), &[2.0, 5.0, 10.0]),
        (
            Retries::delays([s(10), s(30), s(60)]).with_max(5),
            &[10.0, 30.0, 60.0, 60.0, 60.0],
        ),
        (Retries::delays([s(10), s(30)]).with_max(1), &[10.0]),
        (
            Retries::exponential(s(2), s(3600)).with_max(4),
            &[2.0, 4.0, 8.0, 16.0],
        ),
        (
            Retries::exponential_by(3.0, s(1), s(20)).with_max(4),
            &[1.0, 3.0, 9.0, 20.0],
        ),
        (Retries::none(), &[]),
    ];
    for (retries, expected) in rows {
        assert_eq!(table(&retries, 0.5), expected, "{retries:?}");
        retries.check().unwrap();
    }
}

#[test]
fn a_delay_is_moved_by_a_quarter_unless_the_jitter_is_set() {
    let usual = Retries::exponential(s(4), s(60));
    assert_eq!(table(&usual, 0.0), [3.0, 6.0, 12.0]);
    assert_eq!(table(&usual, 1.0), [5.0, 10.0, 20.0]);
    let exact = usual.clone().with_jitter(0.0);
    assert_eq!(table(&exact, 1.0), [4.0, 8.0, 16.0]);
    assert_eq!(table(&usual.with_jitter(1.0), 0.0), [0.0; 3]);
}

#[test]
fn times_are_never_shortened_by_being_stored() {
    let short = Retries::fixed(Duration::from_micros(1)).with_jitter(0.0);
    assert_eq!(short.delay(1, 0.5), Duration::from_millis(1));
}

#[test]
fn what_nobody_can_have_meant_is_refused() {
    let long = s(366 * 24 * 60 * 60);
    let names = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    let rows = [
        (Retries::fixed(long), "delay of retries"),
        (Retries::fixed(Duration::MAX), "delay of retries"),
        (Retries::delays([s(1), long]), "delay of retries"),
        (Retries::exponential(s(1), long), "delay of retries"),
        (Retries::delays(vec![s(1); 101]), "delays of retries"),
        (
            Retries::exponential_by(1.0, s(1), s(2)),
            "backoff multiplier",
        ),
        (
            Retries::exponential_by(f64::NAN, s(1), s(2)),
            "backoff multiplier",
        ),
        (Retries::default().with_jitter(1.5), "jitter ratio"),
        (Retries::default().with_jitter(f64::NAN), "jitter ratio"),
        (Retries::default().retry_for(long), "retry_for"),
        (Retries::default().retry_on(names(101)), "retry_on"),
        (Retries::default().retry_on([""]), "retry_on"),
        (Retries::default().ignore_on(["x".repeat(257)]), "ignore_on"),
    ];
    for (absurd, what) in rows {
        let refused = absurd.check().unwrap_err().to_string();
        assert!(refused.contains(what), "{absurd:?}: {refused}");
    }
    let most = Retries::delays(vec![s(365 * 24 * 60 * 60); 100])
        .retry_on(names(100))
        .ignore_on(["x".repeat(256)]);
    most.check().unwrap();
}

/// Jobs that wait in Redis, or on a disk, are read by the next version.
#[test]
fn the_stored_form_stays_readable() {
    let rows = [
        (
            Retries::default(),
            r#"{"first_ms":1000,"longest_ms":60000}"#,
        ),
        (Retries::none(), r#"{"delays_ms":[]}"#),
        (
            Retries::fixed(s(5)).with_max(2).with_jitter(0.0),
            r#"{"max":2,"fixed_ms":5000,"jitter":0.0}"#,
        ),
        (
            Retries::exponential_by(3.0, s(1), s(9))
                .retry_on(["http_503"])
                .ignore_on(["http_404"])
                .retry_for(s(60)),
            r#"{"first_ms":1000,"longest_ms":9000,"multiplier":3.0,"retry_on":["http_503"],"ignore_on":["http_404"],"retry_for_ms":60000}"#,
        ),
    ];
    for (retries, stored) in rows {
        assert_eq!(json(&retries), stored);
        assert_eq!(serde_json::from_str::<Retries>(stored).unwrap(), retries);
    }
}

#[test]
fn what_a_newer_version_adds_is_no_reason_to_refuse_a_job() {
    let read = |json| serde_json::from_str::<Retries>(json).unwrap();
    assert_eq!(read("{}"), Retries::default());
    let newer = read(r#"{"max":7,"fibonacci_ms":[1],"colour":"blue"}"#);
    assert_eq!(newer, Retries::default().with_max(7));
    let odd = read(r#"{"multiplier":0.5,"jitter":9}"#);
    assert_eq!(table(&odd, 0.0), [0.75, 1.5, 3.0]);
}

fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(".{0,12}", 0..4)
}

/// What serde_json reads back to the last bit.
fn hundredths(range: std::ops::Range<i32>) -> impl Strategy<Value = f64> {
    range.prop_map(|n| f64::from(n) / 100.0)
}

fn schedule() -> impl Strategy<Value = Schedule> {
    prop_oneof![
        any::<u64>().prop_map(Schedule::Fixed),
        proptest::collection::vec(any::<u64>(), 0..120).prop_map(Schedule::Listed),
        (hundredths(0..900), any::<u64>(), any::<u64>()).prop_map(
            |(multiplier, first, longest)| {
                Schedule::Exponential {
                    multiplier,
                    first,
                    longest,
                }
            }
        ),
    ]
}

proptest! {
    #[test]
    fn whatever_is_stored_is_read_back_and_can_be_gone_by(
        schedule in schedule(),
        max in proptest::option::of(any::<u32>()),
        jitter in hundredths(-100..200),
        retry_on in names(),
        ignore_on in names(),
        within in proptest::option::of(any::<u64>()),
        (retry, sample) in (any::<u32>(), -1.0..2.0),
    ) {
        let retries = Retries { schedule, max, jitter, retry_on, ignore_on, within };
        let read: Retries = serde_json::from_str(&json(&retries)).unwrap();
        prop_assert_eq!(&read, &retries);
        let _ = (retries.delay(retry, sample), retries.check());
        if let Some(max) = max {
            prop_assert_eq!(retries.max(), max);
        }
    }
}
