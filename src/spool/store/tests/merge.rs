//! However a lane is spread over generations, it is read like a sorted map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    super::merge::{Source, merge},
    *,
};

fn key(lane: LaneId, number: u64) -> Key {
    Key::new(Kind::Waiting, lane, number, 0)
}

/// What a generation has, shown in pages.
fn source(generation: u64, entries: &BTreeMap<Key, Bytes>, page: usize) -> Option<Source<'_>> {
    let first = entries.keys().next()?.number();
    let pages = Box::new(move |begin| {
        let all: Vec<_> = entries
            .iter()
            .map(|(key, value)| (*key, value.clone()))
            .collect();
        let from = match begin {
            Begin::At(number) => all
                .iter()
                .rposition(|(key, _)| key.number() <= number)
                .unwrap_or(0),
            Begin::After(after) => all.partition_point(|(key, _)| *key <= after),
        };
        Ok(all[from..].iter().take(page).cloned().collect())
    });
    Some(Source {
        generation,
        first,
        pages,
    })
}

proptest! {
    #[test]
    fn a_lane_in_many_generations_is_read_in_order_and_once(
        generations in prop::collection::vec(prop::collection::btree_set(1..60u64, 0..20), 1..6),
        from in 0..70u64,
        page in 1..5usize,
        enough in 1..80usize,
    ) {
        let lane = LaneId::fresh();
        let generations: Vec<BTreeMap<Key, Bytes>> = generations
            .into_iter()
            .zip(1u8..)
            .map(|(numbers, generation)| {
                let entry = |number| (key(lane, number), Bytes::copy_from_slice(&[generation]));
                numbers.into_iter().map(entry).collect()
            })
            .collect();
        // The later generation has the newer copy.
        let all: BTreeMap<Key, Bytes> = generations.iter().flatten().map(|(key, value)| (*key, value.clone())).collect();
        let sources = (1..).zip(&generations).filter_map(|(number, entries)| source(number, entries, page));
        let mut shown = Vec::new();
        merge(sources.collect(), from, &mut |key, value| {
            shown.push((key, value));
            if shown.len() == enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        // Each generation begins with what may hold the number: more of those before it can be shown.
        let before = shown.iter().take_while(|(key, _)| key.number() < from).count();
        prop_assert!(before <= generations.len());
        let behind: Vec<_> = all.iter().filter(|(key, _)| key.number() >= from).map(|(key, value)| (*key, value.clone())).collect();
        let rest = &shown[before..];
        prop_assert_eq!(rest, &behind[..rest.len()]);
        prop_assert!(shown.len() == enough || rest.len() == behind.len());
        prop_assert!(shown.is_sorted_by(|a, b| a.0 < b.0));
        // The one that may hold it is among them.
        let holds = all.range(..=key(lane, from)).next_back();
        if let Some((last, _)) = holds && before < enough {
            prop_assert!(shown.iter().any(|(key, _)| key == last));
        }
    }
}
