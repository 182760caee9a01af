//! The roles of a cluster's processes.

use std::fmt;

/// What a process does in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads hosts.
    Crawl,
    /// Verifies what was read.
    Validate,
    /// Puts what is verified into one order.
    Sequence,
    /// Serves it.
    Serve,
}

/// How many processes there are of each role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Crawlers.
    pub crawl: usize,
    /// Validators.
    pub validate: usize,
    /// Sequencers; all but one stand by.
    pub sequence: usize,
    /// Fan-out nodes.
    pub serve: usize,
}

impl Role {
    /// All of them, as an event meets them.
    pub const ALL: [Role; 4] = [Role::Crawl, Role::Validate, Role::Sequence, Role::Serve];

    /// The command of `mainstem`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Crawl => "crawl",
            Role::Validate => "validate",
            Role::Sequence => "sequence",
            Role::Serve => "serve",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Counts {
    /// Two of each: the least with which each can lose one.
    pub const TWO: Counts = Counts { crawl: 2, validate: 2, sequence: 2, serve: 2 };

    /// How many of a role.
    pub fn of(self, role: Role) -> usize {
        match role {
            Role::Crawl => self.crawl,
            Role::Validate => self.validate,
            Role::Sequence => self.sequence,
            Role::Serve => self.serve,
        }
    }
}
