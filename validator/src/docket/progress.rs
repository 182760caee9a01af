use std::collections::VecDeque;

use storage::intake::Position;

/// A lane's low-water mark: the last position that is settled with all before it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Open positions and those settled after the first open one, rising.
    open: VecDeque<(Position, bool)>,
    moved_to: Option<Position>,
}

impl Progress {
    /// A frame has been taken; positions rise, perhaps with gaps.
    pub(super) fn open(&mut self, position: Position) {
        self.open.push_back((position, false));
    }

    /// A frame is settled and, if accepted, durable.
    pub(super) fn close(&mut self, position: Position) {
        let Ok(at) = self.open.binary_search_by_key(&position, |&(open, _)| open) else { return };
        self.open[at].1 = true;
        while let Some(&(first, true)) = self.open.front() {
            self.open.pop_front();
            self.moved_to = Some(first);
        }
    }

    /// The mark, if it has moved since the last call.
    pub(super) fn moved(&mut self) -> Option<Position> {
        self.moved_to.take()
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
            let mut mark = None;
            for pick in order {
                if left.is_empty() { break }
                progress.close(Position(left.remove(pick.index(left.len()))));
                mark = progress.moved().or(mark);
                let expected = match left.first() {
                    None => positions.last().copied(),
                    Some(first) => positions.iter().copied().take_while(|position| position < first).last(),
                };
                prop_assert_eq!(mark, expected.map(Position));
            }
        }
    }
}
