//! Several measurements of one thing, as a median and a range.

use std::fmt;

use serde_json::{Value, json};

/// The middle of some measurements, the least and the most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of measurements that are numbers; `None` where there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Spread { median, least, most })
    }

    /// With `median`, `least` and `most`.
    pub fn to_json(&self) -> Value {
        json!({"median": self.median, "least": self.least, "most": self.most})
    }
}

/// The median, and the range where there is one: `105.1 (101.0–110.9)`. Takes a precision: `{:.0}`.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(1);
        let Spread { median, least, most } = self;
        if format!("{least:.digits$}") == format!("{most:.digits$}") {
            return write!(f, "{median:.digits$}");
        }
        write!(f, "{median:.digits$} ({least:.digits$}–{most:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_ends() {
        for (values, median, least, most) in [
            (vec![3.0], 3.0, 3.0, 3.0),
            (vec![3.0, 1.0], 2.0, 1.0, 3.0),
            (vec![9.0, 1.0, 5.0], 5.0, 1.0, 9.0),
            (vec![9.0, f64::NAN, 1.0, 5.0], 5.0, 1.0, 9.0),
        ] {
            assert_eq!(Spread::of(values), Some(Spread { median, least, most }));
        }
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::INFINITY]), None);
    }

    #[test]
    fn a_range_is_said_where_there_is_one() {
        let spread = Spread::of([100.0, 104.6, 111.2]).unwrap();
        assert_eq!(format!("{spread}"), "104.6 (100.0–111.2)");
        assert_eq!(format!("{spread:.0}"), "105 (100–111)");
        assert_eq!(format!("{:.1}", Spread::of([2.01, 2.02]).unwrap()), "2.0");
    }
}
