//! `import`: puts the records of an export back.

use std::{
    fmt::{self, Display},
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read},
    path::PathBuf,
};

use clap::Args;
use seawall::spool::stopped::{Record, Restored, Stopped, look};
use serde::Serialize;

use crate::{
    Out, Result,
    failure::Failure,
    line::Line,
    place::{Place, is_ours, shown},
    progress::Progress,
    text::counted,
};

/// Put the records of an export back, under the lanes and numbers they had
///
/// What is there already is left as it is, so that it can be repeated at will. The directory is made if it
/// is missing.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Read this file instead of stdin
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,
}

pub(crate) async fn run(arguments: &Arguments, out: &mut Out) -> Result<()> {
    let path = arguments.place.path()?;
    if path.exists()
        && let Ok(outside) = look(&path)
    {
        is_ours(&outside)?;
    }
    let (reader, size) = source(arguments)?;
    let mut lines = Lines::new(reader);
    // Nothing is made for an input that is not an export.
    let first = lines.page()?;
    let mut spool = Stopped::create(&path).await?;
    let mut report = Report {
        dir: shown(&path),
        restored: 0,
        present: 0,
    };
    let progress = Progress::of_bytes(size, "import", out.is_json());
    let mut page = first;
    while !page.is_empty() {
        let Restored {
            written, present, ..
        } = spool.restore(page).await?;
        report.restored += written;
        report.present += present;
        progress.set(lines.bytes);
        page = lines.page()?;
    }
    spool.close().await?;
    drop(progress);
    out.report(&report)
}

fn source(arguments: &Arguments) -> Result<(Box<dyn BufRead>, u64)> {
    let Some(path) = &arguments.input else {
        if io::stdin().is_terminal() {
            return Err(
                Failure::usage("import reads an export from stdin, which is a terminal")
                    .with_next("give the file as --input FILE"),
            );
        }
        return Ok((Box::new(io::stdin().lock()), 0));
    };
    let failed = |error| Failure::of(format!("read {path:?}"))(error);
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    Ok((Box::new(BufReader::new(file)), size))
}

/// An export, some records at a time.
struct Lines {
    reader: Box<dyn BufRead>,
    number: u64,
    bytes: u64,
    line: Vec<u8>,
}

impl Lines {
    fn new(reader: Box<dyn BufRead>) -> Self {
        Self {
            reader,
            number: 0,
            bytes: 0,
            line: Vec::new(),
        }
    }

    /// The next records; none at the end.
    fn page(&mut self) -> Result<Vec<Record>> {
        let (mut page, mut bytes) = (Vec::new(), 0);
        while page.len() < PAGE_RECORDS && bytes < PAGE_BYTES && self.next()? {
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            let record = Line::parse(&self.line).map_err(|what| self.wrong(&what))?;
            bytes += record.bytes.len();
            page.push(record);
        }
        Ok(page)
    }

    fn next(&mut self) -> Result<bool> {
        self.line.clear();
        let mut limited = self.reader.by_ref().take(LONGEST_LINE);
        let read = limited.read_until(b'\n', &mut self.line);
        let read = read.map_err(Failure::of("read the export"))? as u64;
        self.number += 1;
        self.bytes += read;
        if read == LONGEST_LINE {
            return Err(self.wrong("is longer than any record's"));
        }
        Ok(read > 0)
    }

    fn wrong(&self, what: &str) -> Failure {
        Failure::new(format!("line {} {what}", self.number)).with_next(
            "put the line right and import again: the records before it are skipped where they are there already",
        )
    }
}

const PAGE_RECORDS: usize = 4096;
const PAGE_BYTES: usize = 4 << 20;

/// So that a file of another kind is not read into memory as a whole.
const LONGEST_LINE: u64 = 1 << 30;

#[derive(Serialize)]
struct Report {
    dir: String,
    restored: u64,
    present: u64,
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let restored = counted(self.restored, "record");
        writeln!(
            f,
            "restored {restored}; {} there already",
            crate::text::count(self.present)
        )
    }
}
