use atproto::event::IdentityEvent;

use super::Context;
use crate::verdict::Verdict;

pub(super) fn judge(event: &IdentityEvent<'_>, context: &Context<'_>) -> Verdict {
    let _ = (event, context);
    todo!()
}
