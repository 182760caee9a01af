use std::collections::BTreeMap;

use storage::intake::Position;

/// Which of a lane's frames are settled: the low-water mark (the last position that is settled with all before it), and
/// those settled past it. Holds only what is open, however long one of them is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Open positions, each with the one that was taken before it.
    open: BTreeMap<Position, Option<Position>>,
    newest: Option<Position>,
    /// The mark as it was last given.
    told: Option<Position>,
    early: Vec<Position>,
}

impl Progress {
    /// A frame has been taken; positions rise, perhaps with gaps.
    pub(super) fn open(&mut self, position: Position) {
        self.open.insert(position, self.newest);
        self.newest = Some(position);
    }

    /// A frame is settled and, if accepted, durable.
    pub(super) fn close(&mut self, position: Position) {
        self.open.remove(&position);
        if self.open.first_key_value().is_some_and(|(first, _)| *first < position) {
            self.early.push(position);
        }
    }

    /// The mark, if it has moved since the last call.
    pub(super) fn moved(&mut self) -> Option<Position> {
        let mark = match self.open.first_key_value() {
            Some((_, before)) => *before,
            None => self.newest,
        };
        if mark == self.told {
            return None;
        }
        self.told = mark;
        mark
    }

    /// Those settled since the last call while one before them was open. The mark may have passed some of them since.
    pub(super) fn early(&mut self) -> Vec<Position> {
        std::mem::take(&mut self.early)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_mark_is_the_end_of_the_settled_run(
            gaps in prop::collection::vec(1u64..4, 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let positions: Vec<u64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut progress = Progress::default();
            for &position in &positions {
                progress.open(Position(position));
            }
            let mut left = positions.clone();
            let (mut mark, mut early) = (None, Vec::new());
            for pick in order {
                if left.is_empty() { break }
                progress.close(Position(left.remove(pick.index(left.len()))));
                early.extend(progress.early());
                mark = progress.moved().or(mark);
                let expected = match left.first() {
                    None => positions.last().copied(),
                    Some(first) => positions.iter().copied().take_while(|position| position < first).last(),
                };
                prop_assert_eq!(mark, expected.map(Position));
                let is_settled = |position: &u64| !left.contains(position);
                for position in positions.iter().filter(|position| is_settled(position)) {
                    let is_told = Some(Position(*position)) <= mark || early.contains(&Position(*position));
                    prop_assert!(is_told, "{} is settled and nobody hears of it", position);
                }
                prop_assert!(early.iter().all(|position| is_settled(&position.0)));
            }
        }
    }
}
