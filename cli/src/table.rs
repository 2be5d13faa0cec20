//! How a table is printed: in columns on a terminal, and with tabs elsewhere.

use crate::out::{Out, Tone};
use std::borrow::Cow;

/// Rows of cells under a head.
#[derive(Debug, Default)]
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<(String, Option<Tone>)>>,
}

impl Table {
    pub(crate) fn new<'a>(head: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            head: head.into_iter().map(str::to_owned).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let cells = cells.into_iter().map(|cell| (plain(cell.into()), None));
        self.rows.push(cells.collect());
    }

    /// Adds a row in which some cells have a colour.
    pub(crate) fn toned_row(&mut self, cells: impl IntoIterator<Item = (String, Option<Tone>)>) {
        let cells = cells.into_iter().map(|(cell, tone)| (plain(cell), tone));
        self.rows.push(cells.collect());
    }

    /// Formats the table. On a terminal it has columns, and long cells lose their middle. Elsewhere
    /// it has tabs, and all cells are whole.
    pub(crate) fn print(&self, out: &Out) -> String {
        match out.is_terminal() {
            true => self.columns(|tone, text| out.paint(tone, text)),
            false => self.tabs(),
        }
    }

    fn tabs(&self) -> String {
        let head = self.head.join("\t");
        let rows = self.rows.iter().map(|row| {
            let cells: Vec<_> = row.iter().map(|(cell, _)| cell.as_str()).collect();
            cells.join("\t")
        });
        let lines = std::iter::once(head).chain(rows);
        lines.map(|line| line + "\n").collect()
    }

    fn columns(&self, paint: impl Fn(Tone, &str) -> String) -> String {
        let widest = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let cells = cells.map(|(cell, _)| cell);
            let all = cells.chain(self.head.get(column));
            all.map(|cell| width(cell)).max().unwrap_or(0)
        };
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns.max(self.head.len())).map(widest).collect();
        let head = self.head.iter().map(|cell| (cell, Some(Tone::Strong)));
        let mut text = line(head, &widths, &paint);
        for row in &self.rows {
            let row = row.iter().map(|(cell, tone)| (cell, *tone));
            text += &line(row, &widths, &paint);
        }
        text
    }
}

/// Replaces control characters. They come from outside, and must not reach a terminal.
fn plain(cell: String) -> String {
    match cell.contains(char::is_control) {
        true => cell.replace(char::is_control, "\u{fffd}"),
        false => cell,
    }
}

/// The greatest width of a cell, in characters.
const WIDEST: usize = 33;

fn width(cell: &str) -> usize {
    cell.chars().count().min(WIDEST)
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

fn line<'a>(
    cells: impl Iterator<Item = (&'a String, Option<Tone>)>,
    widths: &[usize],
    paint: &impl Fn(Tone, &str) -> String,
) -> String {
    let mut text = String::new();
    let mut owed = 0;
    for ((cell, tone), width) in cells.zip(widths) {
        // The last cell gets no spaces after it, because they could wrap the line.
        text.extend(std::iter::repeat_n(' ', owed));
        let cell = shortened(cell);
        owed = width - cell.chars().count() + 2;
        match tone {
            Some(tone) => text += &paint(tone, &cell),
            None => text += &cell,
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(["fact", "redis"]);
        table.row(["length", "12"]);
        table.toned_row([
            ("as a layer".to_owned(), None),
            ("y\u{1b}es".to_owned(), Some(Tone::Good)),
        ]);
        table
    }

    #[test]
    fn columns_stand_under_each_other() {
        let text = sample().columns(|tone, text| match tone {
            Tone::Good => format!("<{text}>"),
            _ => text.to_owned(),
        });
        assert_eq!(
            text,
            "fact        redis\nlength      12\nas a layer  <y\u{fffd}es>\n"
        );
    }

    #[test]
    fn a_long_cell_loses_its_middle() {
        let mut table = Table::new(["digest", "is"]);
        let digest = format!("sha256:{}{}", "a".repeat(32), "b".repeat(32));
        table.row([digest.as_str(), "here"]);
        assert_eq!(
            table.columns(|_, text| text.to_owned()).lines().last(),
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
