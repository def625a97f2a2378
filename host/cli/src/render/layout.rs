//! Lines of columns in the width of a terminal.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The columns that the first word of a line takes.
pub const STATUS: usize = 9;

/// A cell of a line.
pub struct Cell {
    text: String,
    width: usize,
    is_right: bool,
    /// Where lines are too narrow, the cells with the highest number are left out first.
    priority: u8,
}

impl Cell {
    /// A cell that is aligned to the left.
    pub fn left(text: String, width: usize, priority: u8) -> Self {
        Self { text, width, is_right: false, priority }
    }

    /// A cell that is aligned to the right.
    pub fn right(text: String, width: usize, priority: u8) -> Self {
        Self { text, width, is_right: true, priority }
    }

    fn columns(&self) -> usize {
        self.width.max(self.text.width())
    }

    fn write(&self, out: &mut String) {
        let space = " ".repeat(self.width.saturating_sub(self.text.width()));
        if self.is_right {
            out.extend([space.as_str(), self.text.as_str()]);
        } else {
            out.extend([self.text.as_str(), space.as_str()]);
        }
    }
}

/// A line of a status and cells, in at most `width` columns: cells are left out as needed, and
/// at last the text is truncated.
pub fn fit(status: &str, cells: &[Cell], width: usize) -> String {
    let mut shown: Vec<&Cell> = cells.iter().collect();
    let columns = |shown: &[&Cell]| STATUS + shown.iter().map(|cell| 2 + cell.columns()).sum::<usize>();
    while columns(&shown) > width {
        let Some(least) = shown.iter().map(|cell| cell.priority).max().filter(|least| *least > 0) else { break };
        shown.retain(|cell| cell.priority != least);
    }
    let mut line = format!("{status:>STATUS$}");
    for cell in shown {
        line.push_str("  ");
        cell.write(&mut line);
    }
    truncated(line.trim_end(), width)
}

/// A text in at most `width` columns; `…` stands for what is left out.
pub fn truncated(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut columns = 1;
    for c in text.chars() {
        columns += c.width().unwrap_or(0);
        if columns > width {
            break;
        }
        out.push(c);
    }
    out.push('…');
    out
}

/// Lines of items with commas between them, each in at most `width` columns; the first begins
/// with a status. An item that is wider has a line of its own.
pub fn wrapped(status: &str, items: impl IntoIterator<Item = String>, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = format!("{status:>STATUS$} ");
    let mut is_empty = true;
    for item in items {
        // A comma follows, unless it is the last.
        if !is_empty && line.width() + 2 + item.width() + 1 > width {
            line.push(',');
            lines.push(std::mem::replace(&mut line, " ".repeat(STATUS + 1)));
            is_empty = true;
        }
        line.push_str(if is_empty { " " } else { ", " });
        line.push_str(&item);
        is_empty = false;
    }
    if !is_empty {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells() -> [Cell; 3] {
        let name = Cell::left("train ×4".to_owned(), 10, 0);
        [name, Cell::right("3/4 tasks".to_owned(), 9, 1), Cell::right("7,043 rows".to_owned(), 12, 2)]
    }

    #[test]
    fn a_narrow_line_leaves_out_the_least_important_cells() {
        assert_eq!(fit("running", &cells(), 80), "  running  train ×4    3/4 tasks    7,043 rows");
        assert_eq!(fit("running", &cells(), 40), "  running  train ×4    3/4 tasks");
        assert_eq!(fit("running", &cells(), 24), "  running  train ×4");
        assert_eq!(fit("running", &cells(), 15), "  running  tra…");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 1..120 {
            assert!(fit("running", &cells(), width).width() <= width, "{width}");
            assert!(truncated("年年年年", width).width() <= width, "{width}");
        }
        let items = (0..40).map(|item| format!("item{item}"));
        assert!(wrapped("cached", items, 60).iter().all(|line| line.width() <= 60));
    }
}
