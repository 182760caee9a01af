//! The number of sockets and files this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one: each host and each subscriber is a socket, and the usual soft limit of 1,024 is
/// meant for programs of another kind. Gives the limit that is in force.
pub fn raise_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it can't be raised, the listeners say so when they run out.
    let _refused = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current
}
