//! Figures as an aligned table for people.

use super::figure::{Figure, number};

const TITLES: [&str; 6] = ["figure", "median", "min", "max", "unit", "goal"];

/// One line per figure under a line of titles; empty for no figures.
pub(super) fn render(figures: &[Figure]) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let mut rows = vec![TITLES.map(str::to_owned)];
    rows.extend(figures.iter().map(row));
    let widths: [usize; 6] = std::array::from_fn(|column| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or_default()
    });
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = (0..6).map(|at| cell(&row[at], widths[at], at)).collect();
        text.push_str("  ");
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(figure: &Figure) -> [String; 6] {
    let verdict = match figure.reached {
        None if figure.goal.is_empty() => String::new(),
        None => format!("{} (not judged)", figure.goal),
        Some(true) => format!("{} (reached)", figure.goal),
        Some(false) => format!("{} (NOT reached)", figure.goal),
    };
    [figure.name.clone(), number(figure.value), number(figure.min), number(figure.max), figure.unit.to_owned(), verdict]
}

/// Numbers stand on the right of their column, words on the left.
fn cell(text: &str, width: usize, column: usize) -> String {
    match column {
        1..=3 => format!("{text:>width$}"),
        _ => format!("{text:<width$}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::figure::Goal;
    use super::*;

    #[test]
    fn columns_are_aligned_and_verdicts_readable() {
        let figures = [
            Figure::new("read-32", "of floor", &[0.9]).unwrap().with_goal(Goal::AtLeast(0.8)),
            Figure::new("read-32/requests", "1/s", &[100_000.0]).unwrap(),
        ];
        let expected = "
  figure             median      min      max  unit      goal
  read-32             0.900    0.900    0.900  of floor  ≥ 0.800 of floor (reached)
  read-32/requests  100,000  100,000  100,000  1/s
";
        assert_eq!(render(&figures), expected.trim_start_matches('\n'));
        assert_eq!(render(&[]), "");
    }
}
