//! Whatever is committed, torn, withdrawn, copied and reclaimed: the audit finds what a plain model has.
//! All of the ledger and the audit, and no disk.

mod world;

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index};

use self::world::World;
use super::*;

/// What one write asks for.
#[derive(Clone, Debug)]
enum Act {
    /// Records of these sizes, to one of the lanes of this run.
    Append(usize, Vec<usize>),
    /// The oldest records of a lane, up to this many.
    Finish(Index, usize),
    /// The oldest record of a lane is kept aside; that it is done with is another act.
    Park(Index),
    /// Parked records, up to this many, go to the end of a lane of this run, in one step.
    Unpark(usize, usize),
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Act>),
    RollOver,
    Reclaim,
    /// The process is closed in order, and started again.
    Restart,
    /// The process dies in this commit: of its chunks, those of the mask are there. It dies again when
    /// it has said what it found, as often as there are masks more.
    Crash(Vec<Act>, Vec<u64>),
    /// The disk fails in this commit, and again in what is written first to the next generation.
    Fail(Vec<Act>, Vec<u64>),
}

/// How the last run ended.
#[derive(Clone, Debug)]
enum End {
    Closed,
    Died,
    /// In the middle of a commit: of its chunks, those of the mask are there.
    DiedIn(Vec<Act>, u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let size = prop_oneof![20 => 0..50usize, 1 => 30_000..80_000usize];
    let act = prop_oneof![
        4 => (0..2usize, prop::collection::vec(size, 1..6))
            .prop_map(|(lane, sizes)| Act::Append(lane, sizes)),
        3 => (any::<Index>(), 1..8usize).prop_map(|(lane, count)| Act::Finish(lane, count)),
        1 => any::<Index>().prop_map(Act::Park),
        1 => (0..2usize, 1..4usize).prop_map(|(lane, count)| Act::Unpark(lane, count)),
    ];
    prop::collection::vec(act, 1..5)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let masks = || prop::collection::vec(prop_oneof![Just(u64::MAX), any::<u64>()], 1..4);
    let step = prop_oneof![
        8 => acts().prop_map(Step::Commit),
        2 => Just(Step::RollOver),
        2 => Just(Step::Reclaim),
        1 => Just(Step::Restart),
        2 => (acts(), masks()).prop_map(|(acts, masks)| Step::Crash(acts, masks)),
        2 => (acts(), masks()).prop_map(|(acts, masks)| Step::Fail(acts, masks)),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_counts_is_what_was_committed(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        let verdict = world.audit(None, None);
        world.check(&verdict, "at last");
        let clean = world.ledger.clean();
        let verdict = world.audit(Some(&clean), None);
        world.check(&verdict, "at last, closed");
    }
    #[test]
    fn the_loss_that_is_told_is_the_loss(
        steps in steps(),
        spoilt in prop::collection::vec(any::<Index>(), 1..10),
        end in prop_oneof![
            Just(End::Closed),
            Just(End::Died),
            (acts(), any::<u64>()).prop_map(|(acts, mask)| End::DiedIn(acts, mask)),
        ],
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        if let End::DiedIn(acts, mask) = &end {
            world.die(acts, *mask);
        }
        let is_closed = matches!(end, End::Closed);
        for index in spoilt {
            world.spoil(index, is_closed);
        }
        let clean = is_closed.then(|| world.ledger.clean());
        let verdict = world.audit(clean.as_ref(), None);
        let there = world.readable(&verdict);
        let lost: Vec<_> = world.model.waiting.keys().filter(|key| !there.waiting.contains_key(key)).collect();
        prop_assert!(there.waiting.keys().all(|key| world.model.waiting.contains_key(key)));
        let recovery = &verdict.recovery;
        prop_assert_eq!(recovery.lost, lost.len() as u64);
        let mut lanes = BTreeMap::<LaneId, u64>::new();
        for (lane, _) in lost {
            *lanes.entry(*lane).or_default() += 1;
        }
        let told: BTreeMap<_, _> = recovery.lanes.iter().map(|loss| (loss.lane, loss.records)).collect();
        prop_assert_eq!(told, lanes);
        let parked = world.model.parked.len() - there.parked.len();
        prop_assert_eq!(recovery.lost_parked, parked as u64);
        prop_assert!(!recovery.torn || matches!(end, End::DiedIn(..)));

        // And it is told once.
        world.model = there;
        world.settle_in(&verdict, u64::MAX);
        world.check(&world.audit(None, None), "afterwards");
    }
}
