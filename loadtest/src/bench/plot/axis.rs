//! Where a value stands on a line, and which values are written beside it. Pure.

/// What a direction of a picture means.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What, with its unit.
    pub label: String,
    /// How values are laid out.
    pub scale: Scale,
}

/// How values are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from zero.
    Linear,
    /// By their logarithm.
    Log,
    /// Shares of a whole, below 1, so that 0.9, 0.99 and 0.999 are equally far apart.
    Percentile,
}

/// A scale with its ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Range {
    scale: Scale,
    least: f64,
    most: f64,
    /// Values that are written, with their text.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From zero, evenly.
    pub fn linear(label: &str) -> Axis {
        Axis { label: label.to_owned(), scale: Scale::Linear }
    }

    /// By logarithm.
    pub fn log(label: &str) -> Axis {
        Axis { label: label.to_owned(), scale: Scale::Log }
    }

    /// The range that holds all values.
    pub(super) fn range(&self, values: impl Iterator<Item = f64>) -> Range {
        let usable = |value: &f64| match self.scale {
            Scale::Linear => value.is_finite(),
            Scale::Log => value.is_finite() && *value > 0.0,
            Scale::Percentile => (0.0..1.0).contains(value),
        };
        let (least, most) = values
            .filter(usable)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)));
        match self.scale {
            Scale::Linear => linear(if most > 0.0 && most.is_finite() { most } else { 1.0 }),
            Scale::Log if least <= most => log(least, most),
            Scale::Log => log(1.0, 10.0),
            Scale::Percentile => percentiles(if most.is_finite() { most } else { 0.99 }),
        }
    }
}

impl Range {
    /// Where a value stands, 0 to 1; what lies outside, at the end.
    pub(super) fn place(&self, value: f64) -> f64 {
        let laid = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
            Scale::Percentile => -(1.0 - value).max(1e-9).log10(),
        };
        let (least, most) = (laid(self.least), laid(self.most));
        ((laid(value) - least) / (most - least)).clamp(0.0, 1.0)
    }
}

fn linear(most: f64) -> Range {
    let rough = most / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(power * 10.0);
    let count = (most / step).ceil().max(1.0) as usize;
    let ticks = (0..=count).map(|tick| tick as f64 * step).map(|value| (value, written(value))).collect();
    Range { scale: Scale::Linear, least: 0.0, most: count as f64 * step, ticks }
}

fn log(least: f64, most: f64) -> Range {
    // Half decades, so that a picture is not half empty.
    let steps = |value: f64| {
        let power = 10_f64.powf(value.log10().floor());
        [1.0, 2.0, 5.0, 10.0].map(|times| times * power)
    };
    let below = steps(least).into_iter().rfind(|step| *step <= least * 1.000_001).unwrap_or(least);
    let above = steps(most).into_iter().find(|step| *step >= most * 0.999_999).unwrap_or(most);
    let above = if above > below { above } else { below * 10.0 };
    let decades = (below.log10().floor() as i32)..=(above.log10().ceil() as i32);
    let each: &[f64] = if above / below > 1e4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let ticks = decades
        .flat_map(|decade| each.iter().map(move |times| times * 10_f64.powi(decade)))
        .filter(|value| (below * 0.999..=above * 1.001).contains(value))
        .map(|value| (value, written(value)))
        .collect();
    Range { scale: Scale::Log, least: below, most: above, ticks }
}

fn percentiles(most: f64) -> Range {
    let all = [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")];
    let ticks = all.into_iter().filter(|(share, _)| *share <= most).map(|(share, text)| (share, text.to_owned()));
    Range { scale: Scale::Percentile, least: 0.0, most, ticks: ticks.collect() }
}

/// A number as short as it can be: `2,000`, `0.5`.
pub(super) fn written(value: f64) -> String {
    if value >= 1_000.0 {
        return crate::bench::report::thousands(value);
    }
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(range: &Range) -> Vec<&str> {
        range.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn linear_axes_begin_at_zero_and_have_round_ticks() {
        for (most, expected) in [
            (103.0, vec!["0", "25", "50", "75", "100", "125"]),
            (1.0, vec!["0", "0.2", "0.4", "0.6", "0.8", "1"]),
            (19_000.0, vec!["0", "5,000", "10,000", "15,000", "20,000"]),
            (0.0, vec!["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ] {
            let range = Axis::linear("x").range([0.0, most].into_iter());
            assert_eq!(texts(&range), expected, "{most}");
            assert_eq!(range.place(0.0), 0.0);
        }
    }

    #[test]
    fn logarithms() {
        let range = Axis::log("x").range([200.0, 2_000.0, 20_000.0, 0.0].into_iter());
        assert_eq!(texts(&range), ["200", "500", "1,000", "2,000", "5,000", "10,000", "20,000"]);
        assert!((range.place(2_000.0) - 0.5).abs() < 1e-9);
        assert_eq!((range.place(1.0), range.place(1e9)), (0.0, 1.0));
        for values in [vec![], vec![5.0], vec![0.0]] {
            let range = Axis::log("x").range(values.into_iter());
            assert!(range.place(5.0).is_finite() && range.ticks.len() >= 2, "{range:?}");
        }
    }

    #[test]
    fn percentiles_are_spread_by_what_is_left() {
        let axis = Axis { label: String::new(), scale: Scale::Percentile };
        let range = axis.range([0.0, 0.99].into_iter());
        assert_eq!(texts(&range), ["0", "50", "90", "99"]);
        assert!((range.place(0.9) - 0.5).abs() < 1e-9);
    }
}
