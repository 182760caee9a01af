use atproto::event::CommitEvent;

use super::Context;
use crate::verdict::Verdict;

pub(super) fn judge(event: &CommitEvent<'_>, context: &Context<'_>) -> Verdict {
    let _ = (event, context);
    todo!()
}
