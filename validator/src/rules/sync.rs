use atproto::event::SyncEvent;

use super::Context;
use crate::verdict::Verdict;

pub(super) fn judge(event: &SyncEvent<'_>, context: &Context<'_>) -> Verdict {
    let _ = (event, context);
    todo!()
}
