//! Bars that lie, each made of parts.

use super::{
    Title,
    axis::{Axis, written},
    svg::{Anchor, CHARACTER, FAINT, GRID, INK, Sheet},
};

/// Some bars over one axis, from zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// What stands above.
    pub title: Title,
    /// What the length of a bar means.
    pub axis: Axis,
    /// From above.
    pub bars: Vec<Bar>,
    /// Values that are marked over all bars, with their names.
    pub marks: Vec<(f64, String)>,
}

/// A bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Its name.
    pub name: String,
    /// Its parts, from the left: name, length, colour.
    pub parts: Vec<(String, f64, &'static str)>,
}

const WIDTH: f64 = 860.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 104.0;
const BOTTOM: f64 = 58.0;
const BAR: f64 = 26.0;
const GAP: f64 = 14.0;

impl Bars {
    /// As an SVG document.
    pub fn draw(&self) -> String {
        let height = TOP + self.bars.len() as f64 * (BAR + GAP) + BOTTOM;
        let mut sheet = Sheet::new(WIDTH, height, &self.title);
        let longest = self.bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or(0);
        let (left, right, bottom) = (36.0 + longest as f64 * CHARACTER, WIDTH - RIGHT, height - BOTTOM);
        let totals = self.bars.iter().map(Bar::total).chain(self.marks.iter().map(|(value, _)| *value));
        let range = self.axis.range(totals);
        let place = |value: f64| left + range.place(value) * (right - left);
        for (value, text) in &range.ticks {
            sheet.line((place(*value), TOP - 6.0), (place(*value), bottom), GRID, false);
            sheet.text((place(*value), bottom + 18.0), Anchor::Middle, FAINT, text);
        }
        let mut names: Vec<(&str, &str)> = Vec::new();
        for (number, bar) in self.bars.iter().enumerate() {
            let (top, mut so_far) = (TOP + number as f64 * (BAR + GAP), 0.0);
            sheet.text((left - 10.0, top + BAR / 2.0 + 4.0), Anchor::End, INK, &bar.name);
            for (name, length, colour) in &bar.parts {
                let (from, to) = (place(so_far), place(so_far + length));
                sheet.rect((from, top), ((to - from).max(0.0), BAR), colour);
                so_far += length;
                if bar.parts.len() > 1 && !names.iter().any(|(known, _)| known == name) {
                    names.push((name, colour));
                }
            }
            sheet.text((place(so_far) + 8.0, top + BAR / 2.0 + 4.0), Anchor::Start, INK, &short(so_far));
        }
        for (value, name) in &self.marks {
            sheet.line((place(*value), TOP - 6.0), (place(*value), bottom), INK, true);
            sheet.text((place(*value), TOP - 10.0), Anchor::Middle, INK, name);
        }
        sheet.text((f64::midpoint(left, right), height - 14.0), Anchor::Middle, INK, &self.axis.label);
        sheet.legend((left, 74.0), names.into_iter());
        sheet.finish()
    }
}

impl Bar {
    fn total(&self) -> f64 {
        self.parts.iter().map(|(_, length, _)| length).sum()
    }
}

fn short(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { written(value.round()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_its_parts_and_its_sum() {
        let svg = Bars {
            title: Title::default(),
            axis: Axis::linear("µs"),
            bars: vec![
                Bar {
                    name: "relay".to_owned(),
                    parts: vec![("judge".to_owned(), 60.0, "#111111"), ("log".to_owned(), 20.25, "#222222")],
                },
                Bar { name: "bare".to_owned(), parts: vec![("all".to_owned(), 40.0, "#333333")] },
            ],
            marks: vec![(80.0, "2×".to_owned())],
        }
        .draw();
        for said in ["relay", "judge", "80.2", "bare", "40.0", "2×", "µs"] {
            assert!(svg.contains(said), "{said}");
        }
        assert!(!svg.contains(">all<"), "a single part needs no name");
        assert!(
            Bars { title: Title::default(), axis: Axis::linear("µs"), bars: Vec::new(), marks: Vec::new() }
                .draw()
                .contains("<svg")
        );
    }
}
