//! Lines over two axes.

use super::{
    Title,
    axis::Axis,
    colour,
    svg::{Anchor, FAINT, GRID, INK, Sheet},
};

/// Some series over two axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Lines {
    /// What stands above.
    pub title: Title,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// What is drawn.
    pub series: Vec<Series>,
    /// Whether each point gets a dot: for few points.
    pub dots: bool,
    /// A line across that must not be passed, with its name.
    pub limit: Option<(f64, String)>,
}

/// A line. Lines of one name have one colour.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 62.0;

impl Lines {
    /// As an SVG document.
    pub fn draw(&self) -> String {
        let mut sheet = Sheet::new(WIDTH, HEIGHT, &self.title);
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = self.x.range(points().map(|(x, _)| *x));
        let y = self.y.range(points().map(|(_, y)| *y).chain(self.limit.as_ref().map(|(limit, _)| *limit)));
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let place = |(at, up): (f64, f64)| (LEFT + x.place(at) * (right - LEFT), bottom - y.place(up) * (bottom - TOP));
        for (value, text) in &y.ticks {
            let at = bottom - y.place(*value) * (bottom - TOP);
            sheet.line((LEFT, at), (right, at), GRID, false);
            sheet.text((LEFT - 8.0, at + 4.0), Anchor::End, FAINT, text);
        }
        for (value, text) in &x.ticks {
            let at = LEFT + x.place(*value) * (right - LEFT);
            sheet.line((at, bottom), (at, bottom + 5.0), FAINT, false);
            sheet.text((at, bottom + 20.0), Anchor::Middle, FAINT, text);
        }
        sheet.line((LEFT, bottom), (right, bottom), FAINT, false);
        sheet.text((f64::midpoint(LEFT, right), HEIGHT - 16.0), Anchor::Middle, INK, &self.x.label);
        sheet.upright((22.0, f64::midpoint(TOP, bottom)), INK, &self.y.label);

        let names = self.names();
        for series in &self.series {
            let number = names.iter().position(|name| *name == series.name).unwrap_or(0);
            let points: Vec<(f64, f64)> = series.points.iter().map(|point| place(*point)).collect();
            sheet.path(&points, colour(number), false);
            if self.dots {
                points.iter().for_each(|point| sheet.dot(*point, colour(number)));
            }
        }
        if let Some((limit, name)) = &self.limit {
            let at = bottom - y.place(*limit) * (bottom - TOP);
            sheet.line((LEFT, at), (right, at), INK, true);
            sheet.text((right, at - 6.0), Anchor::End, INK, name);
        }
        sheet.legend((LEFT, 80.0), names.iter().enumerate().map(|(number, name)| (*name, colour(number))));
        sheet.finish()
    }

    /// The names of series, each once.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for series in &self.series {
            if !names.contains(&series.name.as_str()) {
                names.push(&series.name);
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_points_it_draws() {
        for points in [vec![], vec![(1.0, 1.0)], vec![(0.0, f64::NAN), (1.0, 5.0)], vec![(0.0, 0.0), (10.0, 100.0)]] {
            let series = |name: &str| Series { name: name.to_owned(), points: points.clone() };
            let svg = Lines {
                title: Title { text: "memory".to_owned(), under: String::new() },
                x: Axis::linear("time, s"),
                y: Axis::linear("MiB"),
                series: vec![series("a"), series("b"), series("a")],
                dots: true,
                limit: Some((150.0, "the most".to_owned())),
            }
            .draw();
            assert!(svg.contains("time, s") && svg.contains("MiB") && svg.contains("the most"));
            assert_eq!(svg.matches("<polyline").count(), 3);
            // The name in the legend, once.
            assert_eq!(svg.matches(">a<").count(), 1);
        }
    }
}
