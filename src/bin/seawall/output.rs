//! What a command says on stdout: reports, rows and records.

use std::{
    fmt::Display,
    io::{self, BufWriter, IsTerminal, Stdout, Write},
};

use serde::Serialize;

use crate::failure::Result;

/// stdout, for people or for programs.
pub(crate) struct Out {
    json: bool,
    stdout: BufWriter<Stdout>,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            stdout: BufWriter::new(io::stdout()),
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Says what a command has found or done.
    pub(crate) fn report(&mut self, report: &(impl Serialize + Display)) -> Result<()> {
        if self.json {
            self.record(report)
        } else {
            Ok(write!(self.stdout, "{report}")?)
        }
    }

    /// One line of JSON, whoever reads it.
    pub(crate) fn record(&mut self, record: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.stdout, record).map_err(io::Error::from)?;
        Ok(writeln!(self.stdout)?)
    }

    /// A line for people.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<()> {
        Ok(writeln!(self.stdout, "{line}")?)
    }

    /// Raw bytes.
    pub(crate) fn writer(&mut self) -> &mut impl Write {
        &mut self.stdout
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        Ok(self.stdout.flush()?)
    }
}

/// Whether there is somebody at the other end of stderr to look at a progress bar.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Columns of text, as wide as what is in them.
pub(crate) struct Table {
    columns: &'static [Column],
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
    indent: &'static str,
}

/// A column's heading, and on which side its cells are.
pub(crate) type Column = (&'static str, Side);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

impl Table {
    pub(crate) fn new(columns: &'static [Column]) -> Self {
        let heading = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut table = Self {
            columns,
            widths: vec![0; columns.len()],
            rows: Vec::new(),
            indent: "",
        };
        table.push(heading);
        table
    }

    pub(crate) fn indented(mut self) -> Self {
        self.indent = "  ";
        self
    }

    pub(crate) fn push(&mut self, row: Vec<String>) {
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = cell.chars().count().max(*width);
        }
        self.rows.push(row);
    }

    /// Writes the rows if they are many, so that a table of any length takes little memory.
    pub(crate) fn spill(&mut self, out: &mut Out) -> Result<()> {
        if self.rows.len() >= MANY {
            self.write(out)?;
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, out: &mut Out) -> Result<()> {
        let text = self.to_string();
        self.rows.clear();
        Ok(write!(out.stdout, "{text}")?)
    }
}

const MANY: usize = 1000;

impl Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for row in &self.rows {
            let mut line = String::from(self.indent);
            let cells = row.iter().zip(self.columns).zip(&self.widths);
            for (at, ((cell, (_, side)), &width)) in cells.enumerate() {
                if at > 0 {
                    line.push_str("  ");
                }
                line += &match side {
                    Side::Left => format!("{cell:<width$}"),
                    Side::Right => format!("{cell:>width$}"),
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
