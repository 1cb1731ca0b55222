//! What is shown: a table, printed, and kept in docs/faults.md.

use std::{fmt::Write as _, fs, time::Duration};

/// The page with the table.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");

/// Around the table.
const MARKS: [&str; 2] = ["<!-- shown by tests/faults -->\n", "<!-- end -->\n"];

/// One fault, and what came of it.
pub(crate) struct Row {
    /// What it was done to, and what was done.
    pub(crate) fault: (&'static str, &'static str),
    /// How often it struck.
    pub(crate) times: usize,
    /// What was not there in the end, though it was declared, or told to be published.
    pub(crate) lost: usize,
    /// What was there more than once.
    pub(crate) doubled: usize,
    /// From each end of the fault until everything was as it should be.
    pub(crate) settled: Vec<Duration>,
}

impl Row {
    fn cells(&self) -> [String; 7] {
        let mut settled = self.settled.clone();
        settled.sort_unstable();
        let middle = settled.len() / 2;
        let median = if settled.len().is_multiple_of(2) {
            (settled[middle - 1] + settled[middle]) / 2
        } else {
            settled[middle]
        };
        [
            self.fault.0.to_owned(),
            self.fault.1.to_owned(),
            self.times.to_string(),
            self.lost.to_string(),
            self.doubled.to_string(),
            seconds(median),
            seconds(settled[settled.len() - 1]),
        ]
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f32())
}

/// All of them.
#[derive(Default)]
pub(crate) struct Matrix(Vec<Row>);

impl Matrix {
    /// Adds a row, and tells it at once.
    pub(crate) fn add(&mut self, row: Row) {
        super::progress(&line(&row.cells()));
        self.0.push(row);
    }

    /// All rows of another one behind one's own.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let head = "| Where | Fault | Times | Lost | Doubled | Settled: median | At most |\n\
                    |---|---|---|---|---|---|---|\n";
        let mut table = head.to_owned();
        for row in &self.0 {
            writeln!(table, "{}", line(&row.cells())).unwrap();
        }
        table
    }

    /// Compares with the documentation what is the same in each run, or writes all of it.
    pub(crate) fn documented(&self) {
        let page = fs::read_to_string(PAGE).unwrap();
        let (head, rest) = page.split_once(MARKS[0]).unwrap();
        let (documented, tail) = rest.split_once(MARKS[1]).unwrap();
        if std::env::var_os("TRUSTWEAVE_WRITE_DOCS").is_some() {
            let table = self.table();
            let page = format!("{head}{}{table}{}{tail}", MARKS[0], MARKS[1]);
            fs::write(PAGE, page).unwrap();
        } else {
            assert_eq!(
                stable(documented),
                stable(&self.table()),
                "docs/faults.md: TRUSTWEAVE_WRITE_DOCS=1 writes it anew"
            );
        }
    }

    /// Nothing may be lost, and nothing doubled.
    pub(crate) fn passes(&self) {
        for row in &self.0 {
            assert_eq!((row.lost, row.doubled), (0, 0), "{}", line(&row.cells()));
        }
    }
}

fn line(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// The columns of a table that no run changes: where, what, lost and doubled.
fn stable(table: &str) -> Vec<Vec<&str>> {
    let rows = table
        .lines()
        .map(|row| row.split('|').map(str::trim).collect());
    rows.map(|cells: Vec<&str>| [1, 2, 4, 5].map(|at| cells[at]).to_vec())
        .collect()
}
