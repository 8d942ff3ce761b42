//! A measured figure: median and extremes of its rounds, and whether it reaches its goal.

use anyhow::ensure;
use serde_json::{Value, json};

/// The side of a bound that is good.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn is_reached_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn text(self, unit: &str) -> String {
        let (sign, bound) = match self {
            Self::AtLeast(bound) => ("≥", bound),
            Self::AtMost(bound) => ("≤", bound),
        };
        format!("{sign} {} {unit}", number(bound)).trim_end().to_owned()
    }
}

/// One row of the table.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) name: String,
    /// Median of the rounds.
    pub(super) value: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) unit: &'static str,
    /// The goal in words; empty when there is none.
    pub(super) goal: String,
    /// `None` where there is no goal, or where its condition does not hold.
    pub(super) reached: Option<bool>,
}

impl Figure {
    /// A figure without a goal.
    ///
    /// # Errors
    /// No rounds, or a round that is not a number.
    pub(super) fn new(name: impl Into<String>, unit: &'static str, rounds: &[f64]) -> anyhow::Result<Self> {
        let name = name.into();
        ensure!(!rounds.is_empty() && rounds.iter().all(|value| value.is_finite()), "`{name}` has no figures: {rounds:?}");
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let value = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        };
        Ok(Self { name, value, min: sorted[0], max: sorted[sorted.len() - 1], unit, goal: String::new(), reached: None })
    }

    /// The same with a goal for its median.
    pub(super) fn with_goal(mut self, goal: Goal) -> Self {
        self.goal = goal.text(self.unit);
        self.reached = Some(goal.is_reached_by(self.value));
        self
    }

    /// The same with a goal that holds only under a condition, which the text names.
    pub(super) fn with_goal_where(self, goal: Goal, holds: bool, condition: &str) -> Self {
        let mut figure = self.with_goal(goal);
        figure.goal = format!("{} where {condition}", figure.goal);
        figure.reached = figure.reached.filter(|_| holds);
        figure
    }

    /// As `--json` writes it.
    pub(super) fn to_json(&self) -> Value {
        let Self { name, value, min, max, unit, goal, reached } = self;
        json!({
            "name": name, "value": value, "min": min, "max": max,
            "unit": unit, "goal": goal, "reached": reached,
        })
    }
}

/// A number with about four digits that mean something, and thousands set apart.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let whole = text.find('.').unwrap_or(text.len());
    let mut out = String::new();
    for (at, digit) in text.char_indices() {
        let is_group = at > 0 && at < whole && (whole - at).is_multiple_of(3);
        if is_group && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_figure_is_the_median_with_its_extremes() {
        let figure = Figure::new("x", "s", &[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((figure.value, figure.min, figure.max), (2.0, 1.0, 3.0));
        let even = Figure::new("x", "s", &[4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!(even.value, 2.5);
        assert!(Figure::new("x", "s", &[]).is_err());
        assert!(Figure::new("x", "s", &[f64::NAN]).is_err());
    }

    #[test]
    fn a_goal_is_judged_by_the_median() {
        let figure = |goal| Figure::new("x", "ms", &[1.0, 2.0, 9.0]).unwrap().with_goal(goal);
        assert_eq!(figure(Goal::AtMost(2.0)).reached, Some(true));
        assert_eq!(figure(Goal::AtLeast(2.1)).reached, Some(false));
        assert_eq!(figure(Goal::AtMost(20.0)).goal, "≤ 20.0 ms");
    }

    #[test]
    fn a_goal_whose_condition_does_not_hold_is_not_judged() {
        let figure = Figure::new("x", "", &[1.0]).unwrap();
        let figure = figure.with_goal_where(Goal::AtLeast(0.8), false, "the disk is fast");
        assert_eq!(figure.reached, None);
        assert_eq!(figure.goal, "≥ 0.800 where the disk is fast");
    }

    #[test]
    fn json_has_the_members_that_readers_expect() {
        let figure = Figure::new("x", "s", &[1.0]).unwrap();
        assert_eq!(figure.to_json(), json!({"name": "x", "value": 1.0, "min": 1.0, "max": 1.0, "unit": "s", "goal": "", "reached": null}));
    }

    #[test]
    fn numbers_are_short_and_grouped() {
        let all = [1_234_567.8, 135_413.0, 999.4, 12.34, 1.234, 0.1234, -1234.0];
        let texts = all.map(number);
        assert_eq!(texts, ["1,234,568", "135,413", "999", "12.3", "1.23", "0.123", "-1,234"]);
    }
}
