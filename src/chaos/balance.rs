//! What the books add up to.

use std::{
    fmt::{self, Write as _},
    ops::AddAssign,
};

/// The eight counters of the [`Books`](super::Books).
///
/// Its [`Display`](fmt::Display) is one line, for a log that is searched:
/// `attempted=3 acknowledged=2 delivered=2 unexpected=0 duplicated=0 lost=1 recovered=1
/// out_of_order=0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Balance {
    /// Jobs that a producer tried to hand in.
    pub attempted: u64,
    /// Jobs of which a producer was told that they are safe.
    pub acknowledged: u64,
    /// Different jobs seen at the far end.
    pub delivered: u64,
    /// Different jobs seen at the far end that nobody attempted.
    pub unexpected: u64,
    /// Deliveries beyond the first of each job.
    pub duplicated: u64,
    /// Jobs acknowledged and never delivered.
    pub lost: u64,
    /// Jobs attempted and not acknowledged, and delivered all the same. No fault: their
    /// producer was told that it can't be known.
    pub recovered: u64,
    /// First deliveries of a job after that of a higher number in its lane.
    pub out_of_order: u64,
}

impl Balance {
    /// Whether nothing was lost, doubled, made up or overtaken.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.unexpected == 0 && self.out_of_order == 0
    }

    /// The counters one below the other, with their meaning, for people.
    #[must_use]
    pub fn table(&self) -> String {
        let rows = self.rows();
        let widest = rows
            .iter()
            .map(|(_, count, _)| count.to_string().len())
            .max()
            .unwrap_or(0);
        let mut table = String::new();
        for (name, count, meaning) in rows {
            let _ = writeln!(table, "{name:<12}  {count:>widest$}  {meaning}");
        }
        table
    }

    const fn rows(&self) -> [(&'static str, u64, &'static str); 8] {
        [
            ("attempted", self.attempted, "handed in"),
            ("acknowledged", self.acknowledged, "said to be safe"),
            ("delivered", self.delivered, "different jobs at the far end"),
            ("unexpected", self.unexpected, "delivered, never attempted"),
            ("duplicated", self.duplicated, "delivered again"),
            ("lost", self.lost, "acknowledged, never delivered"),
            (
                "recovered",
                self.recovered,
                "not acknowledged, delivered all the same",
            ),
            (
                "out_of_order",
                self.out_of_order,
                "delivered after a later one",
            ),
        ]
    }
}

impl AddAssign for Balance {
    fn add_assign(&mut self, other: Self) {
        self.attempted += other.attempted;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.unexpected += other.unexpected;
        self.duplicated += other.duplicated;
        self.lost += other.lost;
        self.recovered += other.recovered;
        self.out_of_order += other.out_of_order;
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, count, _)) in self.rows().into_iter().enumerate() {
            let gap = if at == 0 { "" } else { " " };
            write!(f, "{gap}{name}={count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BALANCE: Balance = Balance {
        attempted: 1_000,
        acknowledged: 2,
        delivered: 3,
        unexpected: 4,
        duplicated: 5,
        lost: 6,
        recovered: 7,
        out_of_order: 8,
    };

    #[test]
    fn it_prints_as_one_line_and_as_a_table() {
        assert_eq!(
            BALANCE.to_string(),
            "attempted=1000 acknowledged=2 delivered=3 unexpected=4 duplicated=5 lost=6 \
             recovered=7 out_of_order=8",
        );
        let table = BALANCE.table();
        assert_eq!(table.lines().count(), 8);
        assert!(
            table.starts_with("attempted     1000  handed in\n"),
            "{table}"
        );
        assert!(
            table.contains("\nlost             6  acknowledged, never delivered\n"),
            "{table}"
        );
    }

    #[test]
    fn each_fault_alone_makes_it_unclean_and_a_recovered_job_does_not() {
        assert!(
            Balance {
                recovered: 1,
                ..Balance::default()
            }
            .is_clean()
        );
        assert!(
            !Balance {
                lost: 1,
                ..Balance::default()
            }
            .is_clean()
        );
        assert!(
            !Balance {
                duplicated: 1,
                ..Balance::default()
            }
            .is_clean()
        );
        assert!(
            !Balance {
                unexpected: 1,
                ..Balance::default()
            }
            .is_clean()
        );
        assert!(
            !Balance {
                out_of_order: 1,
                ..Balance::default()
            }
            .is_clean()
        );
    }
}
