//! A sheet that shapes are put on.

use std::fmt::{self, Display, Write};

use super::Title;

/// An SVG document in the making. Coordinates are pixels from the upper left.
pub(super) struct Sheet {
    width: f64,
    height: f64,
    body: String,
}

/// Which side of its point a text stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

pub(super) const INK: &str = "#222222";
pub(super) const FAINT: &str = "#6b6b6b";
pub(super) const GRID: &str = "#e3e3e3";

/// The mean width of a character of text of 12 pixels.
pub(super) const CHARACTER: f64 = 6.6;

impl Sheet {
    /// An empty one, with its title.
    pub(super) fn new(width: f64, height: f64, title: &Title) -> Sheet {
        let mut sheet = Sheet { width, height, body: String::new() };
        sheet.put(format_args!(
            "<text x=\"24\" y=\"32\" font-size=\"17\" font-weight=\"600\" fill=\"{INK}\">{}</text>",
            Escaped(&title.text)
        ));
        sheet.put(format_args!(
            "<text x=\"24\" y=\"52\" font-size=\"12\" fill=\"{FAINT}\">{}</text>",
            Escaped(&title.under)
        ));
        sheet
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, dashes: bool) {
        let dashes = if dashes { " stroke-dasharray=\"4 3\"" } else { "" };
        self.put(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"{dashes}/>",
            from.0, from.1, to.0, to.1
        ));
    }

    pub(super) fn rect(&mut self, at: (f64, f64), size: (f64, f64), colour: &str) {
        self.put(format_args!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
            at.0, at.1, size.0, size.1
        ));
    }

    pub(super) fn dot(&mut self, at: (f64, f64), colour: &str) {
        self.put(format_args!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", at.0, at.1));
    }

    pub(super) fn path(&mut self, points: &[(f64, f64)], colour: &str, dashes: bool) {
        let dashes = if dashes { " stroke-dasharray=\"6 4\"" } else { "" };
        let points = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ");
        self.put(format_args!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" stroke-linejoin=\"round\"{dashes}/>"
        ));
    }

    pub(super) fn text(&mut self, at: (f64, f64), anchor: Anchor, colour: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"12\" text-anchor=\"{anchor}\" fill=\"{colour}\">{}</text>",
            at.0,
            at.1,
            Escaped(text)
        ));
    }

    /// Text that is read from below.
    pub(super) fn upright(&mut self, at: (f64, f64), colour: &str, text: &str) {
        self.put(format_args!(
            "<text transform=\"translate({:.1} {:.1}) rotate(-90)\" font-size=\"12\" text-anchor=\"middle\" fill=\"{colour}\">{}</text>",
            at.0,
            at.1,
            Escaped(text)
        ));
    }

    /// A row of coloured names, that begins at `at`.
    pub(super) fn legend<'a>(&mut self, at: (f64, f64), names: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut x = at.0;
        for (name, colour) in names {
            self.rect((x, at.1 - 9.0), (10.0, 10.0), colour);
            self.text((x + 15.0, at.1), Anchor::Start, INK, name);
            x += 15.0 + name.chars().count() as f64 * CHARACTER + 18.0;
        }
    }

    /// The document.
    pub(super) fn finish(self) -> String {
        let Sheet { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"system-ui, 'DejaVu Sans', Helvetica, Arial, sans-serif\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }

    fn put(&mut self, shape: fmt::Arguments<'_>) {
        writeln!(self.body, "{shape}").expect("a String takes all that is written");
    }
}

/// Text between tags.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out() {
        let title = Title { text: "a < b & \"c\"".to_owned(), under: "</text>".to_owned() };
        let svg = Sheet::new(10.0, 10.0, &title).finish();
        assert!(svg.contains("a &lt; b &amp; \"c\"") && svg.contains("&lt;/text&gt;"));
    }
}
