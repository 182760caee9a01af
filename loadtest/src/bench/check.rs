//! A figure and what it must not pass.

use std::fmt;

use serde_json::{Value, json};

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What.
    pub name: String,
    /// What was measured; the unit is in the name.
    pub value: f64,
    /// What it must not pass.
    pub bound: Bound,
}

/// What a figure must not pass. No number passes none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// It may be so much, and no more.
    AtMost(f64),
    /// It must be so much, or more.
    AtLeast(f64),
}

impl Check {
    /// That `value` doesn't pass `bound`.
    pub fn new(name: impl Into<String>, value: f64, bound: Bound) -> Check {
        Check { name: name.into(), value, bound }
    }

    /// Whether it does hold.
    pub fn holds(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.value <= most,
            Bound::AtLeast(least) => self.value >= least,
        }
    }

    /// With `name`, `value`, `holds`, and `most` or `least`.
    pub fn to_json(&self) -> Value {
        let Check { name, value, bound } = self;
        match bound {
            Bound::AtMost(most) => json!({"name": name, "value": value, "most": most, "holds": self.holds()}),
            Bound::AtLeast(least) => json!({"name": name, "value": value, "least": least, "holds": self.holds()}),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holds = if self.holds() { "holds" } else { "FAILS" };
        let (word, bound) = match self.bound {
            Bound::AtMost(most) => ("at most", most),
            Bound::AtLeast(least) => ("at least", least),
        };
        write!(f, "{holds}  {:<64}{:>8.2}  ({word} {bound})", self.name, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_what_holds() {
        for (value, bound, holds) in [
            (1.5, Bound::AtMost(1.5), true),
            (1.6, Bound::AtMost(1.5), false),
            (0.4, Bound::AtLeast(0.4), true),
            (0.3, Bound::AtLeast(0.4), false),
            (f64::NAN, Bound::AtMost(1.0), false),
            (f64::NAN, Bound::AtLeast(0.0), false),
        ] {
            assert_eq!(Check::new("x", value, bound).holds(), holds, "{value} {bound:?}");
        }
    }
}
