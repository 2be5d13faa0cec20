//! Compares the tables of the guide with what the tests have measured.

use crate::lab::Measured;
use std::collections::BTreeMap;
use std::fmt::Write;

const GUIDE: &str = include_str!("../../../src/guide/costs.md");

/// The place of a cell in the guide: the heading of its page section, its row and its column.
type Place = (String, String, String);

/// A measured cost: its text in the guide, and what explains it.
#[derive(Debug)]
struct Figure {
    text: String,
    detail: String,
}

/// The measured costs of one section of the guide.
#[derive(Debug)]
pub(crate) struct Figures {
    section: &'static str,
    figures: BTreeMap<Place, Figure>,
}

impl Figures {
    pub(crate) const fn of(section: &'static str) -> Self {
        Self {
            section,
            figures: BTreeMap::new(),
        }
    }

    /// Adds the measured cost of an operation.
    pub(crate) fn add(&mut self, row: &str, column: &str, measured: &Measured) {
        let detail = format!("the round trips: {:?}", measured.trips);
        self.insert(row, column, measured.cost.to_string(), detail);
    }

    /// Adds a measured number of allocations.
    pub(crate) fn add_number(&mut self, row: &str, column: &str, number: u64) {
        self.insert(row, column, number.to_string(), String::new());
    }

    fn insert(&mut self, row: &str, column: &str, text: String, detail: String) {
        let place = (self.section.to_owned(), row.to_owned(), column.to_owned());
        let before = self.figures.insert(place, Figure { text, detail });
        assert!(before.is_none(), "measured twice: {row}, {column}");
    }
}

/// Returns all cells of all tables of the guide. The first cell of a table's row names the row.
fn cells(guide: &str) -> BTreeMap<Place, String> {
    let mut cells = BTreeMap::new();
    let (mut section, mut columns) = ("", Vec::new());
    for line in guide.lines() {
        if let Some(heading) = line.strip_prefix("# ") {
            section = heading;
        }
        let Some(row) = line.strip_prefix('|') else {
            columns.clear();
            continue;
        };
        let row: Vec<_> = row
            .trim_end_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        if columns.is_empty() {
            columns = row;
            continue;
        }
        assert_eq!(row.len(), columns.len(), "{line}");
        if row[0].starts_with("---") {
            continue;
        }
        for (column, cell) in columns.iter().zip(&row).skip(1) {
            let place = (section.to_owned(), row[0].to_owned(), (*column).to_owned());
            let before = cells.insert(place, (*cell).to_owned());
            assert!(before.is_none(), "twice in the guide: {line}");
        }
    }
    cells
}

/// Returns one line for each cell that differs from its measurement, each cell that no test
/// measures, and each measurement that the guide does not have.
fn differences(guide: &str, measured: Vec<Figures>) -> String {
    let mut cells = cells(guide);
    let mut lines = String::new();
    for (place, Figure { text, detail }) in measured.into_iter().flat_map(|part| part.figures) {
        let stated = cells.remove(&place);
        if stated.as_ref() != Some(&text) {
            let stated = stated.as_deref().unwrap_or("nothing");
            let (section, row, column) = place;
            writeln!(
                lines,
                "{section} | {row} | {column}: the guide has {stated}, measured is {text}; {detail}"
            )
            .expect("a text takes all");
        }
    }
    for ((section, row, column), stated) in cells {
        writeln!(
            lines,
            "{section} | {row} | {column}: the guide has {stated}, and no test measures it"
        )
        .expect("a text takes all");
    }
    lines
}

/// Checks that the guide has these costs, and no others.
///
/// # Panics
/// If it does not.
pub(crate) fn assert_equal(measured: Vec<Figures>) {
    let differences = differences(GUIDE, measured);
    assert!(differences.is_empty(), "src/guide/costs.md:\n{differences}");
}

#[test]
fn a_wrong_cell_and_an_unmeasured_cell_are_reported() {
    let guide = "# Reads\n\n| operation | hit | miss |\n|---|---|---|\n| `stat` | 0 | 2 |\n";
    let measured = |miss| {
        let mut figures = Figures::of("Reads");
        figures.add_number("`stat`", "hit", 0);
        figures.add_number("`stat`", "miss", miss);
        vec![figures]
    };
    assert_eq!(differences(guide, measured(2)), "");
    let wrong = differences(guide, measured(3));
    assert!(wrong.contains("the guide has 2, measured is 3"), "{wrong}");
    let another_row = format!("{guide}| `list` | 1 | 1 |\n");
    let unmeasured = differences(&another_row, measured(2));
    assert_eq!(unmeasured.matches("no test measures it").count(), 2);
    let without_row = differences("# Reads\n", measured(2));
    assert_eq!(without_row.matches("the guide has nothing").count(), 2);
}
