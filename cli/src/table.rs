//! How a table is printed: in columns on a terminal, and with tabs elsewhere.

use crate::style::{PLAIN, STRONG, paint};
use anstyle::Style;
use std::borrow::Cow;
use std::io::{self, Write};
use tabwriter::TabWriter;

/// The greatest width of a cell on a terminal, in characters.
const WIDEST: usize = 33;

/// Rows of cells below a head.
#[derive(Debug)]
pub(crate) struct Table {
    /// The head and the rows. Each cell has a text and a style.
    rows: Vec<Vec<(String, Style)>>,
}

impl Table {
    pub(crate) fn new<'a>(head: impl IntoIterator<Item = &'a str>) -> Self {
        let head = head.into_iter().map(|cell| (cell.to_owned(), STRONG));
        Self {
            rows: vec![head.collect()],
        }
    }

    /// Adds a row.
    pub(crate) fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.styled_row(cells.into_iter().map(|cell| (cell.into(), PLAIN)));
    }

    /// Adds a row in which each cell has a style. Replaces control characters: they come from
    /// outside, and would change the terminal or the columns.
    pub(crate) fn styled_row(&mut self, cells: impl IntoIterator<Item = (String, Style)>) {
        let plain = |cell: String| cell.replace(char::is_control, "\u{fffd}");
        let cells = cells.into_iter().map(|(cell, style)| (plain(cell), style));
        self.rows.push(cells.collect());
    }

    /// Formats the table with tabs, for a pipe. All cells are whole.
    pub(crate) fn tabs(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let cells: Vec<_> = row.iter().map(|(cell, _)| cell.as_str()).collect();
            cells.join("\t") + "\n"
        });
        rows.collect()
    }

    /// Formats the table in columns, for a terminal. Long cells lose their middle.
    pub(crate) fn columns(&self) -> io::Result<String> {
        // `TabWriter` ends a column at a line that does not have it, so all lines have all columns.
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut writer = TabWriter::new(Vec::new()).padding(2).ansi(true);
        for row in &self.rows {
            let cells = row.iter().map(|(cell, style)| match *style == PLAIN {
                true => shortened(cell).into_owned(),
                false => paint(*style, shortened(cell)),
            });
            let mut cells: Vec<_> = cells.collect();
            cells.resize(columns, String::new());
            writeln!(writer, "{}", cells.join("\t"))?;
        }
        let text = writer.into_inner();
        let text = text.map_err(|error| io::Error::other(error.to_string()))?;
        let text = String::from_utf8(text).map_err(io::Error::other)?;
        Ok(text
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect())
    }
}

/// Shortens a cell to [`WIDEST`] characters. It cuts out the middle, because digests and paths
/// differ at their ends.
fn shortened(cell: &str) -> Cow<'_, str> {
    let all = cell.chars().count();
    if all <= WIDEST {
        return Cow::Borrowed(cell);
    }
    let half = WIDEST / 2;
    let begin = cell.chars().take(half);
    let end = cell.chars().skip(all - half);
    Cow::Owned(begin.chain(['…']).chain(end).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::style::GOOD;

    fn sample() -> Table {
        let mut table = Table::new(["fact", "redis"]);
        table.row(["length", "12"]);
        table.styled_row([
            ("as a layer".to_owned(), PLAIN),
            ("y\u{1b}es".to_owned(), GOOD),
        ]);
        table
    }

    #[test]
    fn cells_of_a_column_are_aligned() {
        let yes = paint(GOOD, "y\u{fffd}es");
        let [fact, redis] = ["fact", "redis"].map(|cell| paint(STRONG, cell));
        assert_eq!(
            sample().columns().unwrap(),
            format!("{fact}        {redis}\nlength      12\nas a layer  {yes}\n")
        );
    }

    #[test]
    fn a_short_row_does_not_end_a_column() {
        let mut table = Table::new(["node", "asked", "loads"]);
        table.row(["a", "1", "2"]);
        table.row(["b", "away"]);
        table.row(["a-long-name", "1", "2"]);
        let columns = table.columns().unwrap();
        let rows: Vec<_> = columns.lines().skip(1).collect();
        assert_eq!(
            rows,
            [
                "a            1      2",
                "b            away",
                "a-long-name  1      2"
            ]
        );
    }

    #[test]
    fn a_long_cell_loses_its_middle() {
        let mut table = Table::new(["digest", "is"]);
        let digest = format!("sha256:{}{}", "a".repeat(32), "b".repeat(32));
        table.row([digest.as_str(), "here"]);
        assert_eq!(
            table.columns().unwrap().lines().last(),
            Some("sha256:aaaaaaaaa…bbbbbbbbbbbbbbbb  here")
        );
        assert!(table.tabs().contains(&digest));
    }

    #[test]
    fn a_pipe_gets_tabs() {
        assert_eq!(
            sample().tabs(),
            "fact\tredis\nlength\t12\nas a layer\ty\u{fffd}es\n"
        );
    }
}
