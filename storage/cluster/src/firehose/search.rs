//! From a seq to the offset of its record. Pure.
//!
//! Seqs and offsets rise together, but not in step: each transaction leaves a mark that takes an offset and has no seq,
//! what a sequencer that died had sent takes offsets too, and an operator may make the seqs jump. So the place is guessed
//! between two known points, looked at, and guessed again.

use std::collections::BTreeMap;

use storage::seq::Seq;

/// A search ends this near before the record: what is read over costs less than another look.
const NEAR: i64 = 256;
/// A guess goes this far before the place where it should be: from there reading forward finds it.
const BEFORE: i64 = 64;
/// Points are kept at least so many seqs apart.
const SPACING: u64 = 4096;
/// So many are kept at most: 32 bytes each.
const POINTS_MAX: usize = 1 << 14;

/// A record that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) seq: Seq,
    pub(super) offset: i64,
}

/// Some records that were seen, spread over the log.
#[derive(Debug, Default)]
pub(super) struct Index {
    points: BTreeMap<Seq, i64>,
}

impl Index {
    /// Notes a record, unless one near it is known.
    pub(super) fn learn(&mut self, Point { seq, offset }: Point) {
        let near = self.points.range(Seq(seq.0.saturating_sub(SPACING))..Seq(seq.0.saturating_add(SPACING)));
        if near.count() > 0 {
            return;
        }
        self.points.insert(seq, offset);
        if self.points.len() > POINTS_MAX {
            let mut odd = false;
            self.points.retain(|_, _| {
                odd = !odd;
                odd
            });
        }
    }

    /// Forgets what is no longer kept.
    pub(super) fn forget_before(&mut self, first: Seq) {
        self.points = self.points.split_off(&first);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.points.clear();
    }

    /// A search for the first record at or after `target`, between these two and what is known: `first` is at or before
    /// the target, `end` after it.
    pub(super) fn search(&self, target: Seq, first: Point, end: Point) -> Search {
        let point = |(seq, offset): (&Seq, &i64)| Point { seq: *seq, offset: *offset };
        let low = self.points.range(..=target).next_back().map(point).filter(|low| low.seq > first.seq);
        let high = self.points.range(target.next()..).next().map(point).filter(|high| high.seq < end.seq);
        Search { target, low: low.unwrap_or(first), high: high.unwrap_or(end), looks: 0 }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Look which record is the first at or after this offset.
    Look(i64),
    /// Read from this offset on: the wanted one comes soon.
    Read(i64),
}

/// A search that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    target: Seq,
    /// Its seq is at most the target.
    low: Point,
    /// Its seq is above the target, and no record from its offset on is the target.
    high: Point,
    looks: u32,
}

impl Search {
    /// What to do next.
    pub(super) fn step(&self) -> Step {
        let Search { target, low, high, looks } = *self;
        let room = high.offset - low.offset;
        let ahead = target.0.saturating_sub(low.seq.0);
        if room <= NEAR || ahead <= NEAR.unsigned_abs() {
            return Step::Read(low.offset);
        }
        // Where guesses don't help, halving does.
        let guess = if looks % 3 == 2 {
            room / 2
        } else {
            let part = i128::from(ahead) * i128::from(room) / i128::from((high.seq.0 - low.seq.0).max(1));
            i64::try_from(part).unwrap_or(room / 2) - BEFORE
        };
        Step::Look(low.offset + guess.clamp(1, room - 1))
    }

    /// What a look at `offset` has shown: the first record from there on, if there is one.
    pub(super) fn seen(&mut self, offset: i64, found: Option<Point>) {
        self.looks += 1;
        match found {
            Some(found) if found.seq <= self.target => self.low = found,
            Some(found) => self.high = Point { seq: found.seq, offset },
            None => self.high.offset = offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Records in order, with gaps.
    fn look(log: &[Point], offset: i64) -> Option<Point> {
        log.get(log.partition_point(|point| point.offset < offset)).copied()
    }

    /// Searches, and gives the looks it took.
    fn find(index: &mut Index, log: &[Point], target: Seq) -> u32 {
        let (first, last) = (log[0], log[log.len() - 1]);
        let end = Point { seq: last.seq.next(), offset: last.offset + 2 };
        let mut search = index.search(target, first, end);
        loop {
            match search.step() {
                Step::Look(offset) => {
                    assert!(search.looks < 200, "{search:?}");
                    let found = look(log, offset);
                    search.seen(offset, found);
                    found.into_iter().for_each(|found| index.learn(found));
                }
                Step::Read(offset) => {
                    let from = log.partition_point(|point| point.offset < offset);
                    let wanted = log.partition_point(|point| point.seq < target);
                    assert!(from <= wanted, "{target} is passed over");
                    assert!(wanted - from <= 2 * NEAR as usize, "{} records before {target}", wanted - from);
                    return search.looks;
                }
            }
        }
    }

    /// Transactions of so many events; a jump of seqs before some.
    fn log(transactions: &[(u64, u64)]) -> Vec<Point> {
        let (mut seq, mut offset, mut log) = (Seq(1000), 5, Vec::new());
        for (events, jump) in transactions {
            seq.0 += jump;
            for _ in 0..*events {
                log.push(Point { seq, offset });
                seq = seq.next();
                offset += 1;
            }
            offset += 1;
        }
        log
    }

    #[test]
    fn a_few_looks_are_enough() {
        // Quiet nights and busy days: a mark for each event, or for each 500.
        let transactions: Vec<_> = (0..40_000_u64).map(|number| (1 + (number / 1000 % 7).pow(3), 0)).collect();
        let log = log(&transactions);
        let mut index = Index::default();
        let mut looks: Vec<_> = (0..1000).map(|at| find(&mut index, &log, log[at * log.len() / 1000].seq)).collect();
        looks.sort_unstable();
        assert!(looks[500] <= 2 && looks[999] <= 12, "p50 {}, max {}", looks[500], looks[999]);
    }

    proptest! {
        #[test]
        fn finds_every_place(
            transactions in prop::collection::vec((1_u64..400, prop_oneof![20 => Just(0_u64), 1 => 0..1_000_000_u64]), 1..60),
            places in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
        ) {
            let log = log(&transactions);
            let mut index = Index::default();
            for place in places {
                find(&mut index, &log, log[place.index(log.len())].seq);
            }
        }
    }
}
