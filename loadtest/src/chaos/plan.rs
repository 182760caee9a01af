//! Which faults a run has, in which order, and after how long each: all of it follows from the seed. Pure.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus, seq::SliceRandom};

use super::Fault;

/// One fault of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// What breaks.
    pub fault: Fault,
    /// How long all is well before.
    pub after: Duration,
    /// How long a victim that was killed is away, or more than its session's time for one that stands still.
    pub away: Duration,
    /// Chooses among those that could be the victim.
    pub victim: usize,
}

/// All is well for so long before each fault, and up to [`AFTER_SPREAD`] more.
const AFTER_MIN: Duration = Duration::from_secs(1);
const AFTER_SPREAD: Duration = Duration::from_millis(1_500);
const AWAY_MAX: Duration = Duration::from_secs(2);

/// The rounds of a run that has each of these faults so often.
pub fn draw(seed: u64, faults: &[(Fault, usize)]) -> Vec<Round> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut order: Vec<Fault> = faults.iter().flat_map(|(fault, often)| std::iter::repeat_n(*fault, *often)).collect();
    order.shuffle(&mut rng);
    let mut up_to = |limit: Duration| {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(rng.random_range(0..=micros))
    };
    let mut rounds = Vec::with_capacity(order.len());
    for fault in order {
        let (after, away) = (AFTER_MIN + up_to(AFTER_SPREAD), up_to(AWAY_MAX));
        let victim = usize::try_from(up_to(Duration::from_millis(1)).as_micros()).unwrap_or(0);
        rounds.push(Round { fault, after, away, victim });
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Role;

    #[test]
    fn a_seed_is_a_plan_and_each_fault_comes_as_often_as_was_asked() {
        let faults = [(Fault::Kill(Role::Crawl), 7), (Fault::KillBroker, 3), (Fault::StateLost, 0)];
        let plan = draw(1, &faults);
        assert_eq!(plan, draw(1, &faults));
        assert_ne!(plan, draw(2, &faults));
        for (fault, often) in faults {
            assert_eq!(plan.iter().filter(|round| round.fault == fault).count(), often);
        }
    }
}
