//! What a queue of workers is written by, packed as `queue.lua` reads it, of numbers in decimal.

/// An operation of an execution. `run` is the attempt, a blank and the worker's token; the other parts are
///
/// - E: outcome, time to live, result
/// - R: due, failures; -1 is for a worker that has no other such
/// - D: expires, how many at most, failures
/// - G: none
pub(crate) fn of_execution(
    kind: u8,
    id: &[u8],
    born: &[u8],
    run: &str,
    parts: &[&[u8]],
) -> Vec<u8> {
    let (outcome, numbers, tail): (&[u8], &[&[u8]], &[u8]) = match (kind, parts) {
        (b'E', [outcome, ttl, result]) => (outcome, &[ttl], result),
        (b'R', [due, failures]) => (&[], &[due], failures),
        (b'D', [expires, most, failures]) => (&[], &[expires, most], failures),
        (b'G', []) => (&[], &[], &[]),
        _ => panic!("no operation: {}", kind as char),
    };
    let numbers: Vec<_> = numbers.iter().flat_map(|text| number(text)).collect();
    let run = [&[run.len() as u8], run.as_bytes()].concat();
    [&[kind], id, born, outcome, &numbers, &run, tail].concat()
}

pub(crate) fn number(text: &[u8]) -> [u8; 8] {
    let text = std::str::from_utf8(text).unwrap();
    text.parse::<i64>().unwrap().to_le_bytes()
}
