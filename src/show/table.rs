//! Tables: drawn and fitted to the window on a terminal; elsewhere one line per row with a tab between cells, for `cut` and `awk`.

use std::io::IsTerminal;

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, presets};

use crate::output;

/// Width when a terminal does not tell its own.
const USUAL_WIDTH: u16 = 80;

/// Space between columns, and what the last one needs at least.
const GAP: u16 = 2;
const WORDS_WIDTH: u16 = 14;

/// Rows below headings. Cells have been made harmless by whoever filled them.
pub(crate) struct Rows {
    headings: Vec<&'static str>,
    /// Columns with numbers, which stand at the right.
    numbers: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    pub(crate) fn new(headings: &[&'static str], numbers: &[usize]) -> Self {
        Self { headings: headings.to_vec(), numbers: numbers.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Prints the table; `nothing` when it has no rows and somebody looks.
    pub(crate) fn print(self, nothing: &str) {
        let seen = std::io::stdout().is_terminal();
        if self.rows.is_empty() && seen {
            return output::note(nothing);
        }
        if seen { output::line(self.drawn()) } else { self.plain().lines().for_each(output::line) }
    }

    fn drawn(&self) -> String {
        let mut table = Table::new();
        let style = presets::NOTHING.header_separator(LineStyle::none().fill('\u{2500}').junction('\u{2500}'));
        table.load_style(style).set_content_arrangement(ContentArrangement::Dynamic);
        let width = table.width().unwrap_or(USUAL_WIDTH);
        table.set_width(width);
        table.set_header(&self.headings);
        for row in &self.rows {
            table.add_row(row.iter().enumerate().map(|(column, cell)| {
                let side = if self.numbers.contains(&column) { CellAlignment::Right } else { CellAlignment::Left };
                Cell::new(cell).set_alignment(side)
            }));
        }
        // Where it fits, the last column alone is folded: it has the words.
        let widths = table.column_max_content_widths();
        let (last, others) = widths.split_last().map_or((0, &[][..]), |(last, others)| (*last, others));
        let taken = others.iter().fold(0, |sum: u16, width| sum.saturating_add(*width).saturating_add(GAP));
        let fits = taken.saturating_add(last.min(WORDS_WIDTH)) <= width;
        for (number, column) in table.column_iter_mut().enumerate() {
            // The rest of the gap is the place of a line that is not drawn.
            column.set_padding((0, GAP.saturating_sub(1)));
            if fits && number < others.len() {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table.to_string()
    }

    fn plain(&self) -> String {
        let mut out = self.headings.join("\t");
        for row in &self.rows {
            out.push('\n');
            out.push_str(&row.join("\t"));
        }
        out
    }
}

/// Names and values of one thing, a line each.
pub(crate) fn facts(facts: &[(&str, String)]) {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        output::line(format!("{name:<width$}  {value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_fits_only_the_words_of_the_last_column_are_folded() {
        let mut rows = Rows::new(&["LABEL", "USDC/MIN", "UPTIME", "START", "LEVEL", "REGION", "FREE", "TOOLS"], &[1, 2, 3, 6]);
        let cells = ["example_workshop", "0.06", "99.99 %", "24 ms", "S2", "local", "7/8", "run_build compile_file count_words wait"];
        rows.add(cells.map(str::to_owned).to_vec());
        let drawn = rows.drawn();
        for word in cells.iter().flat_map(|cell| cell.split(' ')) {
            assert!(drawn.contains(word), "{word} is cut:\n{drawn}");
        }
        assert!(drawn.lines().all(|line| line.chars().count() <= usize::from(USUAL_WIDTH)), "{drawn}");
    }

    #[test]
    fn a_row_is_one_line_with_tabs_where_nobody_looks_and_a_drawn_table_fits_the_width() {
        let mut rows = Rows::new(&["NAME", "PRICE"], &[1]);
        rows.add(vec!["a very long name ".repeat(20), "0.06".to_owned()]);
        let plain = rows.plain();
        assert_eq!(plain.lines().count(), 2);
        assert!(plain.lines().all(|line| line.split('\t').count() == 2), "{plain}");
        let drawn = rows.drawn();
        assert!(drawn.lines().all(|line| line.chars().count() <= usize::from(USUAL_WIDTH)), "{drawn}");
    }
}
