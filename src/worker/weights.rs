//! Which queue gets the free slots: [`share`]. No clock and no dice.

/// One queue's part in the sharing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stake {
    pub(super) weight: u32,
    /// How far it has come: grows by [`progress`] with each job it is given.
    pub(super) pass: u64,
    /// It may have jobs, and can be asked for them now.
    pub(super) wants: bool,
}

/// Shares out `free` slots: how many each queue gets.
///
/// Each slot goes to the queue that has come least far, so that among queues which always have jobs those *started*
/// are as the weights are, and none waits for ever. A queue that wants nothing leaves its part to the others.
pub(super) fn share(free: usize, stakes: &[Stake]) -> Vec<usize> {
    let mut given = vec![0; stakes.len()];
    let mut wanting = (0..stakes.len()).filter(|at| stakes[*at].wants);
    match (wanting.next(), wanting.next()) {
        (None, _) => return given,
        (Some(only), None) => {
            given[only] = free;
            return given;
        }
        _ => {}
    }
    let mut passes: Vec<u64> = stakes.iter().map(|stake| stake.pass).collect();
    for _ in 0..free {
        let wanting = (0..stakes.len()).filter(|at| stakes[*at].wants);
        let Some(next) = wanting.min_by_key(|at| passes[*at]) else {
            break;
        };
        given[next] += 1;
        passes[next] = passes[next].saturating_add(progress(1, stakes[next].weight));
    }
    given
}

/// How far `jobs` bring a queue of this weight.
pub(super) fn progress(jobs: usize, weight: u32) -> u64 {
    (jobs as u64).saturating_mul(STEP / u64::from(weight.max(1)))
}

/// Where a queue begins that had nothing to do for a while: what it has not used is not made up for.
pub(super) fn catch_up(pass: u64, others: impl IntoIterator<Item = u64>) -> u64 {
    others
        .into_iter()
        .min()
        .map_or(pass, |least| pass.max(least))
}

/// A job's way, for a queue of weight 1.
const STEP: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn stake(weight: u32, pass: u64) -> Stake {
        Stake {
            weight,
            pass,
            wants: true,
        }
    }

    #[test]
    fn a_queue_alone_gets_all() {
        assert_eq!(share(7, &[stake(3, 1 << 40)]), [7]);
        let idle = Stake {
            wants: false,
            ..stake(100, 0)
        };
        assert_eq!(share(7, &[idle, stake(1, 1 << 40)]), [0, 7]);
        assert_eq!(share(7, &[idle]), [0]);
    }

    #[test]
    fn several_get_by_their_weights() {
        assert_eq!(share(16, &[stake(3, 0), stake(1, 0)]), [12, 4]);
        assert_eq!(share(0, &[stake(3, 0), stake(1, 0)]), [0, 0]);
    }

    /// With one slot there is nothing to share out at any one moment.
    #[test]
    fn weights_hold_over_time_and_nobody_starves() {
        let mut stakes = [stake(5, 0), stake(2, 0), stake(1, 0)];
        let mut started = [0; 3];
        for _ in 0..800 {
            let given = share(1, &stakes);
            for (at, jobs) in given.into_iter().enumerate() {
                started[at] += jobs;
                stakes[at].pass += progress(jobs, stakes[at].weight);
            }
        }
        assert_eq!(started, [500, 200, 100]);
    }

    #[test]
    fn a_queue_that_was_idle_does_not_make_up_for_it() {
        let busy = stake(1, 1_000 * STEP);
        let mut back = stake(1, 0);
        back.pass = catch_up(back.pass, [busy.pass]);
        assert_eq!(share(10, &[busy, back]), [5, 5]);
        assert_eq!(catch_up(7, []), 7);
        assert_eq!(catch_up(7, [3]), 7);
    }
}
