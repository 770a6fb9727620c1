//! What Redis and the script are to the spool, and what must have come to them.

use super::{
    process::{Answer, Sent},
    world::{Waiting, World, is_poison},
};

impl World {
    pub(super) fn apply(&mut self, sent: Sent) -> Answer {
        if sent.ends && self.taking > 0 {
            self.last.remove(&sent.lane);
            return Answer::All { duplicates: 0 };
        }
        let mut last = self.last.get(&sent.lane).copied().unwrap_or(0);
        assert!(last >= sent.after, "seed {}: a gap", self.seed);
        self.batches += 1;
        let is_lost = self
            .lossy
            .is_some_and(|every| self.batches.is_multiple_of(every));
        let mut through = 0;
        let mut duplicates = 0;
        let mut answer = None;
        for (number, record) in sent.records {
            if number <= last {
                (through, duplicates) = (number, duplicates + 1);
                continue;
            }
            if self.taking == 0 {
                answer = Some(Answer::Stopped { through });
                break;
            }
            match record {
                None => self.expire(sent.queue),
                Some(name) => {
                    let id = name.unwrap_or_else(|| panic!("seed {}: damaged", self.seed));
                    if is_poison(id) {
                        // It will come again if nobody hears that it is refused.
                        if !is_lost {
                            self.refuse(id);
                        }
                        self.has_gone();
                        answer = Some(Answer::Refused {
                            through: number - 1,
                        });
                        break;
                    }
                    self.take(id);
                }
            }
            (through, last) = (number, number);
        }
        if self.last.insert(sent.lane, last) != Some(last) {
            self.has_gone();
        }
        if is_lost {
            return Answer::Out { landed: true };
        }
        match answer {
            None if sent.ends => Answer::Out { landed: false },
            Some(Answer::Stopped { through: 0 }) => Answer::Out { landed: false },
            answer => answer.unwrap_or(Answer::All { duplicates }),
        }
    }

    fn take(&mut self, id: u32) {
        let seed = self.seed;
        assert!(self.delivered.insert(id), "seed {seed}: {id} comes twice");
        assert!(!self.parked.contains(&id), "seed {seed}: {id} is parked");
        let waiting = self.pop(id);
        let waiting = waiting.unwrap_or_else(|| panic!("seed {seed}: {id} comes out of turn"));
        let must_be_gone = self.is_expired(&waiting) && !waiting.wavering;
        assert!(!must_be_gone, "seed {seed}: {waiting:?} has expired");
        self.taking -= 1;
    }

    fn refuse(&mut self, id: u32) {
        // It comes again if it was not parked before the process died.
        if self.parked.insert(id) {
            let waiting = self.pop(id);
            assert!(waiting.is_some(), "seed {}: {id} out of turn", self.seed);
        }
    }

    /// Takes it from the front of its queue. Before it there is nothing but what may never have been there,
    /// and what has expired.
    fn pop(&mut self, id: u32) -> Option<Waiting> {
        let queue = &mut self.queues[usize::from(self.queue_of[&id])];
        while let Some(waiting) = queue.pop_front() {
            if waiting.id == id {
                return Some(waiting);
            }
            let may_be_gone = !waiting.sure || waiting.expires.is_some();
            assert!(may_be_gone, "seed {}: {waiting:?} is lost", self.seed);
        }
        None
    }

    /// One record has expired: the first that may have.
    fn expire(&mut self, queue: u8) {
        while let Some(waiting) = self.queues[usize::from(queue)].pop_front() {
            if self.is_expired(&waiting) || waiting.wavering {
                return;
            }
            assert!(!waiting.sure, "seed {}: {waiting:?} is lost", self.seed);
        }
    }
}
