//! The names of a queue's keys: [`Keys`].

use crate::call::slot;

/// The keys of one queue, all of them in the queue's hash slot.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    names: Vec<String>,
}

impl Keys {
    pub(crate) fn of(queue: &str) -> Self {
        let tag = slot::tag_of(queue);
        let prefix = if tag == queue {
            format!("seawall:{{{tag}}}:")
        } else {
            // Several queues may have the same tag.
            format!("seawall:{{{tag}}}:{queue}:")
        };
        let names = PARTS.map(|part| format!("{prefix}{part}"));
        Self {
            names: names.into(),
        }
    }

    /// All of them, in the order that the scripts know them in.
    pub(crate) fn all(&self) -> &[String] {
        &self.names
    }

    /// Those that the [`PROCEDURE`](super::PROCEDURE) changes: the first ones.
    pub(super) fn written(queue: &str) -> Vec<String> {
        let mut names = Self::of(queue).names;
        names.truncate(WRITTEN);
        names
    }

    /// Where idle workers wait.
    pub(crate) fn wake(&self) -> &str {
        &self.names[WAKE]
    }
}

/// In the order of the scripts.
const PARTS: [&str; 14] = [
    "jobs", "ready", "later", "running", "failures", "dead", "done", "results", "counters", "wake",
    "workers", "about", "turns", "gone",
];
const WAKE: usize = 9;
const WRITTEN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_queue_are_in_its_slot_and_no_others() {
        let queues = ["emails", "app:{emails}:high", "{}emails", "a}b", "{a", "}"];
        let mut seen = std::collections::BTreeSet::new();
        for queue in queues {
            for key in Keys::of(queue).all() {
                assert_eq!(
                    slot::slot(key.as_bytes()),
                    slot::slot(queue.as_bytes()),
                    "{key}"
                );
                assert!(seen.insert(key.clone()), "{key} is another queue's as well");
            }
        }
        assert_eq!(Keys::of("emails").all()[0], "seawall:{emails}:jobs");
        assert_eq!(Keys::of("emails").wake(), "seawall:{emails}:wake");
    }
}
