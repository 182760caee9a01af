//! The number of sockets and files this process may have open.

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What hosts' sockets and the stores' files may need beside subscribers.
pub const HOSTS_AND_FILES: u64 = 5_000;

/// How many may be open, beside how many may be wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// The limit in force; `None` for none.
    pub limit: Option<u64>,
    /// What the settings may ask for.
    pub needed: u64,
}

/// Raises the soft limit to the hard one: each host and each subscriber is a socket, and the usual soft limit of 1,024 is
/// meant for programs of another kind. Raises the hard one too where that is less than is needed, as root may.
pub fn raise_limit(needed: u64) -> Descriptors {
    let hard = getrlimit(Resource::Nofile).maximum;
    if hard.is_some_and(|hard| hard < needed) {
        let _not_root = setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: Some(needed) });
    }
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it can't be raised, what is in force is told.
    let _refused = setrlimit(Resource::Nofile, limit);
    Descriptors { limit: getrlimit(Resource::Nofile).current, needed }
}

impl Descriptors {
    /// What is too little, if it is.
    pub fn shortage(self) -> Option<Shortage> {
        let Descriptors { limit, needed } = self;
        limit.filter(|limit| *limit < needed).map(|limit| Shortage { limit, needed })
    }
}

/// Fewer may be open than may be wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    limit: u64,
    needed: u64,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage { limit, needed } = self;
        write!(
            f,
            "only {limit} files and sockets may be open at once, and up to {needed} may be needed; past them nobody new \
             is let in and hosts can't be reached. Raise the hard limit (LimitNOFILE= of systemd, --ulimit nofile= of \
             Docker, ulimit -Hn of a shell), or lower --subscribers-max"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_is_said_with_what_to_do() {
        let shortage = |limit| Descriptors { limit, needed: 7_000 }.shortage().map(|shortage| shortage.to_string());
        assert_eq!(shortage(None), None);
        assert_eq!(shortage(Some(7_000)), None);
        let said = shortage(Some(4_096)).unwrap();
        assert!(["4096", "7000", "LimitNOFILE", "--subscribers-max"].iter().all(|word| said.contains(word)), "{said}");
    }

    #[test]
    fn the_soft_limit_is_raised() {
        let before = getrlimit(Resource::Nofile);
        let raised = raise_limit(before.maximum.unwrap_or(1));
        assert_eq!((raised.limit, raised.shortage()), (before.maximum, None));
    }
}
