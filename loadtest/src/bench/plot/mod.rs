//! Pictures of figures, as SVG. [`bars`](Bars) and [`lines`](Lines) know nothing of what they show.

mod axis;
mod bars;
mod figures;
mod lines;
mod svg;

pub(super) use self::figures::quantiles;
pub use self::{
    axis::{Axis, Scale},
    bars::{Bar, Bars},
    lines::{Lines, Series},
};

/// What stands above a picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Title {
    /// What is shown.
    pub text: String,
    /// When, where, with what.
    pub under: String,
}

/// Colours that the colour-blind can tell apart, in the order they are used.
const COLOURS: [&str; 8] = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#8c6d31", "#666666"];

fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}
